"""`sslbench leaderboard publish`: publishes pages to a folder or a git branch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...errors import UserError
from ..app import Command
from ..options import json_option
from ..text import count, one_line, say, say_json

if TYPE_CHECKING:
    from ...leaderboard.publish.publishing import BranchTarget, FolderTarget


@click.command(cls=Command)
@click.argument("root", metavar="DIR", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--to", type=click.Path(path_type=Path), metavar="FOLDER", help="Publish to this folder."
)
@click.option(
    "--branch", metavar="NAME", help="Publish as a commit on this branch, such as gh-pages."
)
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The repository of the branch.  [default: that of the working directory]",
)
@click.option(
    "--push", metavar="REMOTE", help="Push the branch to this remote; nothing is pushed otherwise."
)
@click.option("--dry-run", is_flag=True, help="List what would change, and write nothing.")
@json_option
def publish(
    root: Path,
    to: Path | None,
    branch: str | None,
    repository: Path | None,
    push: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Publish leaderboards for GitHub Pages, in a folder or on a branch.

    DIR is a leaderboard, or a folder of leaderboards. Only files that a leaderboard's lock names
    are published, and only what was published before is replaced or removed. A branch is written
    without a checkout: your working tree and index stay as they are.
    """
    from ...leaderboard.publish.publishing import pages
    from ...leaderboard.publish.publishing import publish as bring

    if (to is None) == (branch is None):
        raise UserError("say where to publish: --to FOLDER or --branch NAME")
    if branch is None and (push or repository):
        raise UserError("--push and --repository go with --branch NAME")
    target = _target(to, branch, repository, push)
    changes = bring(pages(root), target, dry_run=dry_run)
    pushed = bool(push and branch and not dry_run)
    if as_json:
        said = {"dry_run": dry_run, "commit": changes.commit, "pushed": pushed}
        say_json({key: getattr(changes, key) for key in ("added", "changed", "removed")} | said)
    else:
        for what in ("added", "changed", "removed"):
            for path in getattr(changes, what):
                say(f"{what:7}  {one_line(path)}")
        files = sum(map(len, (changes.added, changes.changed, changes.removed)))
        told = f"{count(files, 'file')} {'would change' if dry_run else 'changed'}"
        commit = f", commit {changes.commit[:12]}" if changes.commit else ""
        say(f"{told if files else 'nothing to change'} in {target.name}{commit}")
    if pushed:
        _push(target, push or "", branch or "")


def _target(
    to: Path | None, branch: str | None, repository: Path | None, push: str | None
) -> FolderTarget | BranchTarget:
    from ...leaderboard.publish.publishing import BranchTarget, FolderTarget
    from ...leaderboard.publish.repository import Repository

    if to is not None:
        return FolderTarget(to)
    return BranchTarget(Repository(repository or Path.cwd()), branch or "", push or "origin")


def _push(target: FolderTarget | BranchTarget, remote: str, branch: str) -> None:
    from ...leaderboard.publish.publishing import BranchTarget

    if isinstance(target, BranchTarget):
        target.repository.push(remote, branch)
        say(f"pushed {branch} to {one_line(remote)}", err=True)
