"""Methods that are sound to import, and not to train."""

import sys

import torch
from torch import nn

from sslbench import Method, Recipe, hookimpl
from sslbench.views import crop_flip

SSLBENCH_API = (1, 0)


class Quits(Method):
    """Ends the program in a step. arXiv 0000.00000. Departures: all."""

    recipe = Recipe(epochs=1, batch=32, lr=0.05)

    def __init__(self, backbone, data):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.dim, 3)
        self.view = crop_flip(data.size)

    def views(self):
        return self.view

    def step(self, batch):
        sys.exit("enough")
        yield self.backbone(batch.views).mean()


class Reseeds(Quits):
    """Makes its own steps alike. arXiv 0000.00000. Departures: all."""

    def step(self, batch):
        torch.manual_seed(0)
        yield self.head(self.backbone(batch.views)).square().mean()


class Patches(Quits):
    """Replaces a function of torch's in a step. arXiv 0000.00000. Departures: all."""

    def step(self, batch):
        torch.rand = torch.zeros
        yield self.head(self.backbone(batch.views)).square().mean()


@hookimpl
def methods():
    return {"quits": Quits, "reseeds": Reseeds, "patches": Patches}
