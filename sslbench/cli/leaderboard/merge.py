"""`sslbench leaderboard merge`: merges two stores, or two leaderboards."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import CheckFailed
from ..app import Command
from ..options import json_option
from ..text import ID, count, one_line, say, say_json

if TYPE_CHECKING:
    from ...leaderboard.folder.merge import Conflict

FEW = 3  # differences that a conflict's line shows


@click.command(cls=Command)
@click.argument("one", metavar="A", type=click.Path(path_type=Path))
@click.argument("other", metavar="B", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder to write; it must be new or empty.",
)
@click.option(
    "--skip-conflicts",
    is_flag=True,
    help="Leave out records in conflict; a leaderboard's notes will say so.",
)
@json_option
def merge(one: Path, other: Path, out: Path, skip_conflicts: bool, as_json: bool) -> None:
    """Merge two stores, or two leaderboards of one suite.

    A and B stay as they are; the result is a new folder.

    Two successful records of one cell and evaluator with different numbers are a conflict. Conflicts
    are listed, and nothing is written (exit code 5) unless --skip-conflicts leaves them out.
    Different times and costs are not a conflict, nor are failed attempts.
    """
    from ...leaderboard.folder.merge import merge as unite

    merged = unite(one, other, out, skip_conflicts=skip_conflicts)
    conflicts = merged.union.conflicts
    if as_json:
        found = [dataclasses.asdict(conflict) for conflict in conflicts]
        ids = [record.record_id for record in merged.union.records]
        say_json({"written": merged.written, "records": ids, "conflicts": found})
    else:
        for conflict in conflicts:
            say(f"conflict: {_sentence(conflict)}")
    if not merged.written:
        raise CheckFailed(
            f"{one} and {other} contradict each other in {count(len(conflicts), 'record')}, and "
            f"nothing was written; remove what is wrong, or leave both out with --skip-conflicts"
        )
    if not as_json:
        say(f"{count(len(merged.union.records), 'record')} in {out}")
        if merged.kind == "leaderboard":
            say(f"its tables: sslbench leaderboard build {out}")


def _sentence(conflict: Conflict) -> str:
    differing = [f"{name} {' or '.join(map(_shown, v))}" for name, v in conflict.differing.items()]
    more = f" and {len(differing) - FEW} more" if len(differing) > FEW else ""
    return one_line(
        f"{conflict.what} of {conflict.method} · {conflict.backbone} · {conflict.dataset} · seed "
        f"{conflict.seed} (cell {conflict.cell_id[:ID]}): {', '.join(differing[:FEW])}{more}; "
        f"records {', '.join(record[:ID] for record in conflict.records)}"
    )


def _shown(value: Any) -> str:
    """A measured value in words; a curve by its last point."""
    return f"{value[-1][1]} at the end" if isinstance(value, list) and value else str(value)
