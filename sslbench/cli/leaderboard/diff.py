"""`sslbench leaderboard diff`: prints which ranks changed between two leaderboards, and why."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...errors import UserError
from ..app import Command
from ..options import json_option
from ..text import echo, say_json

if TYPE_CHECKING:
    from ...leaderboard.folder.diff import Side

CHANGED = 6  # exit code of --fail-on-change


@click.command(cls=Command)
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "markdown")),
    default="text",
    show_default=True,
    help="Form of the output; Markdown suits a comment on a pull request.",
)
@click.option("--fail-on-change", is_flag=True, help="Exit with 6 if a rank or mean changed.")
@json_option
@click.pass_context
def diff(
    ctx: click.Context, /, old: str, new: str, form: str, fail_on_change: bool, as_json: bool
) -> None:
    """Print which ranks and means changed, and why.

    OLD and NEW are folders of leaderboards, or git:REVISION:PATH of the repository here.
    """
    from ...leaderboard.folder.diff import between
    from ...leaderboard.folder.difftext import as_markdown, as_text, plain

    found = between(_side(old), _side(new))
    if as_json:
        say_json(
            {
                "changed": found.changed,
                "suite": found.suite,
                "changes": list(plain(found)),
                "records": {"added": found.added, "gone": found.gone},
            }
        )
    else:
        echo((as_markdown if form == "markdown" else as_text)(found), nl=False)
    if fail_on_change and found.changed:
        ctx.exit(CHANGED)


def _side(name: str) -> Side:
    from ...leaderboard.folder.diff import side_of
    from ...leaderboard.folder.folder import read

    with _root(name) as root:
        return side_of(read(root))


@contextlib.contextmanager
def _root(name: str) -> Iterator[Path]:
    """The folder, or a copy of it from a git revision."""
    if not name.startswith("git:"):
        yield Path(name)
        return
    revision, _, path = name.removeprefix("git:").partition(":")
    if not revision or not path.strip("/"):
        raise UserError(
            f"{name!r} should be git:REVISION:PATH, such as git:main:leaderboards/quick"
        )
    with tempfile.TemporaryDirectory() as scratch:
        _check_out(revision, path.strip("/"), Path(scratch))
        yield Path(scratch)


def _check_out(revision: str, path: str, out: Path) -> None:
    from ...disk import write_atomic
    from ...leaderboard.folder.folder import is_inside
    from ...leaderboard.publish.repository import PLAIN, Repository

    repository = Repository(Path.cwd())
    commit = repository.commit(revision)
    if commit is None:
        raise UserError(
            f"git knows no revision {revision!r} here; `git fetch` gets those of others"
        )
    listed = repository.files(commit, path)
    wanted = {n: b for n, b in listed.items() if b.mode in PLAIN and is_inside(n)}
    if not wanted:
        raise UserError(f"there is no folder {path} in {revision}; see `git ls-tree {revision}`")
    for name, content in zip(wanted, repository.contents(wanted.values()), strict=True):
        write_atomic(out / name.removeprefix(f"{path}/"), content)
