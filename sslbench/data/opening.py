"""Opens a dataset by its name, holds out a tenth of train, and says what pretraining may see."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import arrays
from ..api import Card, DataInfo, Dataset, Images, Labels, Place, Split
from ..arrays import Bytes, Integers
from ..errors import UnknownName, UserError
from ..names import Name, parse
from ..plugins import Registry

HELD_OUT = 0.1  # share of train on which evaluators choose
GREY = 500  # images at most that are looked at for colour
FEW = 10  # test images of a class, below which its score is a guess
SUBSETS = ("train", "test")  # any name's bracket may set these: how many images of the split


class Pretraining(NamedTuple):
    """The images and labels that a method may see."""

    images: Tensor  # uint8 [N, 3, H, W]
    labels: Tensor  # int64 [N], -1 where hidden
    info: DataInfo
    clips: Tensor | None = None  # int64 [N]
    domains: Tensor | None = None  # int64 [N]
    # int64 [N]: the hidden labels of a budget, -1 for those that it shows or nobody knows
    hidden: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Data:
    """An opened dataset."""

    name: str  # canonical
    fingerprint: str  # of what is here: a subset has its own
    class_names: tuple[str, ...]
    size: int  # pixels, side of the stored images
    train: Split
    test: Split
    unlabelled: Split | None
    held_out: Tensor  # bool [N] of train
    skipped: tuple[str, ...]  # broken files left out
    notes: tuple[str, ...]  # what whoever reads a number of it must know
    dataset: Dataset = field(repr=False)
    place: Place = field(default_factory=Place, repr=False)
    # int64 [N]: positions of this test split in the whole one; None: it is whole
    test_rows: Tensor | None = field(default=None, repr=False)

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def has_target(self) -> bool:
        """Whether its train split is of a source and a target, of whose labels a budget is."""
        return self.train.domains is not None

    @property
    def card(self) -> Card:
        return self.dataset.card

    @property
    def version(self) -> int:
        return self.dataset.version

    @property
    def scratch(self) -> Path | None:
        return self.place.scratch

    def pretraining(
        self, labels: Labels, *, budget: int | None = None, seed: int = 0
    ) -> Pretraining:
        """The images, with the labels that a method of this kind may see.

        none: the unlabelled split where there is one, else train; no label.
        budget: train and the unlabelled split, with `budget` labels: class-balanced, drawn from
            the seed, never from the held-out tenth. Of two domains they are of the target, beside
            all of the source but the held-out tenth's.
        all: train, with every label except the held-out tenth's.

        Raises:
            UserError: there are fewer labels than asked for.
        """
        if labels == "none":
            seen = self.unlabelled or self.train
            return self._shown(seen._replace(labels=torch.full((len(seen.images),), -1)))
        shown = torch.where(self.held_out, -1, self.train.labels)
        if not (shown >= 0).any():
            raise UserError(
                f"{self.name}: the method needs labels, and its train split has none to show; "
                "use a method that needs none"
            )
        if labels == "all":
            return self._shown(self.train._replace(labels=shown))
        shown = self._within_budget(shown, budget, seed)
        hidden = torch.where(shown < 0, self.train.labels, -1)
        if self.unlabelled is None:
            return self._shown(self.train._replace(labels=shown), hidden)
        extra = self.unlabelled.images
        shape = (len(shown) + len(extra), *extra.shape[1:])
        stored = arrays.gather(
            _one_after_another(self.train.images, extra), shape=shape, scratch=self.scratch
        )
        none = torch.full((len(extra),), -1)
        domains = None
        if self.train.domains is not None and self.unlabelled.domains is not None:
            domains = torch.cat([self.train.domains, self.unlabelled.domains])
        both = Split(stored.images, torch.cat([shown, none]), domains=domains)
        return self._shown(both, torch.cat([hidden, none]))

    def label_sizes(self) -> list[int]:
        """How many labels of each class a budget may have: those of train but the held-out tenth.

        Of two domains those of the target.
        """
        labels = self.train.labels[self._offered]
        return torch.bincount(labels, minlength=self.classes).tolist()

    @property
    def _offered(self) -> Tensor:
        """Marks the labels of train that a budget is drawn from: bool [N]."""
        free = ~self.held_out & (self.train.labels >= 0)
        return free if self.train.domains is None else free & (self.train.domains == 1)

    def _within_budget(self, shown: Tensor, budget: int | None, seed: int) -> Tensor:
        least, most = int(self.train.domains is None), int(self._offered.sum())
        if budget is None or not least <= budget <= most:
            raise UserError(
                f"{self.name}: a label budget of {budget} was asked for; "
                f"{least} to {most:,} labels can be given"
            )
        rows = self.rows_shown(budget, seed)
        kept = torch.full_like(shown, -1)
        kept[rows] = shown[rows]
        return kept

    def rows_shown(self, budget: int, seed: int) -> Tensor:
        """The rows of train whose labels a method of this budget and seed sees: int64 [M], ascending.

        Of two domains those of the source are there whatever the budget.
        """
        free = torch.nonzero(self._offered)[:, 0]
        key = f"budget {self.fingerprint} {seed}"
        drawn = arrays.balanced(self.train.labels[free].numpy(), budget, key)
        rows = free[torch.from_numpy(drawn)]
        if self.train.domains is None:
            return rows
        known = ~self.held_out & (self.train.labels >= 0) & (self.train.domains == 0)
        return torch.cat([torch.nonzero(known)[:, 0], rows]).sort().values

    def _shown(self, seen: Split, hidden: Tensor | None = None) -> Pretraining:
        info = DataInfo(
            name=self.name,
            size=self.size,
            length=len(seen.images),
            classes=self.classes,
            grey=_grey(seen.images),
            clips=0 if seen.clips is None else len(torch.unique(seen.clips)),
            domains=1 if seen.domains is None else len(torch.unique(seen.domains)),
        )
        return Pretraining(seen.images, seen.labels, info, seen.clips, seen.domains, hidden)


def default_roots(data_option: Path | None) -> tuple[Path, ...]:
    """The folders in which datasets are looked for: `--data`, then SSLBENCH_DATA."""
    given = (data_option, os.environ.get("SSLBENCH_DATA"))
    return tuple(dict.fromkeys(Path(root).expanduser() for root in given if root))


# ---- opening -------------------------------------------------------------------------------


def open_data(name: str, registry: Registry, place: Place) -> Data:
    """Loads a dataset by name: `digits`, `fashion-mnist[train=10000]`, `folder:PATH[size=64]`.

    Raises:
        UnknownName: no plugin provides it, or it has no such setting.
        UserError: a value does not suit; MissingData when its files are missing or damaged.
    """
    asked = parse(name)
    kind = registry.find("datasets", asked.base).load()
    if not callable(kind):
        raise UserError(f"dataset {asked.base!r} is {kind!r}, which does not make an api.Dataset")
    own, wanted = _apart(asked)
    dataset = _made(kind, asked, own)
    images = dataset.load(place)
    _check(asked.base, images)
    data = Data(
        name=canonical(name, registry),
        fingerprint=images.fingerprint,
        class_names=images.classes,
        size=images.train.images.shape[-1],
        train=images.train,
        test=images.test,
        unlabelled=images.unlabelled,
        held_out=torch.zeros(0, dtype=torch.bool),
        skipped=images.skipped,
        notes=(*images.notes, *_cautions(images)),
        dataset=dataset,
        place=place,
    )
    for split in SUBSETS:
        if split in wanted:
            data = _cut(data, split, wanted[split])
    return replace(data, held_out=_held_out(data))


def canonical(name: str, registry: Registry) -> str:
    """The canonical name of a dataset, without settings at their defaults. Opens nothing."""
    asked = parse(name)
    kind = registry.find("datasets", asked.base).load()
    own, wanted = _apart(asked)
    return str(replace(asked, params=_without_defaults(kind, own) | wanted))


def _apart(asked: Name) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parts a dataset's own settings from subsets; a share of test is the dataset's own."""
    wanted = {
        key: value
        for key, value in asked.params.items()
        if key in SUBSETS and not (isinstance(value, float) and 0 < value < 1)
    }
    return {key: value for key, value in asked.params.items() if key not in wanted}, wanted


