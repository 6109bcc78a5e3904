"""What tests of methods share: the registry, numbers, steps, and what a file declares of a loss."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F

from sslbench.api import Epoch, Pretext, Update
from sslbench.cells.parameters import anatomy
from sslbench.plugins import registry

FOLDER = Path(__file__).parent
SPRITES = FOLDER.parent / "sprites.py"  # what methods of colours and of clips are tried on
STYLES = FOLDER.parent / "styles.py"  # what methods that adapt to a domain are tried on
REGISTRY = registry(
    installed=False, files=[SPRITES, STYLES]
)  # what others installed is theirs to test
METHODS = REGISTRY.entries("methods")
TRAINED = [name for name, entry in METHODS.items() if anatomy(entry).recipe]


def full_entries():
    """Of the entries that share a class the first; the others differ by arguments."""
    first = {}
    for name, entry in METHODS.items():
        first.setdefault(anatomy(entry).target, name)
    return [*first.values()]


FULL = full_entries()


# ---- what the test file of a method declares -------------------------------------------------------


class Case(NamedTuple):
    """A loss on the numbers it is tested with; test_losses.py holds each against its loop."""

    loss: Callable[..., torch.Tensor]  # of the inputs
    inputs: Sequence[torch.Tensor]
    loop: Callable[..., Any]  # the same in loops over single numbers; gets float64
    swap: Any = False  # first two inputs exchanged: the same; or a function of the inputs
    permute: Any = True  # rows of all inputs as long as the first; or a function of the inputs
    clusters: Callable[..., Any] | None = None  # inputs with other cluster ids
    equal: bool = True  # finite where all rows are equal
    low: bool = True  # takes bf16 as float32; else it is told what to do by autocast


def files_of(name):
    """The modules test_<file of the class>.py and test_<name of the entry>.py, where they exist."""
    file = anatomy(METHODS[name]).target.__module__.rpartition(".")[2]
    found = dict.fromkeys(f"test_{each}" for each in (file, name.replace("-", "_")))
    there = [each for each in found if (FOLDER / f"{each}.py").exists()]
    return [importlib.import_module(f"{__package__}.{each}") for each in there]


def declared(name, what):
    """What the test files of an entry and of its pretexts hold under SMALL, PLAIN and the like.

    SMALL are settings that fit 96 images, PLAIN by entry those under which its loss falls plainly
    (each where the defaults of `Trial` and `learns` do not do), BACKBONES and DATASETS by entry
    what it needs.
    """
    parts, found = anatomy(METHODS[name]), {}
    for key, value in parts.defaults.items():
        if parts.hints[key] is Pretext:
            found |= declared(value, what)
    for file in files_of(name):
        found |= getattr(file, what, {})
    return found


# ---- numbers ---------------------------------------------------------------------------------------


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def units(*shape, seed=0):
    return F.normalize(noise(*shape, seed=seed), dim=-1)


def near(value, expected):
    assert float(value.detach()) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def same(one, two):
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def log_share(scores, chosen):
    """Logarithm of the softmax of one of some numbers."""
    top = max(float(s.detach()) for s in scores)
    return scores[chosen] - top - torch.stack([(s - top).exp() for s in scores]).sum().log()


def with_gradients(loss, inputs):
    """The loss, and its gradient with respect to each input; None for integers and unused ones."""
    inputs = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    value, real = loss(*inputs), [x for x in inputs if x.requires_grad]
    found = iter(torch.autograd.grad(value, real, allow_unused=True))
    return value, [next(found) if x.requires_grad else None for x in inputs]


# ---- steps -----------------------------------------------------------------------------------------


def first_loss(method, batch):
    """The running step, and the loss of its first yield."""
    step = method.step(batch)
    yielded = next(step)
    return step, yielded.loss if isinstance(yielded, Update) else yielded


def trained(method, batch, lr=0.1):
    """One step as the loop takes it; its losses."""
    losses, step = [], method.step(batch)
    optimizer = torch.optim.SGD(method.parameters(), lr)
    for yielded in step:
        loss = yielded.loss if isinstance(yielded, Update) else yielded
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


class Lent:
    """A run that trains nothing and remembers what it was asked."""

    def __init__(self, features=None, epochs=1):
        self.given, self.number, self.asked = features, epochs, []

    def epochs(self, method):
        self.asked.append(("epochs", method))
        for number in range(self.number):
            self.epoch = Epoch(number)
            yield self.epoch

    def fit(self, method, name):
        self.asked.append((f"fit {name}", method))

    def pretrain(self, name, into=None):
        self.asked.append((f"pretrain {name}", into))

    def features(self, encoder):
        self.asked.append(("features", encoder))
        return self.given

    def reset(self, module):
        self.asked.append(("reset", module))
