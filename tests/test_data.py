"""A data set opened by name: subsets, the held-out tenth, and what pretraining may see."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sslbench import arrays
from sslbench.api import Card, Dataset, Images, Judged, Place, Split
from sslbench.data import Data, default_roots, open_data
from sslbench.datasets.digits import Digits
from sslbench.datasets.folder import Folder
from sslbench.errors import UnknownName, UserError
from sslbench.one_cell.subject import JudgedData

CARD = Card("Noise", 5, None, None, "none", "none", "none")


class Noise(Dataset):
    """Pictures of nothing."""

    card = CARD
    version = 3

    def __init__(
        self,
        *,
        counts: tuple[int, ...] = (40, 40, 40, 40, 40),
        side: int = 4,
        free: int = 0,
        labelled: bool = True,
        salt: str = "",
    ) -> None:
        self.counts, self.side, self.free = counts, side, free
        self.labelled, self.salt = labelled, salt

    def load(self, place: Place) -> Images:
        labels = np.random.default_rng(0).permutation(
            np.repeat(np.arange(len(self.counts)), self.counts)
        )

        def pictures(count: int, seed: int) -> torch.Tensor:
            generator = torch.Generator().manual_seed(seed)
            shape = (count, 3, self.side, self.side)
            return torch.randint(256, shape, generator=generator).to(torch.uint8)

        marks = torch.from_numpy(labels)
        return Images(
            train=Split(
                pictures(len(labels), 0), marks if self.labelled else -torch.ones_like(marks)
            ),
            test=Split(pictures(len(labels), 1), marks),
            classes=tuple("abcdefghij"[: len(self.counts)]),
            fingerprint=f"noise {self.salt}",
            unlabelled=Split(pictures(self.free, 2), torch.full((self.free,), -1))
            if self.free
            else None,
        )


@dataclass
class Entry:
    target: Any

    def load(self) -> Any:
        return self.target


class Registry:
    """As plugins.Registry."""

    def __init__(self, **targets: Any) -> None:
        self.targets = {"noise": Noise, "digits": Digits, "folder": Folder, **targets}

    def find(self, kind: str, name: str) -> Entry:
        assert kind == "datasets"
        if name not in self.targets:
            raise UnknownName("dataset", name, self.targets)
        return Entry(self.targets[name])


def opened(name: str = "noise", *, place: Place | None = None, **targets: Any) -> Data:
    return open_data(name, Registry(**targets), place or Place())


def counts(labels: torch.Tensor, classes: int = 5) -> list[int]:
    return torch.bincount(labels[labels >= 0], minlength=classes).tolist()


# ---- names ---------------------------------------------------------------------------------


def test_a_data_set_is_opened_by_name() -> None:
    data = opened()
    assert (data.name, data.fingerprint, data.classes, data.size) == ("noise", "noise ", 5, 4)
    assert data.class_names == tuple("abcde")
    assert (data.version, data.card) == (3, CARD)
    assert data.unlabelled is None
    assert data.skipped == ()
    assert data.train.images.shape == data.test.images.shape == (200, 3, 4, 4)


def test_digits_open_for_real() -> None:
    data = opened("digits")
    assert data.train.images.shape == (1437, 3, 32, 32)
    assert data.size == 32
    assert data.held_out.sum() == 144


@pytest.mark.parametrize(
    ("typed", "canonical"),
    [
        ("noise[side=4]", "noise"),
        ("noise[side=5]", "noise[side=5]"),
        ("noise[train=100, side=4]", "noise[train=100]"),
        ("noise[train=100,side=2,test=50]", "noise[side=2,test=50,train=100]"),
    ],
)
def test_a_name_is_canonical(typed: str, canonical: str) -> None:
    assert opened(typed).name == canonical
    assert opened(canonical).fingerprint == opened(typed).fingerprint


def test_an_unknown_data_set_is_suggested() -> None:
    with pytest.raises(UnknownName, match="did you mean 'digits'"):
        opened("digit")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("digits[sise=32]", "unknown setting of dataset 'digits' 'sise'; did you mean 'size'"),
        ("digits[tran=3]", "did you mean 'train'"),
        ("digits[size=big]", "not 'big'"),
        ("digits:path", "digits takes no path"),
        ("folder", "folder wants a path"),
        ("folder:x[path=y]", "unknown setting of dataset 'folder' 'path'"),
    ],
)
def test_a_bracket_is_checked_against_the_data_set(name: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        opened(name)


def test_a_variant_is_a_partial() -> None:
    small = partial(Noise, side=2)
    assert opened("small", small=small).size == 2
    assert opened("small[side=2]", small=small).name == "small"


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (3, "which does not make an api.Dataset"),
        (lambda: 3, "made 3, which is not an api.Dataset"),
        (lambda: Rubbish(None), "loaded None, which is not an api.Images"),
        (lambda: Rubbish(flawed(images=torch.zeros(4, 3, 2, 2))), "train split is torch.float32"),
        (lambda: Rubbish(flawed(images=torch.zeros(4, 1, 2, 2).byte())), r"\[4, 1, 2, 2\]"),
        (lambda: Rubbish(flawed(images=torch.zeros(4, 3, 2, 3).byte())), "images of 2 x 3"),
        (lambda: Rubbish(flawed(images=torch.zeros(0, 3, 2, 2).byte())), "is empty"),
        (lambda: Rubbish(flawed(labels=torch.zeros(3).long())), "labels for 4 images"),
        (lambda: Rubbish(flawed(labels=torch.tensor([0, 1, 2, 0]))), "labels outside 0 to 1"),
        (lambda: Rubbish(flawed(labels=torch.tensor([0, 1, -2, 0]))), "labels outside 0 to 1"),
    ],
)
def test_rubbish_from_a_plugin_is_a_sentence(target: Any, why: str) -> None:
    with pytest.raises(UserError, match=why):
        opened("rubbish", rubbish=target)


class Rubbish(Dataset):
    """What a plugin might load."""

    card = CARD

    def __init__(self, images: Any) -> None:
        self.images = images

    def load(self, place: Place) -> Images:
        return self.images  # type: ignore[no-any-return]


def flawed(
    *,
    images: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    test: torch.Tensor | None = None,
) -> Images:
    good = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    images = good if images is None else images
    labels = torch.zeros(len(images), dtype=torch.int64) if labels is None else labels
    test = torch.zeros(2, dtype=torch.int64) if test is None else test
    return Images(Split(images, labels), Split(good[:2], test), ("a", "b"), "x")


# ---- subsets -------------------------------------------------------------------------------


def frames(clips: list[int]) -> Images:
    count = len(clips)
    rng = np.random.default_rng(0)
    images = arrays.Stored(torch.from_numpy(rng.integers(0, 256, (count, 3, 8, 8), np.uint8)), "a")
    split = (images, np.full(count, -1))
    return arrays.assemble(
        {"train": split, "test": split},
        classes=(),
        made={},
        clips={"train": np.array(clips), "test": np.array(clips)},
    )


class Film(Noise):
    def load(self, place: Place) -> Images:
        return frames([0, 0, 0, 2, 2, 1])


def test_frames_know_their_clip_in_every_part_of_the_data() -> None:
    data = opened(noise=Film)
    seen = data.pretraining("none")
    assert (seen.info.clips, data.pretraining("none").info.grey) == (3, False)
    assert seen.clips is not None
    assert seen.clips.tolist() == [0, 0, 0, 2, 2, 1]
    assert JudgedData(data).clips("test").tolist() == [0, 0, 0, 2, 2, 1]  # type: ignore[union-attr]
    part = opened("noise[train=4]", noise=Film)
    assert part.train.clips is not None
    assert part.train.clips.tolist() == [0, 0, 0, 2]  # the first, since they follow one another
    assert torch.equal(part.train.images, data.train.images[:4])
    assert opened().pretraining("none").info.clips == 0
    assert JudgedData(opened()).clips("train") is None


def test_which_frames_make_a_clip_is_part_of_the_fingerprint() -> None:
    assert frames([0, 0, 1]).fingerprint != frames([0, 1, 1]).fingerprint


class Torn(Noise):
    def load(self, place: Place) -> Images:
        return frames([0, 1, 0])


def test_frames_of_a_clip_that_are_not_together_are_refused() -> None:
    with pytest.raises(UserError, match="clips whose frames are not together"):
        opened(noise=Torn)


class Grey(Noise):
    def load(self, place: Place) -> Images:
        images = super().load(place)
        grey = images.train.images[:, :1].expand(-1, 3, -1, -1).contiguous()
        return replace(images, train=images.train._replace(images=grey))


def test_a_method_is_told_whether_the_images_are_grey() -> None:
    assert opened(noise=Grey).pretraining("none").info.grey
    assert not opened().pretraining("none").info.grey


def rows_in(part: torch.Tensor, whole: torch.Tensor) -> list[int]:
    places = {image.numpy().tobytes(): place for place, image in enumerate(whole)}
    return [places[image.numpy().tobytes()] for image in part]


def test_a_subset_is_balanced_and_in_order() -> None:
    whole, part = opened(), opened("noise[train=100]")
    assert counts(part.train.labels) == [20] * 5
    rows = rows_in(part.train.images, whole.train.images)
    assert rows == sorted(set(rows))
    assert part.train.labels.tolist() == whole.train.labels[rows].tolist()
    assert torch.equal(part.test.images, whole.test.images)
    assert len(part.held_out) == 100


def test_a_subset_of_test_leaves_train_alone() -> None:
    whole, part = opened(), opened("noise[test=35]")
    assert counts(part.test.labels) == [7] * 5
    assert torch.equal(part.train.images, whole.train.images)


@pytest.mark.parametrize("count", [1, 2, 7, 33, 101, 199, 200])
def test_a_subset_is_nearly_balanced_where_classes_do_not_divide_it(count: int) -> None:
    found = counts(opened(f"noise[train={count}]").train.labels)
    assert sum(found) == count
    assert max(found) - min(found) <= 1


def test_a_scarce_class_gives_all_it_has() -> None:
    uneven = partial(Noise, counts=(3, 50, 10, 80, 57))
    found = counts(opened("uneven[train=100]", uneven=uneven).train.labels)
    assert sum(found) == 100
    assert (found[0], found[2]) == (3, 10)
    assert set(found[1:2] + found[3:]) == {29}


def test_a_smaller_subset_is_part_of_a_larger_one() -> None:
    whole = opened().train.images
    nested = [
        set(rows_in(opened(f"noise[train={count}]").train.images, whole))
        for count in (3, 11, 50, 112, 200)
    ]
    for less, more in pairwise(nested):
        assert less < more


def test_a_subset_is_the_same_each_time_and_for_each_stored_side() -> None:
    first, again = (opened("digits[train=97]") for _ in range(2))
    assert torch.equal(first.train.images, again.train.images)
    assert first.fingerprint == again.fingerprint
    small = opened("digits[train=97,size=8]")
    shrunk = torch.nn.functional.avg_pool2d(first.train.images.float(), 4).flatten(1)
    nearest = torch.cdist(small.train.images.float().flatten(1), shrunk).argmin(1)
    assert (nearest == torch.arange(97)).float().mean() > 0.95
    assert torch.equal(small.train.labels, first.train.labels)


def test_a_subset_has_its_own_fingerprint() -> None:
    names = ["noise", "noise[train=50]", "noise[train=51]", "noise[test=50]"]
    names += ["noise[test=50,train=50]", "noise[salt=x,train=50]"]
    assert len({opened(name).fingerprint for name in names}) == len(names)


@pytest.mark.parametrize("count", ["201", "0", "-5", "1.5", "many", "true"])
def test_a_subset_that_cannot_be_says_how_many_there_are(count: str) -> None:
    with pytest.raises(UserError, match=r"train=\w*.* was asked for; train has 200 images"):
        opened(f"noise[train={count}]")


def test_an_unlabelled_subset_is_drawn_at_random() -> None:
    data = opened("free[train=60]", free=partial(Noise, labelled=False))
    assert data.train.labels.tolist() == [-1] * 60
    assert data.held_out.sum() == 6


def test_a_subset_too_large_for_memory_is_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = opened("noise[train=100]")
    monkeypatch.setattr(arrays, "SHARE", 0)
    monkeypatch.setattr(arrays, "BLOCK", 100)
    mapped = opened("noise[train=100]", place=Place(scratch=tmp_path))
    assert torch.equal(mapped.train.images, held.train.images)
    assert mapped.fingerprint == held.fingerprint
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [
        held.train.images.numpy().tobytes()
    ]


# ---- the held-out tenth --------------------------------------------------------------------


def test_a_tenth_of_each_class_is_held_out() -> None:
    data = opened()
    assert data.held_out.dtype == torch.bool
    assert counts(data.train.labels[data.held_out]) == [4] * 5


def test_rare_classes_keep_one_image_to_learn_from() -> None:
    # A tenth is six: five whole ones, and the sixth would by its share be a single image's.
    sizes = (1, 1, 1, 1, 1, 10, 10, 10, 10, 10)
    data = opened("rare", rare=partial(Noise, counts=sizes))
    held = counts(data.train.labels[data.held_out], 10)
    assert held[:5] == [0] * 5
    assert sorted(held[5:]) == [1, 1, 1, 1, 2]


def test_the_tenth_has_classes_in_their_proportion() -> None:
    data = opened("uneven", uneven=partial(Noise, counts=(13, 20, 7, 90, 50)))
    held = np.array(counts(data.train.labels[data.held_out]))
    assert held.sum() == 18
    assert np.abs(held - np.array([1.3, 2, 0.7, 9, 5])).max() < 1


@pytest.mark.parametrize(("sizes", "held"), [((1,), 0), ((1, 1), 1), ((2,), 1), ((4,), 1)])
def test_the_smallest_data_sets_hold_out_what_they_can(sizes: tuple[int, ...], held: int) -> None:
    assert int(opened("few", few=partial(Noise, counts=sizes)).held_out.sum()) == held


def test_the_tenth_depends_on_the_fingerprint_alone() -> None:
    torch.manual_seed(1)
    first = opened().held_out
    torch.manual_seed(2)
    assert torch.equal(first, opened().held_out)
    assert not torch.equal(first, opened("noise[salt=x]").held_out)


def test_the_tenth_is_the_same_on_every_machine() -> None:
    """Pinned: another draw would change what every stored number was chosen on."""
    assert torch.nonzero(opened().held_out)[:, 0].tolist() == [
        0,
        1,
        5,
        11,
        26,
        27,
        60,
        63,
        80,
        83,
        91,
        99,
        108,
        116,
        134,
        152,
        160,
        164,
        183,
        186,
    ]


# ---- what pretraining may see --------------------------------------------------------------


def test_without_labels_every_label_is_hidden() -> None:
    data = opened()
    seen = data.pretraining("none")
    assert seen.images is data.train.images
    assert seen.labels.tolist() == [-1] * 200
    assert seen.labels.dtype == torch.int64
    assert (seen.info.name, seen.info.size, seen.info.length, seen.info.classes) == (
        *("noise", 4, 200),
        5,
    )


def test_without_labels_the_unlabelled_split_is_what_is_seen() -> None:
    data = opened("noise[free=70,train=50]")
    assert data.unlabelled is not None
    seen = data.pretraining("none")
    assert seen.images is data.unlabelled.images
    assert seen.info.length == len(seen.labels) == 70


def test_all_labels_are_seen_but_the_held_out_tenths() -> None:
    data = opened("noise[free=70]")
    seen = data.pretraining("all")
    assert seen.images is data.train.images
    assert torch.equal(seen.labels == -1, data.held_out)
    assert torch.equal(seen.labels[~data.held_out], data.train.labels[~data.held_out])


@pytest.mark.parametrize("budget", [1, 5, 50, 52, 180])
def test_a_budget_is_balanced_and_never_of_the_held_out_tenth(budget: int) -> None:
    data = opened()
    labels = data.pretraining("budget", budget=budget, seed=0).labels
    shown = labels >= 0
    found = counts(labels)
    assert sum(found) == budget
    assert max(found) - min(found) <= 1
    assert not (shown & data.held_out).any()
    assert torch.equal(labels[shown], data.train.labels[shown])


def test_a_budget_is_drawn_from_the_seed() -> None:
    data = opened()
    first, again, other = (
        data.pretraining("budget", budget=20, seed=seed).labels for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("mapped", [False, True])
def test_a_budget_adds_the_unlabelled_images(
    mapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = opened("noise[free=70]", place=Place(scratch=tmp_path))
    if mapped:
        monkeypatch.setattr(arrays, "SHARE", 0)
        monkeypatch.setattr(arrays, "BLOCK", 1000)
    assert data.unlabelled is not None
    seen = data.pretraining("budget", budget=10)
    assert torch.equal(seen.images, torch.cat([data.train.images, data.unlabelled.images]))
    assert seen.info.length == 270
    assert (seen.labels >= 0).sum() == 10
    assert seen.labels[200:].tolist() == [-1] * 70
    assert bool(list(tmp_path.iterdir())) is mapped


@pytest.mark.parametrize("budget", [None, 0, 181])
def test_a_budget_that_cannot_be_says_what_can(budget: int | None) -> None:
    with pytest.raises(UserError, match=f"{budget} was asked for; 1 to 180 labels"):
        opened().pretraining("budget", budget=budget)


@pytest.mark.parametrize("labels", ["all", "budget"])
def test_labels_that_are_not_there_cannot_be_shown(labels: Any) -> None:
    data = opened("free", free=partial(Noise, labelled=False))
    with pytest.raises(UserError, match="its train split has none to show"):
        data.pretraining(labels, budget=1)


def test_showing_never_changes_what_judges_see() -> None:
    data = opened()
    before = data.train.labels.clone()
    for labels in ("none", "all", "budget"):
        data.pretraining(labels, budget=7).labels.fill_(9)  # type: ignore[arg-type]
    assert torch.equal(data.train.labels, before)


# ---- judges and places ---------------------------------------------------------------------


def test_a_judge_sees_labels_images_and_the_tenth() -> None:
    data = opened("noise[test=10]")
    judged: Judged = JudgedData(data)
    assert judged.classes == 5
    assert judged.held_out is data.held_out
    assert judged.labels("train") is data.train.labels
    assert judged.images("test") is data.test.images
    assert len(judged.labels("test")) == 10


def test_roots_are_the_option_then_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSLBENCH_DATA", raising=False)
    assert default_roots(None) == ()
    assert default_roots(tmp_path) == (tmp_path,)
    monkeypatch.setenv("SSLBENCH_DATA", "/data")
    assert default_roots(tmp_path) == (tmp_path, Path("/data"))
    assert default_roots(Path("/data")) == default_roots(None) == (Path("/data"),)
    monkeypatch.setenv("SSLBENCH_DATA", "")
    assert default_roots(None) == ()


# ---- draws ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_draws_agree_with_handing_out_one_at_a_time(seed: int) -> None:
    """An outside view of `balanced`: give every class one in turn until nothing is left to give."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, random.integers(1, 9), random.integers(1, 60))
    count = int(random.integers(1, len(labels) + 1))
    sizes = np.bincount(labels)
    given = np.zeros_like(sizes)
    while given.sum() < count:
        hungry = np.flatnonzero(given < sizes)
        level = given[hungry].min()
        given[hungry[given[hungry] == level][0]] += 1
    mine = arrays.balanced(labels, count, f"{seed}")
    assert len(set(mine.tolist())) == count
    # Which classes give the odd ones out is drawn; how many of each there are is not.
    assert sorted(np.bincount(labels[mine], minlength=len(sizes))) == sorted(given)


def test_a_shuffle_is_uniform() -> None:
    draws = np.array([arrays.shuffled(5, f"{draw}") for draw in range(4000)])
    table = np.array(
        [[np.mean(draws[:, place] == item) for item in range(5)] for place in range(5)]
    )
    assert np.abs(table - 0.2).max() < 4 * np.sqrt(0.16 / 4000)
    assert arrays.shuffled(0, "x").tolist() == []


def test_a_shuffle_is_pinned() -> None:
    assert arrays.shuffled(8, "pinned").tolist() == [6, 7, 2, 5, 1, 3, 4, 0]
