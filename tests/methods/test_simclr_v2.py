"""SimCLR v2: a deeper head, of which the first layer is kept."""

from __future__ import annotations

import math

import pytest
import torch

import sslbench
from sslbench import testing
from sslbench.api import Backbone
from sslbench.cells.parameters import anatomy

from .helpers import METHODS, first_loss, near


def test_the_head_has_three_layers_with_batch_norm_and_the_first_is_judged(made):
    method = made("simclr-v2")
    kinds = [type(layer).__name__ for layer in method.head]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    widths = [(layer.in_features, layer.out_features) for layer in method.head[::3]]
    assert widths == [(96, 96), (96, 96), (96, 64)]
    assert [layer.bias is None for layer in method.head[::3]] == [True] * 3


@pytest.mark.parametrize("read", [0, 1, 2])
def test_the_encoder_ends_behind_the_layer_that_is_read(read, made):
    method = made("simclr-v2", read=read)
    for norm in method.head[1::3]:
        norm.running_mean.uniform_(-0.1, 0.1)
    method.eval()
    x = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        h = method.backbone(x)
        for layer in list(method.head)[: 3 * read]:
            h = layer(h)
        torch.testing.assert_close(method.encoder()(x), h)
    assert isinstance(method.encoder(), Backbone) == (read == 0)
    assert not read or (method.encoder()(x) >= 0).all()


def test_the_layer_that_is_read_is_trained_and_comes_back_from_the_store(trial_of):
    trial = trial_of("simclr-v2")
    testing.trains_all_it_has(trial)
    testing.encodes_each_image_alone(trial)
    encoder = sslbench.load(trial.cell().id, trial.folder / "whole")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(encoder(x), trial.module.encoder()(x))
        assert encoder(x).shape == (2, 96)
    start = trial.bench("built").builder.build(trial.cell())[0].head[0].weight
    assert (encoder[1].weight - start).abs().max() > 1e-6


def test_the_first_version_keeps_nothing_of_its_head_of_two_layers(made):
    first, second = anatomy(METHODS["simclr"]), anatomy(METHODS["simclr-v2"])
    assert (first.defaults["layers"], first.defaults["read"]) == (2, 0)
    assert (second.defaults["layers"], second.defaults["read"]) == (3, 1)
    assert made("simclr", layers=1).head[0].out_features == 64


@pytest.mark.parametrize(("layers", "read"), [(2, 2), (3, 4)])
def test_the_layer_before_the_loss_is_not_there_to_be_read(layers, read, made):
    with pytest.raises(ValueError, match=f"read={read} .* a head of {layers} layers"):
        made("simclr-v2", layers=layers, read=read)


def test_a_collapsed_head_costs_the_logarithm_of_the_other_views(made, batch_of):
    method = made("simclr-v2").eval()
    torch.nn.init.zeros_(method.head[-1].weight)
    torch.nn.init.ones_(method.head[-1].bias)
    near(first_loss(method, batch_of(method))[1], math.log(15))


def test_the_papers_settings_by_name():
    epochs = {name: anatomy(METHODS[name]).recipe.epochs for name in METHODS if "simclr" in name}
    assert epochs == {
        "simclr": 100,
        "simclr-v2": 100,
        "simclr-imagenet": 1000,
        "simclr-v2-imagenet": 800,
        "simclr-v2-finetune": 1,
        "simclr-v2-finetune-imagenet": 1,
        "simclr-v2-distil": 400,
        "simclr-v2-distil-imagenet": 400,
    }
    assert anatomy(METHODS["simclr-v2-imagenet"]).defaults["read"] == 1
