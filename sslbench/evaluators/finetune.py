"""All weights of a copy trained on 1 %, 10 % and all of the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbench.api import Evaluator, Judged, Judgement, Metric, Predictions, Subject
from sslbench.arrays import balanced
from sslbench.errors import Unsuited
from sslbench.measures import power
from sslbench.scores import accuracies, budget_of, class_warnings, labelled, turns, unchosen
from sslbench.views import shift_crop, to_float

SHARES = {10: 10, 1: 20, 100: 5}  # per cent of the labels -> epochs; the first one ranks
EPOCHS = 20  # on a budget
LEAST = 75  # steps of a fit
TRIAL = 5  # for all labels and for a budget rates are compared after fits this many times shorter
BATCH = 128
RATES = (3e-4, 1e-3, 3e-3)  # of the encoder
DEFAULT = 1e-3  # where no held-out image can choose
HEAD = 10  # the head's learning rate, in the encoder's
PADDING = 8  # the part of a side by which images are padded
_SCORED = 512  # images at a time
ANSWERS = {
    "top1": "accuracy",
    "top5": "truth among the five best classes, above five classes",
}

Merit = tuple[int, float]  # on what is held out: how many are right, minus the cross entropy


class FineTune(Evaluator):
    """All weights of the encoder trained on 1 %, 10 % and all of the labels.

    Measured: accuracy on test of a copy of the encoder with a linear head, trained on 1 %, 10 % and
    100 % of the labelled images of train (top1_1, top1_10, top1_100; 10 % ranks). Adam without
    weight decay, learning rate by cosine to zero and ten times as high for the head, which starts
    from zero on features centred and divided by one number, their deviation before training;
    batches of 128, or of all there are; 20, 10 and 5 epochs, never fewer than 75 steps; images
    padded by an eighth of their side with black and cropped back, not flipped (digits and letters
    may not be); batch norm in training mode. The last weights count. With `labels` one copy is trained
    in the same way on the images of that budget alone, 20 epochs, never fewer than 75 steps (top1).
    Chosen: for each share the learning rate, .0003, .001 or .003, by accuracy on the held-out tenth
    of train (ties: the lower cross entropy there). The 1 % and 10 % are drawn from the other nine
    tenths, as many of each class as of any other, the same for every encoder and seed, the smaller
    within the larger, and what the held-out tenth likes best is what test sees. For 100 % the rates
    are compared after one epoch (never fewer than 75 steps) on the nine tenths, and the best is
    trained anew on all. Test is read once. With `labels` the rate is chosen within the budget, where
    the held-out tenth has no part: the budget's images are parted into five, or as many as its smallest
    class has labels, each class evenly; of each part the rates are compared after four epochs (never
    fewer than 75 steps) on the others, what is right of all parts counts (ties: the lower cross
    entropy), and the best is trained anew on all. Where a class has one label the rate is .001.
    Source: Chen et al., arXiv 2002.05709 (shares); Caron et al., arXiv 2006.09882 (faster head).
    Traps: the held-out tenth has more labels than the 1 % it chooses for, as the papers' have;
    their subsets, epochs and rates are each method's own. With all labels in few epochs this says
    how soon an encoder learns, not where it ends. A share with fewer images than classes is left
    out; where that is the 10 %, which ranks, nothing is judged. The 75 steps of a small budget are
    enough for features that a head can read, and not for an encoder that knows nothing: beside it
    belongs a method that is trained on the same labels for long.

    labels: trained on these alone, the images that a method with the same budget is shown in a cell of
    the same seed: 40, 4/class, 10% or all; as it comes, the three shares.
    """

    metrics = (
        *(
            Metric(f"{name}_{share}", summary=f"{what}, {share} % of the labels")
            for name, what in ANSWERS.items()
            for share in SHARES
        ),
        *(Metric(name, summary=f"{what}, with `labels`") for name, what in ANSWERS.items()),
    )
    version = 1
    added: ClassVar[Mapping[str, Any]] = {"labels": ""}

    def __init__(self, *, labels: int | str = "") -> None:
        self.labels = budget_of("finetune", labels)
        if labels != "":
            # of this protocol alone
            self.metrics = self.metrics[-len(ANSWERS) :]  # type: ignore[misc]

    def budget(self) -> int | str:
        return self.labels

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        if self.labels != "":
            return self._within(subject, data, seed)
        task = _task(subject, data, seed)
        warnings = class_warnings(task.labels, data.classes)
        if task.held_out is None:
            warnings += (f"no held-out tenth to choose on: learning rate {DEFAULT} was taken",)
        tuned, chosen = {}, {}
        for share in SHARES:
            if sentence := task.refused(share):
                warnings += (sentence,)
                continue
            chosen[f"lr_{share}"], tuned[share] = task.tuned(share)
        metrics, said = {}, None
        for share, model in tuned.items():
            scores, truth = _answers(model, subject, data)
            for name, value in accuracies(scores, truth).items():
                metrics[f"{name}_{share}"] = value
            said = said or Predictions(scores.argmax(1), truth)
        return Judgement(metrics, chosen, warnings, predictions=said)

    def _within(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        task = _task(subject, data, seed, self.labels)
        warnings = class_warnings(task.labels, data.classes)
        if not task.folds:
            warnings += (unchosen("the learning rate", f"{DEFAULT}", self.labels),)
        rate, model = task.tuned_within()
        scores, truth = _answers(model, subject, data)
        said = Predictions(scores.argmax(1), truth)
        return Judgement(accuracies(scores, truth), {"lr": rate}, warnings, predictions=said)


class _Size(NamedTuple):
    """Of the features before training, which the head is shown as if they had mean 0 and spread 1."""

    power: float  # by which features are multiplied first
    centre: Tensor  # [D]
    spread: float


class _Tuned(nn.Module):
    """A copy of the encoder with a head."""

    def __init__(self, encoder: nn.Module, size: _Size, classes: int) -> None:
        super().__init__()
        self.encoder, self.spread, self.power = encoder, size.spread, size.power
        self.centre = nn.Buffer(size.centre)  # [D]
        self.head = nn.Linear(len(size.centre), classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x)  # [B, D]
        logits: Tensor = self.head((features * self.power - self.centre) / self.spread)
        return logits


@dataclass(frozen=True)
class _Task:
    subject: Subject
    images: Tensor  # uint8 [N, 3, H, W], all of train
    labels: Tensor  # [L], of those that have one
    places: Tensor  # [L], where these stand among the images
    learned: Tensor  # positions in `labels` that are not held out
    held_out: Tensor | None  # positions in `labels`
    size: _Size
    classes: int
    seed: int
    name: str  # of the dataset
    folds: tuple[Tensor, ...] = ()  # bool [L] each, of a budget

    def _count(self, share: int) -> int:
        return round(len(self.labels) * share / 100)

    def refused(self, share: int) -> str:
        """Why a share is left out, or nothing. Unsuited where it is the one that ranks."""
        shown = len(set(self.labels[self.learned].tolist()))
        if self._count(share) >= shown:
            return ""
        sentence = (
            f"{share} % of the {len(self.labels)} labelled images of {self.name} are "
            f"{self._count(share)}, too few to show each of {shown} classes"
        )
        if share == next(iter(SHARES)):
            raise Unsuited(f"{sentence}; use a larger part of it")
        return f"{sentence}: this share was left out"

    def drawn(self, share: int) -> Tensor:
        """Positions of the images, none of them held out, that a learning rate is tried on."""
        if share == 100:
            return self.learned
        labels = self.labels[self.learned].numpy()
        return self.learned[torch.from_numpy(balanced(labels, self._count(share), "finetune"))]

    def tuned(self, share: int) -> tuple[float, _Tuned]:
        """The learning rate that the held-out tenth prefers, and what it leads to."""
        rows, whole = self.drawn(share), share == 100
        best: tuple[Merit, float, _Tuned] | None = None
        for rate in RATES if self.held_out is not None else ():
            model = self._fit(rows, rate, SHARES[share] / (TRIAL if whole else 1))
            merit = self._merit(model, self.held_out)
            if merit and (best is None or merit > best[0]):
                best = merit, rate, model
        if best is None and self.held_out is not None:
            raise ValueError(
                f"the encoder was to be trained on {share} % of the labels, its logits are NaN or "
                f"infinite at every learning rate from {RATES[0]} to {RATES[-1]}; look at its scale"
            )
        rate = best[1] if best else DEFAULT
        if best and not whole:
            return rate, best[2]
        rows = torch.arange(len(self.labels)) if whole else rows
        return rate, self._fit(rows, rate, SHARES[share])

    def tuned_within(self) -> tuple[float, _Tuned]:
        """The learning rate that is best over the folds, and what it leads to on the whole budget."""
        everything = torch.arange(len(self.labels))
        best: tuple[Merit, float] | None = None
        for rate in RATES if self.folds else ():
            merits = [self._trial(mask, rate) for mask in self.folds]
            sound = [merit for merit in merits if merit]
            if len(sound) < len(merits):
                continue
            merit = sum(right for right, _ in sound), sum(loss for _, loss in sound) / len(sound)
            if best is None or merit > best[0]:
                best = merit, rate
        if best is None and self.folds:
            raise ValueError(
                "the encoder was to be trained on a budget of labels, its logits are NaN or infinite at "
                f"every learning rate from {RATES[0]} to {RATES[-1]}; look at its scale"
            )
        rate = best[1] if best else DEFAULT
        return rate, self._fit(everything, rate, EPOCHS)

    def _trial(self, mask: Tensor, rate: float) -> Merit | None:
        """On one fold, after a fit on the others."""
        rest, judged = (~mask).nonzero()[:, 0], mask.nonzero()[:, 0]
        return self._merit(self._fit(rest, rate, EPOCHS / TRIAL), judged)

    def _fit(self, rows: Tensor, rate: float, epochs: float) -> _Tuned:
        """Trained on `rows`, positions in `labels`: the same batches and crops at every rate."""
        generator = torch.Generator().manual_seed(self.seed)
        device, side = self.subject.device, self.images.shape[-1]
        model = _Tuned(self.subject.copy(), self.size, self.classes)
        model.to(device).train()
        groups = [(model.encoder, rate), (model.head, HEAD * rate)]
        optimizer = torch.optim.Adam([{"params": p.parameters(), "lr": lr} for p, lr in groups])
        batch, pad = min(BATCH, len(rows)), side // PADDING
        steps = max(LEAST, round(epochs * len(rows) / batch))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        order = rows[:0]
        for _ in range(steps):
            if len(order) < batch:  # what is left over would be a smaller batch
                order = rows[torch.randperm(len(rows), generator=generator)]
            now, order = order[:batch], order[batch:]
            corners = torch.randint(2 * pad + 1, (2, batch), generator=generator)
            x = shift_crop(self.images[self.places[now]].to(device), corners, pad)
            loss = F.cross_entropy(model(x), self.labels[now].to(device))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
        return model.eval()

    def _merit(self, model: _Tuned, held_out: Tensor | None) -> Merit | None:
        """On what is held out; None where it has diverged."""
        assert held_out is not None
        truth = self.labels[held_out]
        logits = _logits(model, self.images, self.places[held_out])
        if not logits.isfinite().all():
            return None
        return int((logits.argmax(1) == truth).sum()), -float(F.cross_entropy(logits, truth))


def _task(subject: Subject, data: Judged, seed: int, budget: int | str = "") -> _Task:
    if not list(subject.copy().parameters()):
        raise Unsuited("all weights of the encoder were to be trained, and it has none")
    train = labelled(subject, data, "train", budget)
    held = train.held_out
    some = bool(turns(train.labels, held, ""))
    known = (data.labels("train") >= 0).nonzero()[:, 0] if budget == "" else data.shown(budget)
    learned = (~held).nonzero()[:, 0] if some else torch.arange(len(held))
    features = train.features[learned]
    ordinary = float(power(features, (0, 1)))
    features = features * ordinary
    centre = features.mean(0)
    spread = float((features - centre).square().mean().sqrt())
    return _Task(
        subject=subject,
        images=data.images("train"),
        labels=train.labels,
        places=known,
        learned=learned,
        held_out=held.nonzero()[:, 0] if some else None,
        size=_Size(ordinary, centre, spread or 1.0),
        classes=data.classes,
        seed=seed,
        name=data.name,
        folds=() if budget == "" else turns(train.labels, held, budget),
    )


def _answers(model: _Tuned, subject: Subject, data: Judged) -> tuple[Tensor, Tensor]:
    """Logits [M, C] and labels [M] of the labelled images of test."""
    test = labelled(subject, data, "test")
    rows = (data.labels("test") >= 0).nonzero()[:, 0]
    return _logits(model, data.images("test"), rows), test.labels


@torch.no_grad()
def _logits(model: _Tuned, images: Tensor, rows: Tensor) -> Tensor:
    """[M, C] of those images, on the host."""
    device = model.centre.device
    return torch.cat(
        [
            model(to_float(images[part].to(device))).float().cpu()
            for part in torch.split(rows, _SCORED)
        ]
    )
