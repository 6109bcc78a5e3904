"""Banks and queues take the memory that one counts by hand."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPT = runpy.run_path(str(BENCHMARKS / "memory.py"))


@pytest.mark.parametrize("name", SCRIPT["BY_HAND"])
def test_buffers_at_the_papers_settings_are_as_large_as_counted_by_hand(name):
    by_hand = {key: math.prod(factors) for key, factors in SCRIPT["BY_HAND"][name].items()}
    assert SCRIPT["sizes"](name) == by_hand


def test_a_queue_is_its_length_times_its_width_times_four():
    assert math.prod(SCRIPT["BY_HAND"]["moco"]["queue"]) == 33_554_432
    assert math.prod(SCRIPT["BY_HAND"]["npid"]["bank"]) == 655_957_504


def test_the_table_of_memory_is_fresh(request):
    path = BENCHMARKS / "results" / "memory.md"
    text = SCRIPT["table"]()
    if request.config.getoption("--regold"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text, "`pytest tests/test_memory.py --regold`, if that is meant"
