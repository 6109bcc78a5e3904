"""Writes the GitHub workflows by which a repository takes submissions to its leaderboards."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ...disk import write_atomic
from ...errors import UserError

FOLDER = "workflows"


def templates() -> dict[str, str]:
    """Names and texts of the workflows, in the order in which they run."""
    names = ("leaderboard-check.yml", "leaderboard-comment.yml", "leaderboard-publish.yml")
    here = files(__package__) / FOLDER
    return {name: (here / name).read_text(encoding="utf-8") for name in names}


def write(out: Path) -> list[Path]:
    """Writes the workflows; UserError, and no file written, if one is there with another text."""
    texts = {out / name: text.encode() for name, text in templates().items()}
    for path, text in texts.items():
        if path.is_symlink() or (
            path.exists() and (not path.is_file() or path.read_bytes() != text)
        ):
            raise UserError(f"{path} is there with another text; move it away, or name another DIR")
    for path, text in texts.items():
        write_atomic(path, text)
    return list(texts)
