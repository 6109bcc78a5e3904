"""Encoders that are never trained: pixels, untrained and published networks."""

from __future__ import annotations

import pytest
import torch

from sslbench.errors import UserError
from sslbench.testing import Trial

from .helpers import REGISTRY


def test_pixels_are_the_image_flattened_and_averaged_down_to_32(made):
    x = torch.rand(2, 3, 64, 64)
    small = x.unflatten(3, (32, 2)).unflatten(2, (32, 2)).mean((3, 5))
    flat = made("pixels")
    assert torch.equal(flat(small), small.flatten(1))
    torch.testing.assert_close(flat(x), small.flatten(1))
    assert made("pixels", largest=8)(x).shape == (2, 3 * 8 * 8)


def test_pretrained_is_the_published_network(made, hub):
    ours = made("pretrained").net.state_dict()
    assert all(torch.equal(ours[key], hub[key]) for key in ours)


def test_without_published_weights_pretrained_says_what_would_work(tmp_path):
    trial = Trial(REGISTRY, "pretrained", tmp_path, backbone="resnet18")
    with pytest.raises(UserError, match=r"of resnet18 are not in .* --download"):
        trial.bench("none").builder.build(trial.cell())
