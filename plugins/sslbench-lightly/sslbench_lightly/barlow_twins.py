"""Barlow Twins with lightly's loss and projection head."""

from __future__ import annotations

from lightly.loss import BarlowTwinsLoss
from lightly.models.modules.heads import BarlowTwinsProjectionHead
from sslbench.api import Count, Method, NonNegative, Positive, Share
from sslbench.methods.barlow_twins import BarlowTwins as Ours
from sslbench.nn import full_precision
from sslbench.views import asymmetric


class BarlowTwins(Method):
    """A feature correlates with itself in the other view and with no other: lightly's loss and head.

    Zbontar et al., Barlow Twins, ICML 2021, arXiv 2103.03230; lightly.loss.BarlowTwinsLoss,
    BarlowTwinsProjectionHead.
    Departures: from sslbench's own `barlow-twins`: the head's last layer has a bias, which the loss
    does not see; always three layers.
    """

    least = 2  # standard deviations over the batch
    recipe = Ours.recipe

    def __init__(
        self,
        backbone,
        data,
        *,
        redundancy: Positive = 0.0051,  # weight of what is off the diagonal
        hidden: Count = 8192,
        dim: Count = 8192,
        crop: Share = 0.08,  # smallest area
        jitter: NonNegative = 1.0,  # factor on strengths (0.4, 0.4, 0.2, 0.1)
        blur: tuple[Share, Share] = (1.0, 0.1),  # chance in each view
        solarise: tuple[Share, Share] = (0.0, 0.2),  # chance in each view
    ):
        super().__init__()
        self.backbone = backbone
        self.head = BarlowTwinsProjectionHead(backbone.dim, hidden, dim)
        self.loss = BarlowTwinsLoss(redundancy)
        look = {"jitter": jitter, "blur": blur, "solarise": solarise}
        self.view = asymmetric(data.size, scale=(crop, 1.0), **look)

    def views(self):
        return self.view

    def step(self, batch):
        z1, z2 = (self.embed(view).float() for view in batch.views)  # [B, D]
        with full_precision(z1):
            loss = self.loss(z1, z2)
        yield loss

    def embed(self, x):
        return self.head(self.backbone(x))
