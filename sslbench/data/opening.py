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
            the seed, never from the held-out tenth.
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
        if self.unlabelled is None:
            return self._shown(self.train._replace(labels=shown))
        extra = self.unlabelled.images
        shape = (len(shown) + len(extra), *extra.shape[1:])
        stored = arrays.gather(
            _one_after_another(self.train.images, extra), shape=shape, scratch=self.scratch
        )
        hidden = torch.full((len(extra),), -1)
        return self._shown(Split(stored.images, torch.cat([shown, hidden])))

    def label_sizes(self) -> list[int]:
        """How many labels of each class a method may be shown: those of train but the held-out tenth."""
        labels = self.train.labels[~self.held_out]
        return torch.bincount(labels[labels >= 0], minlength=self.classes).tolist()

    def _within_budget(self, shown: Tensor, budget: int | None, seed: int) -> Tensor:
        free = torch.nonzero(shown >= 0)[:, 0]
        if budget is None or not 1 <= budget <= len(free):
            raise UserError(
                f"{self.name}: a label budget of {budget} was asked for; "
                f"1 to {len(free):,} labels can be given"
            )
        rows = self.rows_shown(budget, seed)
        kept = torch.full_like(shown, -1)
        kept[rows] = shown[rows]
        return kept

    def rows_shown(self, budget: int, seed: int) -> Tensor:
        """The rows of train whose labels a method of this budget and seed sees: int64 [M], ascending."""
        free = torch.nonzero(~self.held_out & (self.train.labels >= 0))[:, 0]
        key = f"budget {self.fingerprint} {seed}"
        return free[torch.from_numpy(arrays.balanced(self.train.labels[free].numpy(), budget, key))]

    def _shown(self, seen: Split) -> Pretraining:
        info = DataInfo(
            name=self.name,
            size=self.size,
            length=len(seen.images),
            classes=self.classes,
            grey=_grey(seen.images),
            clips=0 if seen.clips is None else len(torch.unique(seen.clips)),
        )
        return Pretraining(seen.images, seen.labels, info, seen.clips)


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
        if fault:
            raise UserError(f"dataset {name!r} cannot be used: its {split} split {fault}")


def _fault(split: Split, side: int, classes: int) -> str:
    images, labels, clips = split
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
    if clips is not None:
        if clips.dtype != torch.int64 or clips.shape != labels.shape:
            return f"has {clips.dtype} {list(clips.shape)} clips for {len(images)} images"
        if int((clips.diff() != 0).sum()) + 1 != len(torch.unique(clips)):
            return "has clips whose frames are not together"
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
    """Cuts a split to a class-balanced part, the same one every time; clips to their first frames."""
    split: Split = getattr(data, name)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= len(split.labels):
        raise UserError(
            f"{data.name}: {name}={count} was asked for; {name} has {len(split.labels):,} images, "
            f"so that 1 to {len(split.labels):,} can be taken"
        )
    # The key leaves the fingerprint out: at every size the same pictures are taken.
    if split.clips is None:
        index = torch.from_numpy(arrays.balanced(split.labels.numpy(), count, f"subset {name}"))
    else:
        index = torch.arange(count)  # frames are of use where they follow one another
    shape = (count, *split.images.shape[1:])
    rows = arrays.rows_of(split.images, index)
    part = Split(
        arrays.gather(rows, shape=shape, scratch=data.scratch).images,
        split.labels[index],
        None if split.clips is None else split.clips[index],
    )
    fingerprint = arrays.digest("subset", data.fingerprint, name, count)
    changed: dict[str, Any] = {name: part, "fingerprint": fingerprint}
    if name == "test":
        changed["test_rows"] = index
    return replace(data, **changed)


def _held_out(data: Data) -> Tensor:
    """Marks a tenth of each class, drawn from the fingerprint alone: bool [N]."""
    labels: Integers = data.train.labels.numpy()
    mask = torch.zeros(len(labels), dtype=torch.bool)
    if len(labels) > 1:
        count = max(1, round(HELD_OUT * len(labels)))
        chosen = arrays.stratified(labels, count, f"held out {data.fingerprint}")
        mask[torch.from_numpy(chosen)] = True
    return mask


def _one_after_another(*parts: Tensor) -> Iterator[Bytes]:
    for part in parts:
        yield from arrays.rows_of(part)
