"""Few labels: n-way k-shot episodes on frozen features."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from sslbench.api import Count, Evaluator, Judged, Judgement, Metric, Subject, Value
from sslbench.errors import Unsuited
from sslbench.measures import unit
from sslbench.scores import labelled

EPISODES_SEED = 0  # of the draws: every encoder answers the same questions
_BLOCK = 1 << 23  # numbers gathered at a time


class FewShot(Evaluator):
    """Nearest class mean of a few labelled images, over many small tasks.

    Measured: accuracy on test, mean over episodes. An episode draws `way` classes, and of each
    `query` images to name and `shot` labelled ones, all from test, none twice; classes with fewer
    than query + shot images take no part. Features of the un-augmented images, centred with the
    mean of the labelled train and L2-normalised; a query goes to the nearest mean of the labelled features
    (Euclidean). `one_shot` names the same queries with the first labelled image of each class
    alone, by which it is 1-NN. The standard error is s / sqrt(episodes); 1.96 of it is half the
    95 % interval, the ± of papers, reported as `..._interval95`.
    Chosen: nothing.
    Source: Wang et al., arXiv 1911.04623 (SimpleShot, CL2N); Vinyals et al., arXiv 1606.04080.
    Traps: papers keep the classes of episodes out of training; here pretraining saw images of
    every class and no label of any, so all classes serve, and numbers cannot be compared with those
    of miniImageNet.
    The interval is that of the mean over draws from this one test set: it knows nothing of other
    test images or of seeds of training. Episodes are drawn from a constant, not from the cell's
    seed: encoders of the same data meet the same episodes.

    way: classes of an episode. shot: labelled images of each class. query: images to name of each
    class. episodes: drawn.
    """

    metrics = (
        Metric("k_shot", summary="mean accuracy with `shot` labelled images a class"),
        Metric("one_shot", summary="mean accuracy with one labelled image a class"),
        Metric(
            "k_shot_interval95", higher_is_better=False, summary="half the 95 % interval of k_shot"
        ),
        Metric(
            "one_shot_interval95",
            higher_is_better=False,
            summary="half the 95 % interval of one_shot",
        ),
    )
    version = 1

    def __init__(
        self,
        *,
        way: Annotated[int, Ge(2)] = 5,
        shot: Count = 5,
        query: Count = 15,
        episodes: Annotated[int, Ge(2)] = 600,
    ) -> None:
        self.way, self.shot, self.query, self.episodes = way, shot, query, episodes

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        # in float64 throughout: the mean of equal features is that feature, and ties stay ties
        centre = labelled(subject, data, "train").features.mean(0, dtype=torch.float64)  # [D]
        test = labelled(subject, data, "test")
        classes, warnings = self._classes(test.labels, data)
        device = "cpu" if subject.device.type == "mps" else subject.device  # Metal has no float64
        shares = []
        for drawn in self._episodes(test.labels, classes, len(centre)):
            points = test.features[drawn].to(device).double() - centre.to(device)
            points = unit(points, dim=3)  # [E, way, query + shot, D]
            shares.append(_right(points, (self.shot, 1), self.query).cpu())
        right = torch.cat(shares)  # [episodes, 2]
        metrics = {}
        for name, accuracy in zip(("k_shot", "one_shot"), right.unbind(1), strict=True):
            stderr = float(accuracy.std()) / math.sqrt(self.episodes)
            metrics[name] = Value(float(accuracy.mean()), self.episodes, stderr)
            metrics[f"{name}_interval95"] = Value(1.96 * stderr, self.episodes)
        return Judgement(metrics, {}, warnings)

    def _classes(self, labels: Tensor, data: Judged) -> tuple[Tensor, tuple[str, ...]]:
        """int64 [C] of those that have images enough, and what a reader must know of the rest."""
        need = self.shot + self.query
        classes = (torch.bincount(labels) >= need).nonzero()[:, 0]
        if len(classes) < self.way:
            raise Unsuited(
                f"episodes of {self.way} classes with {self.shot} labelled and {self.query} other "
                f"images each were asked for, {len(classes)} of {data.classes} classes of "
                f"{data.name} have {need} labelled test images; ask for a smaller way, shot or "
                "query, or use a dataset with more"
            )
        few = data.classes - len(classes)
        if not few:
            return classes, ()
        return classes, (
            f"{few} of {data.classes} classes have fewer than {need} test images: no episode "
            "shows them",
        )

    def _episodes(self, labels: Tensor, classes: Tensor, dim: int) -> Iterator[Tensor]:
        """int64 [E, way, query + shot] positions, a few episodes at a time, queries first."""
        generator = torch.Generator().manual_seed(EPISODES_SEED)
        take = self.query + self.shot
        draw = torch.rand(self.episodes, len(classes), generator=generator, dtype=torch.float64)
        chosen = draw.topk(self.way, dim=1).indices  # [episodes, way]
        drawn = chosen.new_empty(self.episodes, self.way, take)
        for place, name in enumerate(classes.tolist()):
            images = (labels == name).nonzero()[:, 0]  # [n]
            for some in torch.split((chosen == place).nonzero(), max(1, _BLOCK // len(images))):
                draw = torch.rand(len(some), len(images), generator=generator, dtype=torch.float64)
                # the largest are in order: with another shot the queries stay what they were
                drawn[some[:, 0], some[:, 1]] = images[draw.topk(take, dim=1).indices]
        yield from torch.split(drawn, max(1, _BLOCK // (self.way * take * dim)))


def _right(points: Tensor, shots: tuple[int, ...], query: int) -> Tensor:
    """The share of queries named rightly in each episode with each number of shots, [E, shots].

    `points` [E, way, query + shot, D], queries first.
    """
    episodes, way, _, dim = points.shape
    asked = points[:, :, :query].reshape(episodes, way * query, dim)
    truth = torch.arange(way, device=points.device).repeat_interleave(query)
    found = []
    for shot in shots:
        means = points[:, :, query : query + shot].mean(2)  # [E, way, D]
        # |q|² is the same for every class
        distance = means.square().sum(2)[:, None] - 2 * asked @ means.mT  # [E, way * query, way]
        found.append((distance.argmin(2) == truth).double().mean(1))
    return torch.stack(found, 1)
