"""Checks of what every methods entry promises, trained or not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product, zip_longest
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from ..api import Dataset, Images, Method, Place, View
from ..cells.cell import Cell
from ..data import Data
from ..names import parse
from ..one_cell.subject import encoder_of
from ..train.feed import kept_generators, seed_all
from ..train.state import tensors_of
from .gpu import keeps_a_gpu_busy
from .promise import require
from .trial import CPU, Fit, Loss, Trial

MANY = 100_000  # images of a dataset that is large enough for every default
# With this bold recipe and with mild views most losses fall within a few steps.
BOLD = {
    "optimizer": "adamw",
    "lr": 2e-3,
    "lr_scaling": "none",
    "warmup": 0,
    "schedule": "constant",
    "weight_decay": 1e-4,
    "weight_decay_end": None,
    "per": {},
}
MILD = {"crop": 0.8, "jitter": 0, "jitter_p": 0, "blur": 0}
CITATION = re.compile(r"arXiv[: ]\s*(\d{4}\.\d{4,5}|[\w.-]+/\d{7})|\b10\.\d{4,9}/\S+")


# ---- what every entry promises -------------------------------------------------------------------


def says_what_it_is(trial: Trial) -> None:
    """It has a docstring. A method's, and those of its stages, cite a paper and list departures."""
    require(bool(trial.registry.find("methods", trial.name).summary()), "it has no docstring")
    for kind in trial.kinds if trial.parts.recipe else ():
        text, what = kind.__doc__ or "", f"the docstring of {kind.__name__} has no"
        require(bool(CITATION.search(text)), f"{what} arXiv id and no DOI")
        require("Departures:" in text, f"{what} `Departures:` (`Departures: none known` will do)")


def builds_from_backbone_and_data_alone(trial: Trial) -> None:
    """Its defaults build a module, on a dataset that is large enough for them."""
    name, target = parse(trial.backbone), trial.parts.target
    create = trial.registry.find("backbones", name.base).load()
    backbone = create(name.base, size=trial.data.size, **name.params)
    info = replace(trial.info, name="many", length=MANY)
    sentence = target.needs(backbone, info) if trial.parts.recipe else None
    require(sentence is None, f"it does not take {trial.backbone}: {sentence}")
    encoder = encoder_of(target(backbone, info, **trial.parts.defaults))
    require(isinstance(encoder, nn.Module), f"its encoder is {encoder!r}, not an nn.Module")


def encodes_each_image_alone(trial: Trial) -> None:
    """In eval mode the encoder gives [B, D], independent of the rest of the batch, and stays the same."""
    module, images = trial.module, trial.data.test.images[:5].float() / 255
    before = {k: v.clone() for k, v in tensors_of(module).items()}
    with torch.no_grad():
        together, again = (encoder_of(module)(images) for _ in range(2))
        require(together.dim() == 2 and len(together) == 5, f"5 images gave {[*together.shape]}")
        alone = torch.cat([encoder_of(module)(image[None]) for image in images])
    require(bool(together.isfinite().all()), "its features are not finite")
    require(torch.equal(together, again), "the same images gave other features")
    gap = float((alone - together).abs().max() / together.abs().max().clamp_min(1))
    require(gap <= 1e-5, f"alone an image has other features than in a batch, by {gap:.1e}")
    changed = [k for k, v in tensors_of(module).items() if not torch.equal(v, before[k])]
    require(not changed, f"encoding changed {changed[:3]}")
    encoder_of(module)(images)
    held = [name for name, p in module.named_parameters() if p.grad is not None]
    require(not held, f"encoding left a gradient on {held[:3]}")


# ---- what a trained method promises beside that --------------------------------------------------


def views_serve_any_batch(trial: Trial) -> None:
    """Views take batches of 1 and 3, draw from torch's generators, and print no address."""
    assert isinstance(trial.module, Method)
    views = trial.module.views()
    named: Mapping[str, View] = views if isinstance(views, Mapping) else {"main": views}
    for (name, view), size in product(named.items(), (1, 3)):
        what, images = f"view {name!r}", trial.data.train.images[:size].clone()
        require(" at 0x" not in repr(view), f"{what} prints an address: {view!r}")
        made = []
        for _ in range(2):
            with kept_generators(CPU):
                seed_all(0, CPU)
                made.append([*_leaves(view(images))])
        require(torch.equal(images, trial.data.train.images[:size]), f"{what} wrote on its images")
        for x, again in zip(*made, strict=True):
            places = x.dtype in (torch.int64, torch.bool)
            right = len(x) == size and (x.is_floating_point() or places)
            require(right, f"{what} made {x.dtype} {[*x.shape]} of {size} images")
            low, high = (0.0, 1.0) if places else (float(x.min()), float(x.max()))
            require(-1e-6 <= low <= high <= 1 + 1e-6, f"{what} left [0, 1]: {low:.3g}, {high:.3g}")
            require(torch.equal(x, again), f"{what} draws from a generator of its own")


