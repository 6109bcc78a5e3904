"""What follows a network by a moving average, of every method that has one of each by these names."""

from __future__ import annotations

import pytest
import torch

from sslbench.cells.parameters import anatomy

from .helpers import FULL, METHODS, declared, first_loss, trained

FOLLOWING = [
    name for name in FULL if getattr(anatomy(METHODS[name]).target, "targets", ()) == ("target",)
]
AT = {
    0.0: 0.1,
    0.5: 0.05,
    1.0: 0.0,
}  # progress -> what the target takes over, of a tenth, on a cosine
STEADY = ("moco",)  # a tenth, always
RATES = {"i-jepa": 20.0}  # its predictor starts with small weights, which few gradients pass
NORMED = [name for name in FOLLOWING if "vit" not in declared(name, "BACKBONES").get(name, "")]


def test_there_are_some():
    assert set(FOLLOWING) > {*STEADY, "byol"}


@pytest.mark.parametrize("progress", AT)
@pytest.mark.parametrize("name", FOLLOWING)
def test_the_target_starts_as_a_copy_and_follows_ever_more_slowly(name, progress, made, batch_of):
    method = made(name, momentum_target=0.9)
    share = AT[0.0 if name in STEADY else progress]
    before = [p.clone() for p in method.target.parameters()]
    theirs = [*method.online.parameters()]
    for old, target, online in zip(before, method.target.parameters(), theirs, strict=True):
        assert torch.equal(old, online)
        assert target.data_ptr() != online.data_ptr()
    trained(method, batch_of(method)._replace(progress=progress), RATES.get(name, 0.1))
    for old, target, online in zip(before, method.target.parameters(), theirs, strict=True):
        expected = (1 - share) * old + share * online.detach()
        torch.testing.assert_close(target, expected, rtol=1e-5, atol=1e-7)
    moved = zip(before, theirs, strict=True)
    assert max(float((online.detach() - old).abs().max()) for old, online in moved) > 1e-3


@pytest.mark.parametrize("name", ["byol", "moco-v3"])
def test_the_only_way_of_a_gradient_is_through_the_predictor(name, made, batch_of):
    method = made(name)
    batch = batch_of(method)
    assert first_loss(method, batch)[1].requires_grad
    method.predictor.forward = lambda z: z.detach()
    assert not first_loss(method, batch)[1].requires_grad


def numbers_of_norms(module):
    return {name: b.clone() for name, b in module.named_buffers() if "running" in name}


@pytest.mark.parametrize("name", NORMED)
def test_a_target_gathers_statistics_of_its_own_and_keeps_them(name, made, batch_of):
    method = made(name)
    batch = batch_of(method)
    theirs = numbers_of_norms(method.target)
    step, _ = first_loss(method, batch)
    own = numbers_of_norms(method.target)
    assert own
    assert all(not torch.equal(own[key], theirs[key]) for key in own)
    for key, buffer in method.online.named_buffers():
        if key in own:
            buffer.fill_(7.0)
    with pytest.raises(StopIteration):
        step.send(True)
    assert all(torch.equal(b, own[key]) for key, b in numbers_of_norms(method.target).items())
