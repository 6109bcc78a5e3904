"""What methods that rebuild images make of outliers: noise is found, and what is simple is liked."""

from __future__ import annotations

import pytest
import torch

from sslbench.evaluators.anomaly import Anomaly
from sslbench.evaluators.reconstruction import Reconstruction
from sslbench.testing.made_up import MadeUp, a_tenth
from sslbench.train.state import restore

from .helpers import noise

pytestmark = pytest.mark.slow
REBUILD = ("autoencoder", "vae", "vq-vae", "inpainting")


@pytest.fixture(scope="module", params=REBUILD)
def world(request, trial_of):
    """96 digits that the method saw 40 times, with a class of noise and one of flat images."""
    name = request.param
    trial = trial_of(name)
    bold = {"lr": 3e-3, "schedule": "constant", "optimizer": "adamw"}
    fit = trial.fit(
        "outliers", trial.cell(epochs=40, **{f"{name}.{k}": v for k, v in bold.items()})
    )
    assert fit.done.status == "ok", fit.done.sentence
    method, _ = trial.bench("outliers").builder.build(trial.cell())
    restore(method, fit.weights, what="the model")
    generator = torch.Generator().manual_seed(0)
    made = MadeUp(noise(136, 8), noise(60, 8, seed=1), {}, 3, a_tenth(136))  # features say nothing
    for split, digits in (("train", trial.data.train.images), ("test", trial.data.test.images)):
        grain = torch.randint(256, (20, 3, 32, 32), generator=generator, dtype=torch.uint8)
        flat = torch.randint(20, (20, 1, 1, 1), generator=generator, dtype=torch.uint8)
        images = torch.cat([digits, grain, flat.expand_as(grain)])
        made.pictures[split] = images
        made.truth[split] = torch.tensor([0] * len(digits) + [1] * 20 + [2] * 20)
        with torch.no_grad():
            made.rebuilt[split] = method.eval().reconstruct(images.float() / 255)
    return made


def errors(world):
    wrong = world.rebuilt["test"] - world.pictures["test"].float() / 255
    return wrong.square().mean((1, 2, 3)), world.truth["test"]


def test_noise_is_rebuilt_worst(world):
    error, kind = errors(world)
    assert error[kind == 1].min() > error[kind == 0].max()


def test_an_unusual_error_tells_planted_outliers_from_digits(world):
    assert world.judged_by(Anomaly()).metrics["reconstruction_auroc"].value > 0.85
    assert world.judged_by(Reconstruction()).metrics["psnr"].n == 60


@pytest.mark.parametrize("world", ["vq-vae"], indirect=True)
def test_a_flat_image_is_rebuilt_better_than_what_was_learned(world):
    """The classical claim, that what was never seen is rebuilt badly, fails for what is simple."""
    error, kind = errors(world)
    assert error[kind == 2].median() < error[kind == 0].median()