def _leaves(views: Any) -> Iterator[Tensor]:
    if isinstance(views, Tensor):
        yield views
    else:
        for each in views.values() if isinstance(views, Mapping) else views:
            yield from _leaves(each)


def trains_all_it_has(trial: Trial) -> None:
    """Every loss is a finite scalar, every stage yields some, and there is no warning of its health."""
    yielded = {name for name, _ in trial.fitted.losses}
    lacking = [kind.__name__ for kind in trial.kinds if kind.__name__ not in yielded]
    require(not lacking, f"{' and '.join(lacking)} never yielded a loss")
    require(not trial.fitted.warnings, f"warned: {'; '.join(trial.fitted.warnings)}")


def trains_in_bf16(trial: Trial) -> None:
    """A step under bf16 autocast has a finite loss."""
    fit = trial.fit("bf16", trial.cell(precision="bf16"), steps=1)
    require(fit.done.status in ("interrupted", "ok"), f"in bf16: {fit.done.sentence}")


def takes_the_smallest_batch(trial: Trial) -> None:
    """A step on `least` images, but at least on two, has a finite loss."""
    least = max(2, trial.parts.target.least)
    fit = trial.fit("smallest", trial.cell(**{f"{trial.name}.batch": least}), steps=1)
    held = fit.done.status in ("interrupted", "ok")
    require(
        held, f"with a batch of {least}, which its `least` allows, it failed: {fit.done.sentence}"
    )


def asks_no_gradient_of_targets(trial: Trial) -> None:
    """No weight of a module in `targets` takes a gradient, lest an optimiser move it."""
    assert isinstance(trial.module, Method)
    for name in trial.module.targets:
        target = trial.module.get_submodule(name)
        held = [key for key, p in target.named_parameters() if p.requires_grad]
        require(
            not held,
            f"{held[:3]} of its target {name!r} ask for a gradient: an optimiser "
            "would move them; set their requires_grad to False",
        )


def repeats_itself(trial: Trial) -> None:
    """The same seed gives the same losses and weights."""
    _same(trial, trial.fit("again", trial.cell()), "done a second time")


def resumes_exactly(trial: Trial) -> None:
    """Stopped several times, also within epochs, and continued, it ends with the same weights."""
    losses: list[Loss] = []
    steps = 2 if len(trial.fitted.losses) < 10 else 5
    for _ in trial.fitted.losses:
        fit = trial.fit("resumed", trial.cell(), steps=steps)
        losses += fit.losses
        if fit.done.status != "interrupted":
            break
    _same(trial, fit._replace(losses=losses), "stopped and continued")


def seeds_nothing(trial: Trial) -> None:
    """Its views and steps do not seed the global generators, from which they draw."""
    stood = trial.fitted.stood
    moments = {
        "its views seed": [each.before for each in stood],
        "its step seeds": [each.after for each in stood],
    }
    for who, places in moments.items():
        for library in places[0] if places else ():
            again = len(places) - len({place[library] for place in places})
            sentence = f"{who} the global generator of {library}: it stood where it had before"
            require(not again, f"{sentence}, at {again} of {len(places)} steps")
    seeds = [each.seeds for each in stood]
    require(all(one == two for one, two in seeds), "its step seeds the global generator of torch")


