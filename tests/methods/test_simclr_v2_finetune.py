"""SimCLR v2 fine-tuned: from the middle of the pretext's head, on the budget alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sslbench.api import Batch, DataInfo
from sslbench.cells.parameters import anatomy
from sslbench.train.optim import Optimisation, scaled_lr

from .helpers import METHODS, Lent, first_loss, log_share, near, noise, same

CASES = {}
NAME = "simclr-v2-finetune"


class Beside(Lent):
    """A run whose pretext is at hand."""

    def __init__(self, pretext):
        super().__init__()
        self.pretext = pretext

    def pretrain(self, name, into=None):
        super().pretrain(name, into)
        return self.pretext

    def labels(self):
        return torch.tensor([-1, 3, -1, 0, -1])


def moved(method, seed=0):
    """The method as if it had learned something."""
    for i, p in enumerate(method.parameters()):
        p.data.add_(0.05 * noise(*p.shape, seed=seed + i))
    for module in method.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return method.eval()


def labelled(method, size=6):
    x = torch.rand(size, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    given = Batch(x, torch.arange(size), torch.arange(size) % 10, 0, 0.0)
    return Batch(None, None, None, 0, 0.0, {"labelled": given})


def test_it_goes_on_from_the_first_layer_of_the_head(made):
    method, pretext = made(NAME), moved(made("simclr-v2"))
    method.fit(Beside(pretext))
    method.eval()
    x = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        linear, norm = pretext.head[:2]
        middle = norm(pretext.backbone(x) @ linear.weight.T).clamp_min(0)
        same(method.encoder()(x), middle)
        same(method.predict(x), middle @ method.head.weight.T + method.head.bias)
    kinds = [type(layer).__name__ for layer in method.encoder()[1:]]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"]


def test_the_pretext_is_copied_and_stays_as_it_was(made):
    method, pretext = made(NAME), moved(made("simclr-v2"))
    method.fit(Beside(pretext))
    before = pretext.head[0].weight.clone()
    method.encoder()[1].weight.data.zero_()
    assert pretext.head[0].weight.equal(before)


@pytest.mark.parametrize(("pretext", "read"), [("simclr", 0), ("simclr-v2", 2)])
def test_it_goes_on_from_any_layer_that_the_pretext_keeps(pretext, read, made):
    method, other = made(NAME, read=read), moved(made(pretext, read=read))
    method.begin(other.encoder())
    method.eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        same(method.encoder()(x), other.encoder()(x))


@pytest.mark.parametrize(("pretext", "read"), [("simclr", 1), ("simclr-v2", 0), ("simclr-v2", 2)])
def test_an_encoder_that_ends_elsewhere_is_refused_with_a_sentence(pretext, read, made):
    with pytest.raises(ValueError, match=f"{read} layers of a head, as read={read} says; set read"):
        made(NAME, read=read).begin(made(pretext).encoder())


def test_only_images_of_the_budget_are_drawn(made):
    run = Beside(made("simclr-v2"))
    made(NAME, ratio=4.0).fit(run)
    assert [what for what, _ in run.asked] == ["pretrain simclr-v2", "epochs"]
    assert not run.epoch.main
    assert run.epoch.streams["labelled"].pool.tolist() == [1, 3]
    assert run.epoch.streams["labelled"].share == 0.25


def test_its_classifier_starts_at_zero_and_moves_first(made):
    method = made(NAME)
    batch = labelled(method)
    _, loss = first_loss(method, batch)
    near(loss, math.log(10))
    assert method.uniform() == pytest.approx(math.log(10))
    loss.backward()
    assert all(p.grad.abs().max() == 0 for p in method.encoder().parameters())
    assert method.head.weight.grad.abs().max() > 1e-3


def test_loss_and_gradient_are_those_of_a_loop(made):
    method = made(NAME)
    method.head.weight.data.copy_(noise(10, method.head.in_features))
    batch = labelled(method)
    given = batch.also["labelled"]
    with torch.no_grad():
        h = method.encoder()(given.views).double()
    weight = method.head.weight.detach().double().requires_grad_()
    rows = zip(h @ weight.T, given.label, strict=True)
    expected = sum(-log_share(row, int(label)) for row, label in rows) / len(h)
    expected.backward()
    _, loss = first_loss(method, batch)
    loss.backward()
    torch.testing.assert_close(loss, expected.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(method.head.weight.grad, weight.grad.float(), rtol=1e-4, atol=1e-5)


def test_lars_scales_all_but_the_classifier_and_nothing_decays(made):
    method, recipe = made(NAME), anatomy(METHODS[NAME]).recipe
    assert scaled_lr(recipe) == pytest.approx(0.005 * math.sqrt(1024))
    found = {}
    for group in Optimisation(method, recipe, steps_per_epoch=3).optimizer.param_groups:
        assert group["weight_decay"] == 0
        found |= {id(p): group["always_adapt"] for p in group["params"]}
    scaled = {name for name, p in method.named_parameters() if found[id(p)]}
    assert scaled == {
        name for name, p in method.named_parameters() if p.ndim > 1 and not name.startswith("head.")
    }


def test_one_class_is_refused(made):
    method = made(NAME)
    said = type(method).needs(method.backbone[0], DataInfo("one", size=32, length=9, classes=1))
    assert said == "it tells classes apart, one has one"
