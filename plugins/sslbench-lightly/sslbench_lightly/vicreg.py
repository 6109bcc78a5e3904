"""VICReg with lightly's loss and projection head."""

from __future__ import annotations

from lightly.loss import VICRegLoss
from lightly.models.modules.heads import VICRegProjectionHead
from sslbench.api import Count, Method, NonNegative, Positive, Share
from sslbench.methods.vicreg import VICReg as Ours
from sslbench.nn import full_precision
from sslbench.views import asymmetric


class VICReg(Method):
    """Two views agree while features vary and do not covary: lightly's loss and head.

    Bardes et al., VICReg, ICLR 2022, arXiv 2105.04906; lightly.loss.VICRegLoss,
    VICRegProjectionHead.
    Departures: from sslbench's own `vicreg`: the head's last layer has a bias, which the loss does
    not see.
    """

    least = 2  # variances over the batch
    recipe = Ours.recipe

    def __init__(
        self,
        backbone,
        data,
        *,
        invariance: Positive = 25.0,  # weight
        variance: Positive = 25.0,  # weight
        covariance: Positive = 1.0,  # weight
        layers: Count = 3,  # of the expander
        hidden: Count = 8192,
        dim: Count = 8192,
        crop: Share = 0.08,  # smallest area
        jitter: NonNegative = 1.0,  # factor on strengths (0.4, 0.4, 0.2, 0.1)
        blur: tuple[Share, Share] = (1.0, 0.1),  # chance in each view
        solarise: tuple[Share, Share] = (0.0, 0.2),  # chance in each view
    ):
        super().__init__()
        self.backbone = backbone
        self.head = VICRegProjectionHead(backbone.dim, hidden, dim, num_layers=layers)
        self.loss = VICRegLoss(invariance, variance, covariance)
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