def sees_no_hidden_label(trial: Trial) -> None:
    """Its losses and weights do not depend on the test split or on labels that it may not see.

    Of a budget those are all others than the budget's. Nor does it open the dataset itself, which
    would give it all labels.
    """
    cell, opened, kind = trial.cell(), list[bool](), type(trial.data.dataset)
    load = kind.load

    def noted(self: Dataset, place: Place) -> Images:
        opened.append(True)
        return load(self, place)

    drawn = trial.data.rows_shown  # by the labels as they are: which ones show must not change

    def rows_shown(self: Data, budget: int, seed: int) -> Tensor:
        return drawn(budget, seed)

    # the trial's data is changed too, in case the method looks it up in the call stack
    changed = patch.object(trial, "data", _otherwise(trial, cell))
    kept = patch.object(Data, "rows_shown", rows_shown)
    with changed, kept, patch.object(kind, "load", noted):
        fit = trial.fit("other", cell)
    require(not opened, "it opens the dataset itself, which gives it every label")
    _same(trial, fit, "with another test split and other hidden labels")


def _otherwise(trial: Trial, cell: Cell) -> Data:
    """The data with another test split, and other labels where the method may not see them."""
    data, labels = trial.data, trial.data.train.labels
    classes = max(1, data.classes)
    shown = torch.zeros_like(data.held_out)
    if cell.labels == "all":
        shown = ~data.held_out
    elif cell.labels == "budget":
        assert cell.budget is not None
        shown[data.rows_shown(cell.budget, cell.seed)] = True
    train = data.train._replace(labels=torch.where(shown, labels, (labels + 1) % classes))
    test = data.test._replace(
        images=255 - data.test.images, labels=(data.test.labels + 1) % classes
    )
    return replace(data, train=train, test=test)


def learns(trial: Trial, *, epochs: int = 10, **settings: Any) -> None:
    """The loss of every stage falls, or that of its main group where it has several.

    Of all pairs of a loss in the first quarter and one in the last, four in five must fall. It
    gets mild views and a bold recipe; `settings` adds what else it needs, such as a single epoch
    where targets move. Other groups' losses need not fall: an adversary's rises as its opponent
    learns.
    """
    plain = {**_plainly(trial), **settings}
    fit = trial.fit("learns", trial.cell(epochs=epochs, **plain))
    require(fit.done.status == "ok", f"it did not train: {fit.done.sentence}")
    for kind in trial.kinds:
        losses = [loss for name, loss in fit.losses if name == kind.__name__]
        quarter = -(-len(losses) // 4)
        pairs = [*product(losses[:quarter], losses[-quarter:])]
        order = sum(last < first for first, last in pairs) / len(pairs)
        shown = " ".join(f"{loss:.4g}" for loss in losses)
        require(order >= 0.8, f"the loss of {kind.__name__} did not fall: {shown}")


def _plainly(trial: Trial) -> dict[str, Any]:
    """Settings for a bold recipe in every stage, mild views and short pretexts."""
    cell = trial.cell()
    owners = [trial.name, *(f"{trial.name}.{stage}" for stage in cell.stages)]
    found = {f"{owner}.{key}": BOLD[key] for owner, key in product(owners, BOLD)}
    for key, value in cell.hyperparameters.items():
        if key in MILD:
            several = isinstance(value, tuple)
            found[f"{trial.name}.{key}"] = (MILD[key],) * len(value) if several else MILD[key]
    return found | {f"{name}.epochs": 2 for name in cell.pretexts}


def _same(trial: Trial, fit: Fit, what: str) -> None:
    """Checks that a fit has the losses and weights of the complete one, bit for bit."""
    whole = trial.fitted
    require(fit.done.status == "ok", f"{what}, it failed: {fit.done.sentence}")
    pairs = enumerate(zip_longest(fit.losses, whole.losses))
    other = next((f"loss {i} is {one}, not {two}" for i, (one, two) in pairs if one != two), None)
    require(other is None, f"{what}, it took another course: {other}")
    moved = [k for k, v in whole.weights.items() if not torch.equal(v, fit.weights[k])]
    require(not moved, f"{what}, its losses were the same and its weights not: {moved[:3]}")


ENCODER_CHECKS = (says_what_it_is, builds_from_backbone_and_data_alone, encodes_each_image_alone)
METHOD_CHECKS = (
    *ENCODER_CHECKS,
    views_serve_any_batch,
    trains_all_it_has,
    asks_no_gradient_of_targets,
    trains_in_bf16,
    takes_the_smallest_batch,
    repeats_itself,
    resumes_exactly,
    seeds_nothing,
    sees_no_hidden_label,
    keeps_a_gpu_busy,
    learns,
)


def checks(trial: Trial) -> Sequence[Callable[..., str | None]]:
    """The checks for this entry."""
    return METHOD_CHECKS if trial.parts.recipe else ENCODER_CHECKS
