"""Checks of what every dataset promises."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..api import Card, Corrupted, Place
from ..data import Data, open_data
from ..data.opening import SUBSETS
from ..errors import MissingData
from ..names import parse
from ..plugins import Registry
from ..train.feed import kept_generators, seed_all
from .promise import require, standing
from .trial import CPU

COMPARED = 20_000  # images of each split that are compared with the other's
_ELSEWHERE = """
import json, sys
from pathlib import Path
from sslbench.api import Place
from sslbench.data import open_data
from sslbench.plugins import registry

name, roots, files = map(json.loads, sys.argv[1:])
found = registry(installed=not files, files=[Path(file) for file in files])
data = open_data(name, found, Place(tuple(map(Path, roots))))
sys.stderr.write(f"fingerprint {data.fingerprint}")
"""
_TEXTS = ("summary", "licence", "citation", "source")


@dataclass(eq=False)
class DatasetTrial:
    """A datasets entry to be checked; it is loaded once for most checks."""

    registry: Registry
    name: str  # with argument and bracket
    place: Place = field(default_factory=Place)
    files: tuple[Path, ...] = ()  # of the plugin, where it is one

    def opened(self) -> Data:
        return open_data(self.name, self.registry, self.place)

    @cached_property
    def data(self) -> Data:
        return self.opened()

    @cached_property
    def whole(self) -> Data:
        """The dataset without the subset that its bracket asks for."""
        name = parse(self.name)
        params = {k: v for k, v in name.params.items() if k not in SUBSETS}
        if params == dict(name.params):
            return self.data
        return open_data(str(replace(name, params=params)), self.registry, self.place)


def has_a_whole_card(trial: DatasetTrial) -> None:
    """Its card says what it is, where it comes from and what its licence is."""
    card: Any = trial.data.card
    require(isinstance(card, Card), f"its card is {card!r:.80}, not an api.Card")
    lacking = [key for key in _TEXTS if not str(getattr(card, key) or "").strip()]
    require(not lacking, f"its card has no {' and no '.join(lacking)}")
    version: Any = trial.data.version
    require(
        type(version) is int and version > 0, f"version is {version!r}, not a whole number from 1"
    )


def loads_what_its_card_says(trial: DatasetTrial) -> None:
    """It has as many images and classes as its card declares, and every class is in train."""
    data, card = trial.whole, trial.whole.card
    found = {"train": len(data.train.labels), "test": len(data.test.labels)}
    found |= {"classes": data.classes}
    if data.unlabelled is not None:
        found["unlabelled"] = len(data.unlabelled.labels)
    for what, count in found.items():
        declared = getattr(card, what)
        require(
            declared in (None, count), f"its card declares {declared} for {what}, {count} loaded"
        )
    names = data.class_names
    sound = all(isinstance(name, str) and name for name in names) and len({*names}) == len(names)
    require(sound, f"its classes are {list(names)[:5]}, not different names")
    labels = {*data.train.labels.tolist()} - {-1}
    whole = len(labels) in (0, data.classes)
    require(whole, f"train shows {len(labels)} of its {data.classes} classes")


def is_the_same_again(trial: DatasetTrial) -> None:
    """Loading it again gives the same fingerprint and bytes, and seeds no global generator."""
    stand = []
    for seed in (0, 1):
        with kept_generators(CPU):
            seed_all(seed, CPU)
            again = trial.opened()
            stand.append(standing())
        said, before = again.fingerprint, trial.data.fingerprint
        require(said == before, f"its fingerprint was {before:.16}, and now is {said:.16}")
        for split in SUBSETS:
            one, other = getattr(trial.data, split), getattr(again, split)
            same = all(map(_equal, one, other))
            require(same, f"{split} has other bytes when loaded again, under the same fingerprint")
    seeded = [name for name in stand[0] if stand[0][name] == stand[1][name]]
    require(not seeded, f"loading it seeds the global generator of {' and '.join(seeded)}")


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)


def is_the_same_elsewhere(trial: DatasetTrial) -> None:
    """Another process, with another PYTHONHASHSEED, finds the same fingerprint."""
    roots = [str(root) for root in trial.place.roots]
    arguments = [json.dumps(each) for each in (trial.name, roots, [*map(str, trial.files)])]
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _ELSEWHERE, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    said = done.stderr.rpartition("fingerprint ")[2]
    last = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
    require(done.returncode == 0, f"another process could not load it: {last}")
    before = trial.data.fingerprint
    require(said == before, f"its fingerprint is {before:.16}, in another process {said:.16}")


def gives_parts(trial: DatasetTrial) -> None:
    """A subset can be asked for; it has its own fingerprint and its own held-out tenth."""
    data = trial.whole
    count = max(1, len(data.train.labels) // 2)
    name = parse(trial.name)
    part = open_data(
        str(replace(name, params={**name.params, "train": count})), trial.registry, trial.place
    )
    require(len(part.train.labels) == count, f"[train={count}] gave {len(part.train.labels)}")
    other = part.fingerprint != data.fingerprint or count == len(data.train.labels)
    require(other, "a part of it has the fingerprint of the whole")
    require(bool(part.held_out.any()), "no image of train is held out")


def keeps_its_splits_apart(trial: DatasetTrial) -> str | None:
    """Its test images are not in train. Since published sets have some, there is only a remark."""
    seen = _digests(trial.whole.train.images)
    twice = sum(digest in seen for digest in _digests(trial.whole.test.images))
    return f"{twice} images of test are also in train" if twice else None


def _digests(images: Tensor) -> set[bytes]:
    return {hashlib.sha256(image.numpy().tobytes()).digest() for image in images[:COMPARED]}


def corrupts_by_the_row(trial: DatasetTrial) -> None:
    """Its published corruptions, where it has any, give the rows that are asked for, as uint8."""
    data = trial.whole
    try:
        made = data.dataset.corrupted(trial.place, data.test.labels)
    except MissingData:
        return
    if made is None:
        return
    require(isinstance(made, Corrupted), f"`corrupted` gave {made!r:.80}, not an api.Corrupted")
    rows = torch.arange(min(3, len(data.test.labels)))
    block = made.block("gaussian_noise", 1, rows)
    expected = [len(rows), *data.test.images.shape[1:]]
    right = block.dtype == torch.uint8 and [*block.shape] == expected
    require(right, f"a block of {len(rows)} rows is {block.dtype} {[*block.shape]}")
    require(bool(made.name and made.fingerprint), "its corrupted set has no name or no fingerprint")


DATASET_CHECKS = (
    has_a_whole_card,
    loads_what_its_card_says,
    is_the_same_again,
    is_the_same_elsewhere,
    gives_parts,
    keeps_its_splits_apart,
    corrupts_by_the_row,
)
