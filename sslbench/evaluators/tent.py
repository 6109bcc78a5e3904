"""Test-time entropy minimisation on corrupted images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sslbench.api import Count, Evaluator, Head, Judged, Judgement, NonNegative, Subject
from sslbench.errors import Unsuited, UserError
from sslbench.evaluators.robustness import (
    accuracies,
    batch_norms,
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


class Adapting:
    """A copied encoder on batch statistics, whose scales and shifts learn."""

    def __init__(self, encoder: nn.Module, head: Head, lr: float) -> None:
        self.encoder, self.head, self.lr = encoder.requires_grad_(False).eval(), head, lr
        norms = batch_norms(encoder)
        for norm in norms:
            norm.running_mean = norm.running_var = None  # then eval mode takes the batch's own
        self.moving = [each for norm in norms for each in norm.parameters(recurse=False)]
        if not self.moving:
            raise Unsuited(
                "tent learns the scale and shift of batch norm, that of this encoder has neither; "
                "use a backbone whose batch norm is affine"
            )
        for parameter in self.moving:
            parameter.requires_grad_(True)
        self.start = [parameter.detach().clone() for parameter in self.moving]
        self.reset()

    def reset(self) -> None:
        """Back to the source, to the bit; the optimiser forgets."""
        with torch.no_grad():
            for parameter, start in zip(self.moving, self.start, strict=True):
                parameter.copy_(start)
        self.optimizer = torch.optim.Adam(self.moving, self.lr, betas=(0.9, 0.999))

    @torch.no_grad()
    def logits(self, x: Tensor, what: str) -> Tensor:
        return self.head(finite(self.encoder(x).float(), what))

    @torch.enable_grad()
    def step(self, x: Tensor, what: str) -> Tensor:
        """Logits [B, C] of the forward whose mean entropy then takes one step."""
        logits = self.head(finite(self.encoder(x).float(), what))
        loss = entropy(logits)
        if not loss.requires_grad:
            raise Unsuited(
                "tent follows the gradient of the encoder's features, none passes through this "
                "encoder; use one whose forward can be differentiated"
            )
        slopes = torch.autograd.grad(loss, self.moving, allow_unused=True)
        for parameter, slope in zip(self.moving, slopes, strict=True):
            parameter.grad = slope
        self.optimizer.step()
        return logits.detach()


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy in nats of softmax of [B, C]; a class that scores -inf has no part in it."""
    shown = logits[:, (logits > -torch.inf).all(0)]
    logs = shown.log_softmax(1)
    return -(logs.exp() * logs).sum(1).mean()
