"""A plugin of two methods that use the hardest parts of the API; `--plugin tests/hard_methods.py`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sslbench.api import Method, Recipe, Stream, Update
from sslbench.hookspecs import hookimpl
from sslbench.views import Views, crop_flip

SSLBENCH_API = (1, 0)


class CoTraining(Method):
    """Two networks sort the images for each other: the sure half teaches, the rest must agree.

    After Blum & Mitchell, COLT 1998. Departures: a test's miniature on pseudo-labels.
    """

    recipe = Recipe(epochs=2, batch=32, lr=0.05)

    def __init__(self, backbone, data, *, rest_batch: int = 16):
        super().__init__()
        self.backbone, self.peer = backbone, backbone.anew()
        self.heads = nn.ModuleList(nn.Linear(backbone.dim, data.classes) for _ in range(2))
        self.register_buffer("label", torch.zeros(data.length, dtype=torch.long))
        self.register_buffer("sure", torch.zeros(data.length, dtype=torch.bool))
        self.rest_batch = rest_batch
        view = crop_flip(data.size, scale=(0.5, 1.0))
        self.plain, self.pair = view, Views(view, 2)

    def views(self):
        return {"main": self.plain, "rest": self.pair}

    def fit(self, run):
        for epoch in run.epochs(self):
            p = run.features(self.predict).softmax(1)
            self.label.copy_(p.argmax(1))
            order = p.amax(1).argsort(descending=True)
            self.sure.zero_()
            self.sure[order[: len(order) // 2]] = True
            epoch.main = False
            epoch.streams["sure"] = Stream(self.sure.nonzero().flatten())
            epoch.streams["rest"] = Stream((~self.sure).nonzero().flatten(), self.rest_batch)

    def groups(self):
        return {
            "own": [*self.backbone.parameters(), *self.heads[0].parameters()],
            "peer": [*self.peer.parameters(), *self.heads[1].parameters()],
        }

    def step(self, batch):
        assert batch.views is None
        sure, rest = batch.also["sure"], batch.also["rest"]
        for group, net, head in zip(
            ("own", "peer"), (self.backbone, self.peer), self.heads, strict=True
        ):
            with torch.no_grad():
                target = self.heads[1](self.peer(rest.views[0])).softmax(1)
            taught = F.cross_entropy(head(net(sure.views)), self.label[sure.index])
            agreed = -(target * F.log_softmax(head(net(rest.views[1])), dim=1)).sum(1).mean()
            yield Update(taught + agreed, group, {"agreed": agreed.detach()})

    def predict(self, x):
        return self.heads[0](self.backbone(x))


class Adversary(Method):
    """A critic guesses the rotation it was not told; the encoder then moves against the moved critic.

    After Ganin & Lempitsky, arXiv 1409.7495. Departures: a test's miniature.
    """

    recipe = Recipe(epochs=2, batch=32, optimizer="adamw", lr=0.001)

    def __init__(self, backbone, data):
        super().__init__()
        self.backbone = backbone
        self.critic = nn.Linear(backbone.dim, 4)
        self.register_buffer("moved", torch.zeros((), dtype=torch.long))
        self.view = crop_flip(data.size, scale=(0.5, 1.0))

    def views(self):
        return self.view

    def groups(self):
        return {"critic": self.critic.parameters(), "encoder": self.backbone.parameters()}

    def step(self, batch):
        turn = torch.randint(4, (), device=batch.views.device)
        x = batch.views.rot90(int(turn), (2, 3))
        truth = turn.expand(len(x))
        h = self.backbone(x)
        applied = yield Update(F.cross_entropy(self.critic(h.detach()), truth), "critic")
        self.moved += int(applied)
        yield Update(-F.cross_entropy(self.critic(h), truth).clamp(max=3), "encoder")


@hookimpl
def methods():
    return {"co-training": CoTraining, "adversary": Adversary}
