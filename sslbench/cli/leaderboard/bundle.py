"""`sslbench leaderboard bundle`: packs records and weights into one file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from ..app import OUTPUT, Command
from ..options import of_suite, under
from ..text import count, say, size
from .build import collected


@click.command(cls=Command)
@click.argument("target", metavar="DIR|SUITE")
@under(
    OUTPUT,
    click.option(
        "--out",
        required=True,
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE.zip",
        help="The bundle to write; an old one is replaced.",
    ),
    click.option(
        "--without-models", is_flag=True, help="Pack records only; nobody can verify such a bundle."
    ),
)
@of_suite
@click.pass_context
def bundle(
    ctx: click.Context, /, target: str, out: Path, without_models: bool, **given: Any
) -> None:
    """Pack records and weights into one file that others can verify.

    The records are those of the leaderboard DIR, or the store's of a SUITE;
    the weights are the store's. The same content gives the same bytes.
    """
    from ...leaderboard.folder.folder import read
    from ...leaderboard.verify.bundle import pack
    from ...store import Store

    store = Store(given["store"])
    if Path(target).is_dir():
        packed = pack(read(Path(target)), store, out, models=not without_models)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            folder = collected(ctx, {**given, "suite": target}, Path(scratch) / "leaderboard")
            packed = pack(folder, store, out, models=not without_models)
    records, models = count(packed.records, "record"), count(packed.models, "model")
    say(f"written: {out} ({records}, {models}, {size(packed.size)})")
