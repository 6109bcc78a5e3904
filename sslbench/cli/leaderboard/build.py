"""`sslbench leaderboard build`: writes the folder of a leaderboard."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import UserError
from ..app import OUTPUT, Command, State, quiet_libraries
from ..options import asked, of_suite, refuse_selection, under
from ..text import one_line, say

if TYPE_CHECKING:
    from ...leaderboard.board.material import Material
    from ...leaderboard.folder.folder import Leaderboard


@click.command(cls=Command)
@click.argument("target", metavar="SUITE|DIR")
@under(
    OUTPUT,
    click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="The folder to write; a leaderboard that is there gets the new records.",
    ),
    click.option("--title", help="Its heading, instead of the suite's name."),
    click.option("--summary", help="The line below, instead of the suite's."),
    click.option("--author", "authors", multiple=True, help="Who made it; may be given again."),
    click.option(
        "--reference",
        is_flag=True,
        help="Add published numbers on the same data, unranked, now and in later builds.",
    ),
)
@of_suite
@click.pass_context
def build(
    ctx: click.Context,
    /,
    target: str,
    out: Path | None,
    reference: bool,
    title: str | None,
    summary: str | None,
    authors: tuple[str, ...],
    **given: Any,
) -> None:
    """Write the tables, data and page of a leaderboard.

    They are README.md, CSV, JSON, LaTeX, and one page of HTML that needs no network.

    The records of a SUITE are taken from the store. The folder DIR of a leaderboard is built again
    from the suite and the records in it: no data, no plugin and no store is needed.

    \b
    Examples:
      sslbench leaderboard build quick --out board
      sslbench leaderboard build board
      sslbench leaderboard build board --title "Moths by night" --author "A. Moth"
    """
    from ...leaderboard.folder.folder import board_of, entitled, read_lock, write
    from ...leaderboard.output.files import files_of

    with _nothing_collected():
        folder = _folder(ctx, target, out, given)
        words = {"title": title, "summary": summary, "authors": authors or None}
        if any(value is not None for value in words.values()):
            folder = entitled(folder, **{k: v for k, v in words.items() if v is not None})
        before = read_lock(folder.root)
        board = board_of(folder, reference=reference or (before is not None and before.reference))
        written = write(folder, board, files_of(board))
    for note in board.notes:
        say(f"note: {one_line(note)}")
    say(f"{len(folder.kept)} records, {len(board.left_out)} of them left out")
    say(f"written: {', '.join(map(str, written))}")


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """Turns garbage collection off: with 100,000 records it takes seconds and finds nothing."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _folder(
    ctx: click.Context, target: str, out: Path | None, given: dict[str, Any]
) -> Leaderboard:
    from ...leaderboard.folder.folder import check_ours, read
    from ...leaderboard.output.files import NAMES

    root = Path(target)
    if out is None and root.is_dir():
        refuse_selection(ctx, root)
        return read(root)
    if out is None:
        raise UserError(f"say where to write the leaderboard of {target}: --out DIR")
    check_ours(out, NAMES)
    return collected(ctx, {**given, "suite": target}, out)


def collected(ctx: click.Context, given: dict[str, Any], root: Path) -> Leaderboard:
    """The leaderboard in a folder, with the records of the store that these options select."""
    from ...leaderboard.folder.folder import add
    from ...store import Store

    material = _material(ctx, given)
    store = Store(given["store"])
    folder = add(root, material.suite, material.records, store=store)
    for notice in store.notices:  # of damaged predictions
        say(f"notice: {one_line(notice)}", err=True)
    return folder


def _material(ctx: click.Context, given: dict[str, Any]) -> Material:
    """The whole suite that these options select, and its records in the store."""
    state = ctx.ensure_object(State)
    with quiet_libraries(verbose=state.verbose):
        options = asked(state, given)
        from ...leaderboard.board.planned import material_of
        from ...plan.planning import make_plan

        plan = make_plan(options, state.registry, preflight=False)
    for notice in plan.store.notices:
        say(f"notice: {one_line(notice)}", err=True)
    material = material_of(plan, state.registry)
    if not material.records:
        raise UserError(
            f"the store {plan.store.root} has no records of the suite {plan.suite_id}; "
            f"`sslbench run --suite {plan.suite.name}` makes them"
        )
    return material