def _made(kind: Callable[..., Any], asked: Name, own: dict[str, Any]) -> Dataset:
    """Makes the dataset; settings that it does not take are refused before anything is read."""
    takes = [
        parameter.name
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for key in own:
        if key in SUBSETS and key not in takes:
            raise UserError(
                f"{asked}: {key}={own[key]} was asked for, and is a number of images; only a folder "
                "without a test split is split by a share, as in folder:PATH[test=0.2]"
            )
        if key not in takes or key == "path":
            known = [name for name in takes if name != "path"]
            raise UnknownName(f"setting of dataset {asked.base!r}", key, [*known, *SUBSETS])
    if asked.argument is not None and "path" not in takes:
        raise UserError(f"{asked}: {asked.base} takes no path; write {asked.base!r} alone")
    if asked.argument is None and "path" in takes:
        raise UserError(f"{asked}: {asked.base} wants a path, such as {asked.base}:/data/pictures")
    where = {} if asked.argument is None else {"path": asked.argument}
    try:
        dataset = kind(**where, **own)
    except (TypeError, ValueError) as error:
        raise UserError(f"{asked}: {error}") from error
    if not isinstance(dataset, Dataset):
        raise UserError(f"dataset {asked.base!r} made {dataset!r}, which is not an api.Dataset")
    return dataset


def _without_defaults(kind: Callable[..., Any], own: dict[str, Any]) -> dict[str, Any]:
    """Drops settings at their defaults: `digits[size=32]` is `digits`."""
    defaults = inspect.signature(kind).parameters
    return {
        key: value
        for key, value in own.items()
        if (type(value), value) != (type(defaults[key].default), defaults[key].default)
    }


def _check(name: str, images: Any) -> None:
    """Checks what a dataset loaded, since any plugin may provide one."""
    if not isinstance(images, Images):
        raise UserError(f"dataset {name!r} loaded {images!r}, which is not an api.Images")
    side = images.train.images.shape[-1]
    splits = {"train": images.train, "test": images.test, "unlabelled": images.unlabelled}
    for split, pair in splits.items():
        if pair is None:
            continue
        fault = _fault(pair, side, len(images.classes))
        if split == "unlabelled" and (pair.domains is None) != (images.train.domains is None):
            fault = "does not say of which domains it is as its train split does"
        if fault:
            raise UserError(f"dataset {name!r} cannot be used: its {split} split {fault}")


def _fault(split: Split, side: int, classes: int) -> str:
    images, labels = split.images, split.labels
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        return f"is {images.dtype} {list(images.shape)}, where uint8 [N, 3, H, W] is wanted"
    if images.shape[2:] != (side, side):
        return (
            f"has images of {images.shape[2]} x {images.shape[3]}, where {side} x {side} is wanted"
        )
    if len(images) == 0:
        return "is empty"
    if labels.dtype != torch.int64 or labels.shape != (len(images),):
        return f"has {labels.dtype} {list(labels.shape)} labels for {len(images)} images"
    if int(labels.min()) < -1 or int(labels.max()) >= classes:
        return f"has labels outside 0 to {classes - 1}"
    return _misplaced(split)


def _misplaced(split: Split) -> str:
    """What is wrong with the clips and domains of a split's images."""
    images, _, clips, domains = split
    for what, each in (*split._asdict().items(),)[2:]:
        if each is not None and (each.dtype != torch.int64 or each.shape != (len(images),)):
            return f"has {each.dtype} {list(each.shape)} {what} for {len(images)} images"
    if clips is not None and int((clips.diff() != 0).sum()) + 1 != len(torch.unique(clips)):
        return "has clips whose frames are not together"
    if domains is not None and not ((domains == 0) | (domains == 1)).all():
        return "has domains other than 0, the source, and 1, the target"
    return ""


def _grey(images: Tensor) -> bool:
    """Whether the channels are the same in some hundreds of the images, spread over all."""
    some = images[:: len(images) // GREY + 1]
    return bool((some == some[:, :1]).all())


def _cautions(images: Images) -> list[str]:
    """Sentences on labels with which scores say little."""
    classes = len(images.classes)
    shown, sizes = (
        torch.bincount(labels[labels >= 0], minlength=classes).tolist()
        for labels in (images.train.labels, images.test.labels)
    )
    found = []
    if any(shown) and not all(shown):
        found.append(f"{shown.count(0)} of its {classes} classes have no train image")
    if few := [size for size in sizes if size < FEW]:
        found.append(f"{len(few)} of its {len(sizes)} classes have under {FEW} test images")
    if sizes and max(sizes) > sum(sizes) / 2 and len(sizes) > 1:
        name = images.classes[sizes.index(max(sizes))]
        share = max(sizes) / sum(sizes)
        found.append(
            f"{share:.0%} of its test images are of the class {name!r}: always saying so scores that"
        )
    return found


def _cut(data: Data, name: str, count: object) -> Data:
    """Cuts a split to a part, the same one every time; clips to their first frames.

    Classes are as even as can be, and so are domains within them.
    """
    split: Split = getattr(data, name)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= len(split.labels):
        raise UserError(
            f"{data.name}: {name}={count} was asked for; {name} has {len(split.labels):,} images, "
            f"so that 1 to {len(split.labels):,} can be taken"
        )
    # The key leaves the fingerprint out: at every size the same pictures are taken.
    if split.clips is None:
        index = torch.from_numpy(arrays.balanced(_kinds(split).numpy(), count, f"subset {name}"))
    else:
        index = torch.arange(count)  # frames are of use where they follow one another
    shape = (count, *split.images.shape[1:])
    rows = arrays.rows_of(split.images, index)
    part = Split(
        arrays.gather(rows, shape=shape, scratch=data.scratch).images,
        split.labels[index],
        None if split.clips is None else split.clips[index],
        None if split.domains is None else split.domains[index],
    )
    fingerprint = arrays.digest("subset", data.fingerprint, name, count)
    changed: dict[str, Any] = {name: part, "fingerprint": fingerprint}
    if name == "test":
        changed["test_rows"] = index
    return replace(data, **changed)


def _held_out(data: Data) -> Tensor:
    """Marks a tenth of each class of each domain, drawn from the fingerprint alone: bool [N]."""
    labels: Integers = _kinds(data.train).numpy()
    mask = torch.zeros(len(labels), dtype=torch.bool)
    if len(labels) > 1:
        count = max(1, round(HELD_OUT * len(labels)))
        chosen = arrays.stratified(labels, count, f"held out {data.fingerprint}")
        mask[torch.from_numpy(chosen)] = True
    return mask


def _kinds(split: Split) -> Tensor:
    """A number for each class, or for each class of each domain: [N]."""
    return split.labels if split.domains is None else 2 * split.labels + split.domains


def _one_after_another(*parts: Tensor) -> Iterator[Bytes]:
    for part in parts:
        yield from arrays.rows_of(part)
