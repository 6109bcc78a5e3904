"""Methods that find labels which they may not see."""

import sys

import torch.nn.functional as F
from torch import nn

from sslbench import Method, Place, Recipe, hookimpl
from sslbench.views import crop_flip

SSLBENCH_API = (1, 0)


class OpensData(Method):
    """Opens the dataset that it is trained on. arXiv 0000.00000. Departures: all."""

    recipe = Recipe(epochs=1, batch=32, lr=0.05)

    def __init__(self, backbone, data):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.dim, data.classes)
        self.view, self.name = crop_flip(data.size), data.name

    def views(self):
        return self.view

    def labels_of(self, batch):
        from sslbench.data import open_data
        from sslbench.plugins import registry

        return open_data(self.name, registry(installed=False), Place()).train.labels[batch.index]

    def step(self, batch):
        yield F.cross_entropy(self.head(self.backbone(batch.views)), self.labels_of(batch))


class ClimbsTheStack(OpensData):
    """Looks through the frames of who calls it. arXiv 0000.00000. Departures: all."""

    split = "train"

    def labels_of(self, batch):
        return self.found().labels[batch.index]

    def found(self):
        frame = sys._getframe()
        while frame is not None:
            for value in frame.f_locals.values():
                for holder in (value, getattr(value, "data", None)):
                    split = getattr(holder, self.split, None)
                    if hasattr(split, "labels"):
                        return split
            frame = frame.f_back
        raise LookupError("nobody who calls holds the data")


class TakesTest(ClimbsTheStack):
    """Finds the images of test there, too. arXiv 0000.00000. Departures: all."""

    split = "test"

    def step(self, batch):
        shift = self.found().images.float().mean() / 255
        yield self.head(self.backbone(batch.views)).square().mean() + shift


@hookimpl
def methods():
    return {"opens-data": OpensData, "climbs-the-stack": ClimbsTheStack, "takes-test": TakesTest}
