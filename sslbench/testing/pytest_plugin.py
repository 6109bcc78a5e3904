"""Runs the conformance kit under pytest: each check is a test."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..api import Place
from .kit import Check, open_kit


def conformance(
    plugin: str,
    *,
    examples: Sequence[str] = (),
    data: Sequence[Path] = (),
    backbones: Sequence[str] = (),
    datasets: Sequence[str] = (),
) -> Callable[..., None]:
    """Makes a test of each promise of a plugin: `test_conformance = conformance("sslbench-mine")`.

    Args:
        plugin: an installed distribution, or the path of a plugin's file
        examples: names by which to check families, and datasets that want a path
        data: folders in which to look for datasets
        backbones, datasets: on which to check methods; each takes the first that suits it
    """
    import pytest

    folder = Path(tempfile.mkdtemp(prefix="sslbench-kit-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    kit = open_kit(
        plugin,
        folder,
        examples=examples,
        backbones=backbones,
        datasets=datasets,
        place=Place(tuple(data)),
    )
    checks = list(kit.checks())
    names = [f"{check.of.replace(' ', '-')}-{check.name}" for check in checks]

    @pytest.mark.parametrize("check", checks, ids=names)
    def test_conformance(check: Check) -> None:
        result = kit.run(check)
        if result.sentence:
            pytest.fail(f"{check.of}: {result.sentence}", pytrace=False)

    found: Any = test_conformance
    return found  # type: ignore[no-any-return]  # pytest's decorators have no types here
