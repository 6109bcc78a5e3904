"""Rotation prediction: the turns are exact and balanced, the loss starts at ln 4 and teaches."""

from __future__ import annotations

import math
import subprocess
import sys
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
import torch
from sslbench_rotnet.method import RotNet, rotations
from torch import nn

from sslbench.api import Backbone, Batch, DataInfo
from sslbench.plugins import registry
from sslbench.testing import METHOD_CHECKS, Trial

HOME = Path(__file__).parents[1]


class Tiny(Backbone):
    """Two convolutions and a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.name, self.dim = "tiny", 8
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 5), nn.ReLU()
        )

    def forward(self, x):
        return self.net(x).mean((2, 3))

    def maps(self, x):
        return [self.net(x)]

    def anew(self):
        return Tiny()

    def with_input(self, front, channels):
        raise NotImplementedError

    def pretrained(self, tag):
        raise NotImplementedError


class Brightness(nn.Module):
    def forward(self, x):
        return x.mean((1, 2, 3))[:, None].expand(-1, 8)


@pytest.fixture
def method():
    torch.manual_seed(0)
    return RotNet(Tiny(), DataInfo("noise", size=16, length=64, classes=10))


def batch_of(method, images):
    torch.manual_seed(1)
    n = len(images)
    return Batch(method.views()(images), torch.arange(n), torch.full((n,), -1), 0, 0.0)


def images_of(n, size=16):
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8)


def test_four_quarter_turns_are_the_identity():
    x = torch.rand(5, 3, 7, 7)
    turned = x
    for quarter in range(4):
        assert torch.equal(rotations(x)[5 * quarter : 5 * quarter + 5], turned)
        turned = rotations(turned)[5:10]
    assert torch.equal(turned, x)


def test_a_quarter_turn_moves_the_corner_and_keeps_every_pixel():
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 0, 0] = 1  # top left; counter-clockwise: bottom left, bottom right, top right
    corners = [tuple(each[0].nonzero()[0].tolist()) for each in rotations(x)]
    assert corners == [(0, 0), (2, 0), (2, 2), (0, 2)]
    noise = torch.rand(1, 3, 6, 6)
    for each in rotations(noise):
        assert torch.equal(each.flatten().sort().values, noise.flatten().sort().values)


def test_every_rotation_is_a_quarter_of_the_batch_and_labelled_as_turned(method, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "torch.nn.functional.cross_entropy",
        lambda logits, labels: seen.update(labels=labels) or logits.sum(),
    )
    shown = []
    method.backbone.register_forward_pre_hook(lambda _, given: shown.append(given[0]))
    batch = batch_of(method, images_of(6))
    next(method.step(batch))
    assert seen["labels"].bincount().tolist() == [6, 6, 6, 6]
    for image, label, source in zip(
        shown[0], seen["labels"], batch.views.repeat(4, 1, 1, 1), strict=True
    ):
        assert torch.equal(image, torch.rot90(source, int(label), (1, 2)))


def test_the_first_loss_is_near_ln_4_and_its_gradient_reaches_the_backbone(method):
    steps = method.step(batch_of(method, images_of(32)))
    loss = next(steps)
    assert loss.item() == pytest.approx(math.log(4), abs=0.05)
    loss.backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    with pytest.raises(StopIteration):
        steps.send(True)


def test_a_feature_that_no_rotation_changes_stays_at_chance(method):
    method.backbone = Brightness()
    loss = next(method.step(batch_of(method, images_of(8))))
    assert loss.item() >= math.log(4) - 1e-6


def test_it_learns_which_side_is_up(method):
    images = torch.zeros(32, 3, 16, 16, dtype=torch.uint8)
    images[:, :, :8] = 200  # sky above
    optimiser = torch.optim.SGD(method.parameters(), lr=0.2, momentum=0.9)
    losses = []
    for _ in range(40):
        loss = next(method.step(batch_of(method, images)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_the_schedule_is_the_papers():
    recipe = RotNet.recipe
    levels = [recipe.lr * recipe.gamma**passed for passed in range(4)]
    assert levels == pytest.approx([0.1, 0.02, 0.004, 0.0008])
    assert [round(share * recipe.epochs) for share in recipe.milestones] == [60, 120, 160]


def plugin():
    return registry(installed=False, files=[HOME / "sslbench_rotnet" / "__init__.py"])


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    return Trial(plugin(), "rotnet", tmp_path_factory.mktemp("stores"))


@pytest.mark.parametrize("check", METHOD_CHECKS)
def test_it_keeps_what_every_method_promises(check, trial):
    check(trial)


def test_the_hook_names_the_method():
    entry = plugin().find("methods", "rotnet")
    assert entry.load() is RotNet
    assert entry.summary().startswith("Tells which of four rotations")


def test_the_wheel_holds_the_method_and_the_entry_point(tmp_path):
    source = copytree(HOME, tmp_path / "source", ignore=ignore_patterns("build", "*.egg-info"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("sslbench_rotnet-0.1.0-*.whl")
    with zipfile.ZipFile(wheel) as held:
        assert {"sslbench_rotnet/__init__.py", "sslbench_rotnet/method.py"} <= set(held.namelist())
        assert not [name for name in held.namelist() if name.startswith("tests")]
        points = held.read("sslbench_rotnet-0.1.0.dist-info/entry_points.txt").decode()
    assert points.split() == ["[sslbench]", "rotnet", "=", "sslbench_rotnet"]
