"""Backbones that remember, write, and take pixels as they come."""

import torch
from torch import nn

from sslbench import hookimpl
from sslbench.api import Backbone

SSLBENCH_API = (1, 0)


class Small(Backbone):
    """Sound: two convolutions and a mean."""

    def __init__(self, name, front=None, channels=3):
        super().__init__()
        self.name, self.dim, self.front, self.channels = name, 8, front, channels
        self.net = nn.Sequential(nn.Conv2d(channels, 8, 3, stride=2), nn.ReLU())

    def forward(self, x):
        return self.maps(x)[-1].mean((2, 3))

    def maps(self, x):
        return [self.net(self.front(x) if self.front else self.normalised(x))]

    def normalised(self, x):
        return (x - 0.5) / 0.25

    def anew(self):
        return type(self)(self.name, self.front, self.channels).train(self.training)

    def with_input(self, front, channels):
        return type(self)(self.name, front, channels).train(self.training)

    def pretrained(self, tag):
        raise NotImplementedError


class Remembers(Small):
    """Subtracts the mean of all it ever saw."""

    seen = 0.0

    def normalised(self, x):
        self.seen = 0.9 * self.seen + 0.1 * float(x.mean())
        return (x - self.seen) / 0.25


class Mixes(Small):
    """Subtracts the mean of the batch."""

    def normalised(self, x):
        return (x - x.mean()) / 0.25


class Writes(Small):
    """Normalises the images that it is given, in place."""

    def normalised(self, x):
        return x.sub_(0.5).div_(0.25)


class Raw(Small):
    """Does not normalise."""

    def normalised(self, x):
        return x


class Seeds(Small):
    """Is born alike whatever the seed."""

    def __init__(self, name, front=None, channels=3):
        torch.manual_seed(0)
        super().__init__(name, front, channels)


class Narrow(Small):
    """Says another width than it has."""

    def __init__(self, name, front=None, channels=3):
        super().__init__(name, front, channels)
        self.dim = 16


class Shares(Small):
    """Hands out itself as another one."""

    def anew(self):
        other = super().anew()
        other.net = self.net
        return other


KINDS = [Small, Remembers, Mixes, Writes, Raw, Seeds, Narrow, Shares]


def made(name, *, size):
    return {f"zoo-{kind.__name__.lower()}": kind for kind in KINDS}[name](name)


@hookimpl
def backbones():
    return {f"zoo-{kind.__name__.lower()}": made for kind in KINDS} | {"zoo-of-*": made}
