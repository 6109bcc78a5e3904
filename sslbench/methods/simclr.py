"""SimCLR: contrast within the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..api import Method, Recipe
from ..nn import full_precision, mlp
from ..views import Views, contrastive


class SimCLR(Method):
    """Two views of an image attract; all other views in the batch repel.

    Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020,
    arXiv 2002.05709.
    Departures: batch norm over one device's batch; weight decay 1e-4 as in the released code (the
    paper says 1e-6).
    """

    recipe = Recipe(
        epochs=100,
        batch=4096,
        optimizer="lars",
        lr=0.3,
        lr_scaling="linear",
        weight_decay=1e-4,
        warmup=10,
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        temperature: float = 0.1,
        dim: int = 128,
        crop: float = 0.08,  # smallest area
        jitter: float = 1.0,  # strength
        blur: float = 0.5,  # probability
    ):
        super().__init__()
        self.backbone = backbone
        self.head = mlp(backbone.dim, backbone.dim, dim, last_norm=True)
        self.temperature = temperature
        strengths = tuple(jitter * s for s in (0.8, 0.8, 0.8, 0.2))
        self.view = Views(contrastive(data.size, scale=(crop, 1.0), jitter=strengths, blur=blur), 2)

    def views(self):
        return self.view

    def step(self, batch):
        h = self.backbone(torch.cat(batch.views))  # [2B, D]
        yield nt_xent(self.head(h), self.temperature)


def nt_xent(z, temperature):
    """Normalised temperature-scaled cross-entropy of z [2B, D]; row i and row i + B are a pair."""
    with full_precision(z):
        z = F.normalize(z.float(), dim=1)
        similarity = z @ z.T / temperature  # [2B, 2B]
        similarity.fill_diagonal_(-torch.inf)
        partner = torch.arange(len(z), device=z.device).roll(len(z) // 2)
        return F.cross_entropy(similarity, partner)
