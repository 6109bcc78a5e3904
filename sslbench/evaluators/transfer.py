"""The linear probe on other datasets."""

from __future__ import annotations

import math
import re

from sslbench.api import Evaluator, Judged, Judgement, Metric, Subject, Value
from sslbench.errors import UserError
from sslbench.scores import class_warnings, labelled, proportion


class Transfer(Evaluator):
    """A linear probe on other datasets.

    Measured: for each dataset in `to`, accuracy on its test split of a head fitted on its train
    split, over the frozen encoder; `mean` is the plain mean over them. The head is the probe
    whose protocol stands in this one's id, and images have the size of their own dataset.
    Chosen: what that probe chooses, for each dataset on the held-out tenth of that dataset's train.
    Source: Kornblith et al., arXiv 1805.08974.
    Traps: published transfer enlarges every image to 224 pixels and reports mean class accuracy for
    some datasets; here all is plain accuracy. A mean over other datasets is another column. Where
    `to` names the dataset that the encoder was trained on, nothing is transferred.

    to: names of datasets, joined by "+"; quoted where they hold brackets.
    """

    metrics = (Metric("mean", summary="mean accuracy over the datasets"),)
    version = 1
    uses = ("linear",)

    def __init__(self, *, to: str = "") -> None:
        # a plus within a bracket is part of a name
        self.to = tuple(name.strip() for name in re.split(r"\+(?![^\[\]]*\])", to))
        if not all(self.to):
            raise UserError(
                f"transfer was given to={to!r}; name the datasets to judge on, by --transfer-to "
                'NAME,... or transfer[to=NAME] or transfer[to="NAME[size=64]+NAME"]'
            )
        if placed := next((name for name in self.to if ":" in name.partition("[")[0]), None):
            raise UserError(
                f"transfer was given {placed}: a path says where, not what, and would stand in the "
                "protocol's id; let a plugin give that dataset a name"
            )
        if twice := next((name for name in self.to if self.to.count(name) > 1), None):
            raise UserError(f"transfer was given {twice} twice; name each dataset once")

    def datasets(self) -> tuple[str, ...]:
        return self.to

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        places = [subject.elsewhere(name) for name in self.to]
        heads = [there.probe(self.uses[0]) for there, _ in places]
        warnings: tuple[str, ...] = ()
        for _, other in places:
            shown = other.labels("train")
            found = class_warnings(shown[shown >= 0], other.classes)
            warnings += tuple(f"{other.name}: {sentence}" for sentence in found)
        scores = {}
        for (there, other), head in zip(places, heads, strict=True):
            test = labelled(there, other, "test")
            scores[other.name] = proportion(head(test.features).argmax(1).cpu() == test.labels)
        metrics = {"mean": _mean(list(scores.values())), **scores}
        sources = {other.name: other.fingerprint for _, other in places}
        return Judgement(metrics, {}, warnings, sources)


def _mean(scores: list[Value]) -> Value:
    """Of accuracies on independent images."""
    variance = sum((score.stderr or 0) ** 2 for score in scores)
    return Value(
        sum(score.value for score in scores) / len(scores),
        sum(score.n or 0 for score in scores),
        math.sqrt(variance) / len(scores),
    )
