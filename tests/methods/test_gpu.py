"""What a step asks of a GPU: that it never waits, and a budget of operations for each method."""

from __future__ import annotations

import json

import pytest
from pretending import where_it_works

from sslbench.testing import keeps_a_gpu_busy
from sslbench.testing.gpu import asked_of_a_gpu

from .helpers import FOLDER, FULL, TRAINED

BUDGETS = FOLDER / "operations.json"  # a step
GROWTH = 1.1
MAIN = {"simclr"}
NAMES = [name for name in TRAINED if name in FULL]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in MAIN else pytest.mark.slow) for name in NAMES],
)
def test_a_step_keeps_it_busy_and_stays_within_its_budget(name, trial_of, request):
    """`--regold` writes the budget anew: do that where more work is worth it, and say why."""
    with where_it_works():
        asked = asked_of_a_gpu(trial_of(name), "fp32")
    assert asked.status == "ok", asked.sentence
    assert keeps_a_gpu_busy(trial_of(name)) is None
    # the first step of a fit also fills what optimisers remember
    most = max(seen.count for seen in asked.steps[1:])
    known = json.loads(BUDGETS.read_text()) if BUDGETS.exists() else {}
    if request.config.getoption("--regold"):
        BUDGETS.write_text(json.dumps({**known, name: most}, indent=1, sort_keys=True) + "\n")
        return
    assert most <= GROWTH * known[name], f"{most} operations a step, {known[name]} before"
