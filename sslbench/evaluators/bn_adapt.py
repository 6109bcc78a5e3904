"""Batch norm statistics re-estimated on corrupted images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslbench.api import Count, Evaluator, Judged, Judgement, NonNegative, Subject
from sslbench.errors import UserError
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

MODES = ("adapted", "mixed", "source")


class BNAdapt(Evaluator):
    """Batch norm's statistics re-estimated on corrupted images.

    Measured: accuracy on corrupted test images in three ways, over the 15 corruptions of the
    benchmark and over all 19. A copy of the encoder under the frozen head of `linear`, which is
    fitted on clean train; no weight moves and no label of test is seen. `source` adapts nothing.
    `adapted` normalises each batch by its own mean and (biased) variance in every batch norm.
    `mixed` takes n/(n + prior) of the batch's, n images, and prior/(n + prior) of those of
    training. Test images come in one fixed shuffled order, the same for every encoder and seed;
    batches hold `batch` images or, so that no small one is left over, more, up to twice as many.
    Chosen: nothing here; the head's l2 by `linear`, on clean held-out train.
    Source: Nado et al., arXiv 2006.10963 (adapted); Schneider et al., arXiv 2006.16971 (mixed).
    Departures: Schneider et al. sweep the prior and the batch; one pair is fixed here.
    Traps: an answer depends on the images beside it. A stream sorted by class, or a small batch,
    has statistics of its own and can score below source. Encoders without batch norm have nothing
    to adapt.

    set: "official" as published, "regen" rendered here, or the name of a folder in the official
    layout. images: a fixed class-balanced subset of that many test images. severities: one, or a
    range. batch: images whose statistics are taken. prior: of mixed, in images; 0 is adapted.
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
        batch: Count = 200,
        prior: NonNegative = 16.0,
    ) -> None:
        if batch < 2:
            raise UserError(f"bn-adapt was given batch={batch}; statistics take at least 2 images")
        self.set, self.images = set_of("bn-adapt", set), images
        self.severities = severities_of("bn-adapt", severities)
        self.batch, self.prior = batch, prior

    def extra(self) -> Mapping[str, Any]:
        return rendering(self.set)

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        head = subject.probe("linear")
        encoder = Blended(subject.copy())
        over = trial(data, self.set, self.images, self.severities)
        right = {mode: over.blank() for mode in MODES}
        for cell in over.cells(self.batch):
            for part, images in cell.parts:
                x = images.to(subject.device).float() / 255
                answers = {
                    "adapted": encoder.features(x, 0.0),
                    "mixed": encoder.features(x, self.prior),
                    "source": torch.cat(list(subject.stream(images))),
                }
                for mode, features in answers.items():
                    named = head(finite(features, cell.what)).argmax(1).cpu()
                    right[mode][cell.at][part] = named == over.labels[part]
        return Judgement(accuracies(right), sources=over.sources)


class Blended:
    """A copied encoder whose batch norm mixes a batch's statistics with those of training."""

    def __init__(self, encoder: nn.Module) -> None:
        self.encoder, self.prior = encoder.eval(), 0.0
        for norm in batch_norms(encoder):
            if norm.running_mean is not None and norm.running_var is not None:
                self._hook(norm, norm.running_mean, norm.running_var)

    @torch.no_grad()
    def features(self, x: Tensor, prior: float) -> Tensor:
        self.prior = prior
        found: Tensor = self.encoder(x).float()
        return found

    def _hook(self, norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
        """Before each forward the running statistics, which eval mode uses, become the mixture."""

        def mix(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0]  # [B, C, ...]
            over = [d for d in range(x.dim()) if d != 1]
            new = x.mean(over, keepdim=True)
            spread = (x - new).square().mean(over)  # var_mean takes five times as long on a CPU
            share = self.prior / (self.prior + len(x))
            norm.running_mean = torch.lerp(new.flatten(), mean, share)
            norm.running_var = torch.lerp(spread, variance, share)

        norm.register_forward_pre_hook(mix)
