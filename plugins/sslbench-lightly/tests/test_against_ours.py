"""From the same weights on the same images both sides have the same losses and gradients.

So whatever differs in a table of ours against theirs is the initialisation, rounding, and what the
tests here hold fast or scale: biases that lightly's heads have and ours do not, and BYOL's factor.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

SMALL = {"hidden": 16, "dim": 8}
MULTI = {"crops": (2, 1), "small_size": 20}
SETTINGS = {
    "simclr": {"dim": 8, "temperature": 0.3, "layers": 3},
    "moco": {**SMALL, "queue": 24, "splits": 2, "temperature": 0.3, "momentum_target": 0.5},
    "byol": {**SMALL, "momentum_target": 0.5},
    "barlow-twins": {**SMALL, "redundancy": 0.1},
    "vicreg": {**SMALL, "layers": 4, "invariance": 3.0, "variance": 5.0, "covariance": 2.0},
    "swav": {**SMALL, **MULTI, "prototypes": 5, "epsilon": 0.03, "temperature": 0.3, "freeze": 0},
    "dino": {
        **MULTI,
        "prototypes": 6,
        "hidden": 16,
        "bottleneck": 8,
        "norm": True,
        "freeze": 0,
        "temperature_start": 0.2,
        "temperature_target": 0.1,
        "temperature_warmup": 4,
        "momentum_target": 0.5,
        "momentum_centre": 0.5,
    },
}
PARTS = {  # of ours -> of theirs
    "simclr": {"head": "head"},
    "moco": {"online.1": "online.1", "target": "target"},
    "byol": {"online.1": "online.1", "predictor": "predictor", "target": "target"},
    "barlow-twins": {"head": "head"},
    "vicreg": {"head": "head"},
    "swav": {"head": "head", "prototypes": "prototypes"},
    "dino": {"online.1": "online.1", "target": "target"},
}


def layers(module):
    """Its layers with weights, in order."""
    return [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.BatchNorm1d)]


def body(method):
    return method.backbone if hasattr(method, "backbone") else method.online[0]


def weight(layer):
    return layer.weight_v if hasattr(layer, "weight_v") else layer.weight


@torch.no_grad()
def lend(ours, theirs, parts):
    """The weights of ours to theirs; a bias that ours lacks is zero and stays so.

    One that theirs lacks stands before a norm, which takes it away again.
    """
    body(theirs).load_state_dict(body(ours).state_dict())
    for own, other in parts.items():
        pairs = zip(
            layers(ours.get_submodule(own)), layers(theirs.get_submodule(other)), strict=True
        )
        for a, b in pairs:
            assert weight(a).shape == weight(b).shape
            weight(b).copy_(weight(a))
            if a.bias is not None and b.bias is not None:
                b.bias.copy_(a.bias)
            elif b.bias is not None:
                b.bias.zero_()
                if b.bias.requires_grad:
                    b.bias.register_hook(torch.zeros_like)


@pytest.fixture
def pair(made):
    def get(name, **settings):
        asked = {**SETTINGS[name], **settings}
        ours, theirs = (made(who, **asked) for who in (name, f"lightly-{name}"))
        lend(ours, theirs, PARTS[name])
        return ours, theirs

    return get


def walk(method, batches, *, rate, scale=1.0):
    """Losses and gradients of the backbone over steps of SGD; `scale` is put on both.

    With GELU for ReLU, of which rounding decides what it lets through.
    """
    for parent in list(method.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(parent, name, nn.GELU())
    losses, gradients = [], []
    for step, batch in enumerate(batches):
        torch.manual_seed(100 + step)  # of MoCo's shuffling
        method.zero_grad()
        steps = method.step(batch)
        loss = next(steps)
        assert loss.shape == ()
        (scale * loss).backward()
        losses.append(scale * loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in body(method).parameters()]))
        with torch.no_grad():
            for parameter in method.parameters():
                if parameter.grad is not None:
                    parameter -= rate * parameter.grad
        with pytest.raises(StopIteration):
            steps.send(True)
    return losses, gradients


def same(ours, theirs, batch_of, *, factor=1.0, shift=0.0):
    batches = [batch_of(ours, step, epoch=1) for step in range(3)]
    own, own_gradients = walk(ours, batches, rate=0.001)
    other, other_gradients = walk(theirs, batches, rate=0.001, scale=factor)
    assert own == pytest.approx([loss + shift for loss in other], rel=1e-4)
    assert len({round(loss, 3) for loss in own}) > 1
    for a, b, apart in zip(own_gradients, other_gradients, (1e-4, 1e-3, 1e-2), strict=True):
        assert a.norm() > 0
        assert (a - b).norm() < apart * a.norm()  # rounding grows with the steps


@pytest.mark.parametrize("name", ["simclr", "barlow-twins", "vicreg"])
def test_without_a_memory_they_are_the_same(name, pair, batch_of):
    same(*pair(name), batch_of)


def test_moco_meets_the_same_keys_step_by_step(pair, batch_of):
    ours, theirs = pair("moco")
    theirs.loss.memory_bank.bank.copy_(ours.queue)
    same(ours, theirs, batch_of)
    torch.testing.assert_close(theirs.loss.memory_bank.bank, ours.queue, rtol=1e-3, atol=1e-4)
    assert theirs.loss.memory_bank.bank_ptr.item() == ours.oldest.item() == 0


def test_byols_loss_is_4_and_4_times_theirs(pair, batch_of):
    same(*pair("byol"), batch_of, factor=4.0, shift=4.0)


@pytest.mark.parametrize("epoch_of_queue", [0, 9])
def test_swavs_codes_are_the_same_with_a_queue_and_without(epoch_of_queue, pair, batch_of):
    ours, theirs = pair("swav", queue=16, queue_from=epoch_of_queue)
    with torch.no_grad():  # as after two steps; newest first on our side, a ring on theirs
        ours.queue.copy_(nn.functional.normalize(torch.randn(2, 16, 8), dim=2))
        ours.queued.fill_(16)
        for bank, queue in zip(theirs.banks, ours.queue, strict=True):
            bank.bank.copy_(torch.cat([queue[8:], queue[:8]]))
    same(ours, theirs, batch_of)


def test_dinos_centre_temperature_and_teacher_are_the_same(pair, batch_of):
    ours, theirs = pair("dino")
    same(ours, theirs, batch_of)
    torch.testing.assert_close(theirs.loss.center[0, 0], ours.centre, rtol=1e-3, atol=1e-5)
    assert ours.centre.norm() > 0


@pytest.mark.parametrize("name", SETTINGS)
def test_what_the_harness_watches_is_the_same(name, pair):
    ours, theirs = (method.eval() for method in pair(name))
    torch.manual_seed(0)
    x = torch.rand(3, 3, 28, 28)
    with torch.no_grad():
        if name == "dino":
            ours.centre.normal_()
            theirs.loss.center.copy_(ours.centre[None, None])
        if name == "swav":
            theirs.prototypes.normalize()
        for ask in ("encoder", "embed", "clusters"):
            a, b = (
                m.encoder()(x) if ask == "encoder" else getattr(m, ask)(x) for m in (ours, theirs)
            )
            if a is None or b is None:
                assert a is b, ask
            else:
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert theirs.uniform() == ours.uniform()
    assert theirs.targets == ours.targets


@pytest.mark.parametrize("name", ["swav", "dino"])
def test_the_last_layer_rests_in_the_first_epochs(name, made, batch_of):
    method = made(f"lightly-{name}", **{**SETTINGS[name], "freeze": 2})
    layer = method.prototypes.heads[0] if name == "swav" else method.online[1].last_layer
    for epoch, moves in ((0, False), (1, False), (2, True)):
        method.zero_grad(set_to_none=True)
        next(method.step(batch_of(method, epoch=epoch))).backward()
        assert (weight(layer).grad is not None) == moves, epoch
