"""What is published in leaderboards/ is what its records say, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from sslbench.leaderboard.folder import folder as folders
from sslbench.leaderboard.output.files import files_of

HOME = Path(__file__).parent.parent / "leaderboards"
BOARDS = sorted(path for path in HOME.iterdir() if path.is_dir())


@pytest.mark.parametrize("root", BOARDS, ids=lambda path: path.name)
def test_a_published_leaderboard_is_built_again_to_the_same_bytes(root: Path) -> None:
    folder = folders.read(root)
    lock = folders.read_lock(root)
    assert lock is not None
    assert folders.differences(folder, lock) == []
    made = files_of(folders.board_of(folder, reference=lock.reference))
    assert set(made) == set(lock.generated)
    for name, content in made.items():
        assert (root / name).read_bytes() == content.encode(), name
    assert not lock.left_out
