"""DeepCluster: k-means names the images, the network learns the names."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..api import Count, Method, Recipe, Share, Update
from ..cluster import kmeans, pca_whiten
from ..views import Sobel, crop_flip


class DeepCluster(Method):
    """Learns to classify what k-means on its own features found, again each epoch.

    Caron et al., Deep Clustering for Unsupervised Learning of Visual Features, ECCV 2018,
    arXiv 1807.05520.
    Departures: the backbone's pooled features instead of AlexNet's 4096, which are clustered before
    their last ReLU and trained with dropout; whole images are clustered (the code: the middle 224
    of 256 pixels), and a view's steps stay in floats (there: rounded to 8 bits); k-means starts
    from k-means++ (the code: from random images), and an empty cluster takes half of the widest
    (there: of one drawn by its size); Sobel is off unless asked for, and sees the image as it is,
    with black around it (the code: normalised, which makes its gradients 4.4 times as steep, with
    the mean colour around it); images are drawn by lot, with replacement, uniformly over clusters
    as the paper says (the released code draws as many of each cluster, but by numbers that name
    other images, so that its batches are not uniform); a last batch that is not whole is left out
    (the code: trained on).
    """

    version = 3
    recipe = Recipe(
        epochs=200,  # code
        batch=256,  # paper
        optimizer="sgd",  # paper
        lr=0.05,  # paper
        momentum=0.9,  # paper
        weight_decay=1e-5,  # paper
        decay="all",  # code
        schedule="constant",  # paper
        per={"head.*": {"momentum": 0.0}},  # the head has a new optimiser each epoch; code
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        clusters: Count = 10000,  # paper
        whiten: Count = 256,  # dimensions that PCA keeps, no more than there are; paper
        iterations: Count = 20,  # of k-means; code
        crop: Share = 0.08,  # smallest area; code
        sobel: bool = False,  # hides colours; ours, so that the network sees what others see
    ):
        super().__init__()
        if clusters > data.length:
            raise ValueError(
                f"{clusters} clusters of the {data.length} images of {data.name}; "
                f"set clusters to at most that"
            )
        self.backbone = backbone.with_input(Sobel(), 2) if sobel else backbone
        self.head = nn.Linear(self.backbone.dim, clusters)
        self.register_buffer("cluster", torch.zeros(data.length, dtype=torch.long))  # [N]
        self.register_buffer("nmi", torch.zeros(()))  # with the epoch before
        self.whiten = min(whiten, self.backbone.dim, data.length)
        self.iterations = iterations
        self.view = crop_flip(data.size, scale=(crop, 1.0))

    def views(self):
        return self.view

    def fit(self, run):
        for epoch in run.epochs(self):
            features = F.normalize(pca_whiten(run.features(self.backbone), self.whiten), dim=1)
            seed = int(torch.randint(2**31, ()))
            found = kmeans(
                features, self.head.out_features, iterations=self.iterations, seed=seed
            ).assignment  # [N]
            self.nmi.fill_(nmi(self.cluster.cpu(), found) if epoch.number else 0.0)
            self.cluster.copy_(found)
            size = torch.bincount(self.cluster, minlength=self.head.out_features)
            epoch.weights = 1 / size[self.cluster]  # uniform over clusters
            run.reset(self.head)  # cluster 7 was another cluster yesterday
            nn.init.normal_(self.head.weight, std=0.01)
            nn.init.zeros_(self.head.bias)

    def step(self, batch):
        logits = self.head(self.backbone(batch.views))  # [B, K]
        loss = F.cross_entropy(logits.float(), self.cluster[batch.index])
        yield Update(loss, log={"nmi": self.nmi})

    def clusters(self, x):
        return self.head(self.backbone(x))

    def uniform(self):
        return math.log(self.head.out_features)


def nmi(a, b):
    """Mutual information of two assignments [N], over the geometric mean of their entropies."""
    joint = torch.zeros(int(a.max()) + 1, int(b.max()) + 1, dtype=torch.double)
    joint.index_put_((a, b), torch.ones(len(a), dtype=torch.double), accumulate=True)
    joint /= len(a)
    rows, columns = joint.sum(1), joint.sum(0)
    shared = joint[joint > 0].log().mul(joint[joint > 0]).sum()
    entropies = [-(p[p > 0] * p[p > 0].log()).sum() for p in (rows, columns)]
    information = shared + entropies[0] + entropies[1]
    return float(information / (entropies[0] * entropies[1]).sqrt().clamp_min(1e-12))


DeepClusterImageNet = partial(
    DeepCluster,
    epochs=500,  # paper
    sobel=True,  # paper
)
"""DeepCluster as in its paper on ImageNet: 500 epochs, the network sees gradients, not colours."""
