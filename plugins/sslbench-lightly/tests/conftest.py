"""Fixtures: trials and methods of both sides, built alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sslbench.api import Batch
from sslbench.plugins import registry
from sslbench.testing import Trial

HOME = Path(__file__).parents[1]
BOTH = registry(installed=False, files=[HOME / "sslbench_lightly" / "__init__.py"])


@pytest.fixture(scope="session")
def trial_of(tmp_path_factory):
    """The trial of an entry, with its fits, for all tests."""
    known: dict[str, Trial] = {}

    def get(name: str, settings: dict | None = None) -> Trial:
        if name not in known:
            dotted = {f"{name}.{key}": value for key, value in (settings or {}).items()}
            known[name] = Trial(BOTH, name, tmp_path_factory.mktemp("stores"), dotted)
        return known[name]

    return get


@pytest.fixture
def made(trial_of):
    """A method as built, in training, with these hyperparameters."""

    def get(name: str, **settings):
        trial = trial_of(name)
        cell = trial.cell(**{f"{name}.{key}": value for key, value in settings.items()})
        return trial.bench("built").builder.build(cell)[0].train()

    return get


@pytest.fixture
def batch_of(trial_of):
    """Images of the data as this method sees them; another eight in each step."""

    def get(method, step: int = 0, *, epoch: int = 0, size: int = 8) -> Batch:
        torch.manual_seed(step)
        images = trial_of("simclr").data.train.images[size * step : size * (step + 1)]
        hidden = torch.full((size,), -1)
        return Batch(method.views()(images), torch.arange(size), hidden, epoch, 0.25)

    return get
