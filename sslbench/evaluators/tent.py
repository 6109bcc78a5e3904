"""Test-time entropy minimisation on corrupted images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sslbench.api import Count, Evaluator, Judged, Judgement, NonNegative, Subject
from sslbench.errors import UserError
from sslbench.evaluators.adapting import Adapting
from sslbench.evaluators.robustness import (
    accuracies,
    finite,
    rendering,
    set_of,
    severities_of,
    trial,
    ways,
)

MODES = ("online", "episodic", "norm", "source")


class Tent(Evaluator):
    """Tent: batch norm's scale and shift follow the entropy of predictions on corrupted images.

    Measured: accuracy on corrupted test images in four ways, over the 15 corruptions of the
    benchmark and over all 19. A copy of the encoder under the frozen head of `linear`, which is
    fitted on clean train; no label of test is seen. `source` adapts nothing. `norm` takes each
    batch's own mean and variance in place of the running ones. `online` also takes a step of Adam
    (betas .9 and .999, no weight decay) down the batch's mean entropy, on the scales and shifts of
    batch norm alone; it predicts from the forward that precedes the step, so that what a batch
    taught serves the batches after it; every corruption and severity starts from the source again.
    `episodic` starts from the source at every batch, takes the steps and predicts after them.
    Test images come in one fixed shuffled order, the same for every encoder and seed; batches hold
    `batch` images or, so that no small one is left over, more, up to twice as many; where there is
    one batch alone `online` is `norm`, and a warning says so. Dropout is off.
    Chosen: nothing here; the head's l2 by `linear`, on clean held-out train.
    Source: Wang et al., arXiv 2006.10726 (CIFAR: Adam, lr 1e-3, batches of 200, one step).
    Departures: the paper reports severity 5 of 15 corruptions, here all severities unless told
    otherwise. The authors' code predicts before the step when episodic too, which at one step is
    `norm`; here a second forward follows it. Theirs switches dropout on.
    Traps: batch statistics alone win most of what Tent does: read `online` beside `norm`, not
    `source`. A stream sorted by class, or a small batch, makes it collapse. Adam's first step moves
    every scale and shift by lr, however small its gradient.

    set: "official" as published, "regen" rendered here, or the name of a folder in the official
    layout. images: a fixed class-balanced subset of that many test images. severities: one, or a
    range. lr: of Adam; at 0 online and episodic are norm. batch: images a step. steps: on each
    batch.
    """

    metrics = ways(MODES)
    version = 1
    uses = ("linear",)

    def __init__(
        self,
        *,
        set: str = "official",
        images: Count | None = None,
        severities: int | str = "1-5",
        lr: NonNegative = 1e-3,
        batch: Count = 200,
        steps: Count = 1,
    ) -> None:
        if batch < 2:
            raise UserError(f"tent was given batch={batch}; statistics take at least 2 images")
        self.set, self.images = set_of("tent", set), images
        self.severities = severities_of("tent", severities)
        self.lr, self.batch, self.steps = lr, batch, steps

    def extra(self) -> Mapping[str, Any]:
        return rendering(self.set)

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        head = subject.probe("linear")
        online, episodic = (Adapting(subject.copy(), head, self.lr) for _ in range(2))
        over = trial(data, self.set, self.images, self.severities)
        right = {mode: over.blank() for mode in MODES}
        for cell in over.cells(self.batch):
            online.reset()
            for part, images in cell.parts:
                x = images.to(subject.device).float() / 255
                answers = self._answers(online, episodic, x, cell.what)
                source = finite(torch.cat(list(subject.stream(images))), cell.what)
                answers["source"] = head(source)
                for mode, logits in answers.items():
                    right[mode][cell.at][part] = logits.argmax(1).cpu() == over.labels[part]
        warnings: tuple[str, ...] = ()
        if len(over.rows) < 2 * self.batch:
            warnings = (f"all {len(over.rows)} images are one batch: online is norm",)
        return Judgement(accuracies(right), {}, warnings, over.sources)

    def _answers(
        self, online: Adapting, episodic: Adapting, x: Tensor, what: str
    ) -> dict[str, Tensor]:
        """Logits [B, C] of one batch by mode."""
        episodic.reset()
        before = [episodic.step(x, what) for _ in range(self.steps)]
        return {
            "norm": before[0],
            "episodic": episodic.logits(x, what),
            "online": [online.step(x, what) for _ in range(self.steps)][-1],
        }
