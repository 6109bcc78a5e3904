"""DeepCluster-v2: centroids of the last epoch's embeddings are the prototypes of this one."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F

from ..api import Count, Method, Natural, NonNegative, Positive, Recipe, Share
from ..cluster import kmeans
from ..nn import by_size, full_precision, mlp, normalised
from ..views import MultiCrop, contrastive, small_side


class DeepClusterV2(Method):
    """Every crop predicts the cluster of its image; centroids of the last epoch are the prototypes.

    Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments,
    NeurIPS 2020, arXiv 2006.09882.
    Departures: k-means starts from k-means++ (the code: from random samples), and an empty cluster
    takes half of the widest (there: rests); the first embeddings are taken in eval mode (there: in
    training); images that an epoch leaves out keep their older embedding (there: have none, and no
    loss in the next); batch norm over one device's batch (the code: over 512 of 4,096 images);
    colours are normalised as the backbone states (the code divides red by 0.228); blur has as many
    taps as a tenth of the crop's side, 9 at 96 pixels (there: 23 on every crop), and below 20
    pixels nothing is blurred; a view's steps stay in floats (there: rounded to 8 bits); the last
    norm of a ResNet's block starts at a scale of 0 (there: 1), which it leaves by one step at the
    full rate and then by LARC's, a small share of the scale each; the rate warms up from zero, at
    step s of W to (s + 1) / (W + 1) (the code: from 0.3, by s / (W - 1)); in 400 epochs the crops
    of the paper's 800, 2 and 6 of 224 and 96 pixels, large ones of 0.14 of the area or more (its
    row of 400: 2 and 4 of 160 and 96, and 0.08).
    """

    version = 2
    recipe = Recipe(
        epochs=400,  # paper
        batch=4096,  # paper
        optimizer="lars",  # apex's LARC without clipping; code
        lr=0.3,  # paper, 4.8 at 4096
        lr_scaling="linear",  # paper
        lr_end=0.001,  # paper
        weight_decay=1e-6,  # paper
        decay="all",  # code
        warmup=10,  # paper
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        clusters: Count = 3000,  # paper
        heads: Count = 3,  # clusterings; paper
        iterations: Count = 10,  # of k-means; code
        temperature: Positive = 0.1,  # paper
        dim: Count = 128,  # paper
        hidden: Count = 2048,  # of the head; paper
        crops: tuple[int, int] = (2, 6),  # large, small; paper
        crop: Share = 0.14,  # area that parts large crops from small ones; paper
        smallest: Share = 0.05,  # area; paper
        small_size: Natural = 0,  # pixels, 0: 3/7 of the image; paper, 96 of 224
        jitter: NonNegative = 1.0,  # strength; paper
        blur: Share = 0.5,  # chance; paper
    ):
        super().__init__()
        if clusters > data.length:
            raise ValueError(
                f"{clusters} clusters of the {data.length} images of {data.name}; "
                f"set clusters to at most that"
            )
        if crops[0] < 2:
            raise ValueError(f"two large crops are clustered, crops={crops} has {crops[0]}")
        small_size = small_side(data.size, small_size)
        self.backbone = backbone
        self.head = mlp(backbone.dim, hidden, dim)
        self.register_buffer("bank", torch.zeros(2, data.length, dim))  # [2, N, D]
        self.register_buffer("prototypes", torch.zeros(heads, clusters, dim))  # [H, K, D]
        self.register_buffer("cluster", torch.zeros(heads, data.length, dtype=torch.long))
        self.iterations, self.temperature = iterations, temperature
        strengths = tuple(jitter * s for s in (0.8, 0.8, 0.8, 0.2))
        look = {"jitter": strengths, "blur": blur}
        self.large = contrastive(data.size, scale=(crop, 1.0), **look)
        small = contrastive(small_size, scale=(smallest, crop), **look)
        self.view = MultiCrop(((self.large, crops[0]), (small, crops[1])))

    def views(self):
        return self.view

    def fit(self, run):
        for epoch in run.epochs(self):
            if epoch.number == 0:
                first = run.features(self.looked).unflatten(1, (2, -1))  # [N, 2, D]
                self.bank.copy_(first.transpose(0, 1))
            self.recluster()

    def looked(self, x):
        """[B, 2 * D] of two large crops of images."""
        return torch.cat([self.embed(self.large(x)) for _ in range(2)], dim=1)

    def recluster(self):
        """Each head clusters the bank of one of the two crops in turn."""
        for head, (prototypes, cluster) in enumerate(
            zip(self.prototypes, self.cluster, strict=True)
        ):
            found = kmeans(
                self.bank[head % 2],
                len(prototypes),
                iterations=self.iterations,
                spherical=True,
                seed=int(torch.randint(2**31, ())),
            )
            prototypes.copy_(found.centroids)
            cluster.copy_(found.assignment)

    def step(self, batch):
        size = len(batch.index)
        z = normalised(self.head(by_size(self.backbone, batch.views)))  # [crops * B, D]
        cluster = self.cluster[:, batch.index]  # [H, B]
        yield named(z, self.prototypes, cluster, self.temperature)

        self.bank[:, batch.index] = torch.stack(z.detach().split(size)[:2])

    def embed(self, x):
        return normalised(self.head(self.backbone(x)))  # [B, D]

    def clusters(self, x):
        return self.embed(x) @ self.prototypes[0].T

    def uniform(self):
        return math.log(self.prototypes.shape[1])


def named(z, prototypes, cluster, temperature):
    """Mean cross-entropy over heads and crops of naming each image's cluster.

    z [crops * B, D] crop by crop, prototypes [H, K, D], cluster [H, B].
    """
    with full_precision(z):
        scores = z.float() @ prototypes.float().transpose(1, 2) / temperature  # [H, crops * B, K]
        names = cluster.repeat(1, len(z) // cluster.shape[1])  # [H, crops * B]
        return F.cross_entropy(scores.flatten(0, 1), names.flatten())


DeepClusterV2ImageNet = partial(
    DeepClusterV2,
    epochs=800,  # paper
)
"""Every crop predicts the cluster of its image (the paper's longest schedule)."""
