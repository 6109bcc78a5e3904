"""Gives evaluators the frozen encoder and the data. Features are computed once and cached."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..api import Backbone, Corrupted, Evaluator, Head, Judged, Labels, Method, Split, Subject
from ..blocks import broken
from ..cells.budget import labels_in
from ..data import Data
from ..errors import Unsuited, UserError
from ..nn import deepest
from ..store import CellFolder
from ..store.tensors import digest_of
from ..train.feed import Feed, kept_generators, seed_all
from ..train.state import tensors_of

CACHED = 2**30  # bytes: larger features are not cached on disk
BATCH = 512
DENSE = 64  # of images whose maps are kept whole
CHECKED = 16  # images whose features are computed twice


def encoder_of(module: nn.Module) -> nn.Module:
    """The encoder of a method; an encoder entry is one itself."""
    return module.encoder() if isinstance(module, Method) else module


class Frozen:
    """api.Subject for a trained method, or for an encoder that is never trained."""

    def __init__(
        self,
        module: nn.Module,
        data: Data,
        device: torch.device,
        folder: CellFolder | None = None,
        *,
        lend: Callable[[str], Evaluator] | None = None,
        opened: Callable[[str], Data] | None = None,
        seed: int = 0,
    ) -> None:
        """`lend` makes the evaluator whose probe is borrowed; `opened` opens another dataset.

        seed: of the cell, by which labels are shown.
        """
        self.module = module.to(device).eval()
        self.encoder = encoder_of(self.module)
        self.data, self.device, self.folder = data, device, folder
        self._lend, self._opened, self.seed = lend, opened, seed
        self.uses: frozenset[str] = frozenset()  # evaluators whose probes may be borrowed
        self._features: dict[str, Tensor] = {}
        self._probes: dict[tuple[str, bool], Head] = {}
        self._elsewhere: dict[str, Frozen] = {}
        self._sha: str | None = None

    @property
    def dim(self) -> int:
        return self.features("test").shape[1]

    def features(self, split: Literal["train", "test"]) -> Tensor:
        """Features of a split, float32 [N, D]."""
        if split not in self._features:
            self._features[split] = self._load(split)
        return self._features[split]

    def _load(self, split: str) -> Tensor:
        key = {"encoder": self.sha, "fingerprint": self.data.fingerprint}
        name = f"features-{split}"
        if self.folder and (found := self.folder.load(name)) and found[1] == key:
            return found[0]["features"]
        features = self._over(self.encoder, split)  # [N, D]
        self._check(features, split)
        if self.folder and features.numel() * 4 < CACHED:
            self.folder.save(name, {"features": features}, key)
        return features

    def _check(self, features: Tensor, split: str) -> None:
        """Checks that features can be judged, since any plugin may provide the encoder.

        ValueError names the check that failed.
        """
        if features.dim() != 2:
            raise ValueError(
                f"check vectors: the encoder returned {tuple(features.shape[1:])} for an image; it "
                "must return [B, D]: pool its maps"
            )
        if bad := broken(features):
            raise ValueError(
                f"check finite: {bad} of {len(features)} feature vectors of {split} hold NaN or "
                "infinity; train again with a lower learning rate, or look at the weights"
            )
        if len(features) > 1 and (features == features[:1]).all():
            raise ValueError(
                f"check varied: the features of all {len(features)} images of {split} are the same; "
                "the encoder has collapsed, or its weights were not loaded"
            )
        images = getattr(self.data, split).images[:CHECKED]
        with kept_generators(self.device):
            seed_all(len(features), self.device)  # else a random encoder would draw the same again
            again = torch.cat(list(self._parts(self.encoder, images)))
        first = features[: len(again)]
        # another batch size rounds differently; random draws differ by far more
        apart = 1e-2 * (first - first.mean(0)).abs().max() + 1e-4 * first.abs().max()
        worst = float((again - first).abs().max())
        if worst > float(apart):
            raise ValueError(
                f"check repeatable: the features of the same {len(again)} images of {split} "
                f"differ between two calls by {worst:.3g}; an encoder in eval mode must draw "
                "nothing and update nothing"
            )

    @property
    def sha(self) -> str:
        """sha256 of the encoder's weights."""
        if self._sha is None:
            self._sha = digest_of(tensors_of(self.encoder))
        return self._sha

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        yield from self._parts(self.encoder, images)

    def maps(self, split: Literal["train", "test"]) -> list[Tensor]:
        """Feature maps of the backbone, averaged over positions: each [N, C]."""
        images = getattr(self.data, split).images
        parts = [[m.mean((2, 3)).cpu() for m in maps] for maps in self._maps(images, BATCH)]
        return [torch.cat(level) for level in zip(*parts, strict=True)]

    def dense(self, images: Tensor, side: float) -> Iterator[Tensor]:
        for maps in self._maps(images, DENSE):
            yield maps[deepest([(m.shape[1], m.shape[2], m.shape[3]) for m in maps], side)]

    def _maps(self, images: Tensor, batch: int) -> Iterator[list[Tensor]]:
        """All feature maps of uint8 images, from shallow to deep, on the device."""
        encoder = self.encoder
        if not isinstance(encoder, Backbone):
            raise Unsuited(
                "the maps of its layers were to be judged, and this encoder is not a bare backbone: "
                "it has none; leave out what asks for layers"
            )
        for start in range(0, len(images), batch):
            x = images[start : start + batch].to(self.device).float() / 255
            try:
                with torch.no_grad():
                    maps = encoder.maps(x)
            except UserError as error:
                raise Unsuited(str(error)) from error
            yield [m.float() for m in maps]

    @property
    def told(self) -> Labels:
        return self.module.labels if isinstance(self.module, Method) else "none"

    def predict(self, split: Literal["train", "test"]) -> Tensor | None:
        return self._optional("predict", getattr(self.data, split).images)

    def reconstruct(self, split: Literal["train", "test"]) -> Tensor | None:
        return self._optional("reconstruct", getattr(self.data, split).images)

    def copy(self) -> nn.Module:
        return copy.deepcopy(self.encoder).requires_grad_(True).eval()

    def probe(self, name: str, *, nine_tenths: bool = False) -> Head:
        self.check_borrowed(name)
        if (name, nine_tenths) not in self._probes:
            data = JudgedData(self.data, self.device, self.seed)
            self._probes[name, nine_tenths] = self.lent(name).probe(
                self, data, nine_tenths=nine_tenths
            )
        return self._probes[name, nine_tenths]

    def check_borrowed(self, name: str) -> None:
        if name not in self.uses:
            raise ValueError(
                f"an evaluator asked for the probe of {name} without declaring it; put {name!r} in "
                f"its `uses`, so that its protocol names it"
            )

    def lent(self, name: str) -> Evaluator:
        if self._lend is None:
            raise ValueError(f"the probe of {name} cannot be lent here: no evaluators are known")
        return self._lend(name)

    def elsewhere(self, dataset: str) -> tuple[Subject, Judged]:
        found = self.over_there(dataset)
        found.uses = self.uses
        return found, JudgedData(found.data, self.device, self.seed)

    def over_there(self, dataset: str) -> Frozen:
        if self._opened is None:
            raise ValueError(f"{dataset} was asked for where no datasets are known")
        if dataset not in self._elsewhere:
            data = self._opened(dataset)
            self._elsewhere[dataset] = Frozen(
                self.module,
                data,
                self.device,
                lend=self._lend,
                opened=self._opened,
                seed=self.seed,
            )
        return self._elsewhere[dataset]

    def _optional(self, verb: str, images: Tensor) -> Tensor | None:
        """What the method's own `verb` makes of uint8 images, or None where it has none."""
        own = getattr(type(self.module), verb, None)
        if not isinstance(self.module, Method) or own is getattr(Method, verb):
            return None
        return torch.cat(list(self._parts(getattr(self.module, verb), images)))

    def _over(self, function: Callable[[Tensor], Any], split: str) -> Tensor:
        return torch.cat(list(self._parts(function, getattr(self.data, split).images)))

    def _parts(self, function: Callable[[Tensor], Any], images: Tensor) -> Iterator[Tensor]:
        feed = Feed(images, torch.empty(0, dtype=torch.long), self.device)
        with kept_generators(self.device):
            for start in range(0, len(feed), BATCH):
                index = torch.arange(start, min(start + BATCH, len(feed)))
                with torch.no_grad():
                    made = function(feed.take(index).float() / 255)
                if not isinstance(made, Tensor):
                    raise ValueError(
                        f"check vectors: a {type(made).__name__} was returned for {len(index)} "
                        "images, a tensor with one row for each is wanted"
                    )
                yield made.float().cpu()


class Inner:
    """The train split alone: the held-out tenth stands for test, the other nine for train.

    `--watch` and tuning judge on it, so that nobody sees test before the end.
    """

    def __init__(self, subject: Frozen, data: Data) -> None:
        self.subject, self.data = subject, data
        self.device, self.classes = subject.device, data.classes
        self.name, self.fingerprint = data.name, data.fingerprint
        self._keep = {"train": ~data.held_out, "test": data.held_out}
        inner = int((~data.held_out).sum())
        self.held_out = torch.arange(inner) % 10 == 0
        self._features: Tensor | None = None

    @property
    def dim(self) -> int:
        return self.features("test").shape[1]

    def features(self, split: Literal["train", "test"]) -> Tensor:
        if self._features is None:
            self._features = self.subject._over(self.subject.encoder, "train")
        return self._features[self._keep[split]]

    def labels(self, split: Literal["train", "test"]) -> Tensor:
        return self.data.train.labels[self._keep[split]]

    def images(self, split: Literal["train", "test"]) -> Tensor:
        return self.data.train.images[self._keep[split]]

    def shown(self, labels: int | str, seed: int | None = None) -> Tensor:
        seed = self.subject.seed if seed is None else seed
        rows = _shown(self.data, labels, seed)  # none is held out
        return self._keep["train"].cumsum(0)[rows] - 1

    def clips(self, split: Literal["train", "test"]) -> Tensor | None:
        clips = self.data.train.clips
        return None if clips is None else clips[self._keep[split]]

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        return self.subject.stream(images)

    def dense(self, images: Tensor, side: float) -> Iterator[Tensor]:
        return self.subject.dense(images, side)

    @property
    def told(self) -> Labels:
        return self.subject.told

    def predict(self, split: Literal["train", "test"]) -> Tensor | None:
        return self.subject._optional("predict", self.images(split))

    def reconstruct(self, split: Literal["train", "test"]) -> Tensor | None:
        return self.subject._optional("reconstruct", self.images(split))

    def maps(self, split: Literal["train", "test"]) -> list[Tensor]:
        return [m[self._keep[split]] for m in self.subject.maps("train")]

    def copy(self) -> nn.Module:
        return self.subject.copy()

    def probe(self, name: str, *, nine_tenths: bool = False) -> Head:
        self.subject.check_borrowed(name)
        return self.subject.lent(name).probe(self, self, nine_tenths=nine_tenths)

    def elsewhere(self, dataset: str) -> tuple[Subject, Judged]:
        there = self.subject.over_there(dataset)
        there.uses = self.subject.uses
        inner = Inner(there, there.data)
        return inner, inner

    def corrupted(self, which: str) -> Corrupted:
        raise Unsuited(f"{which} corruptions are of test, and train alone is looked at")


def _shown(data: Data, labels: int | str, seed: int) -> Tensor:
    try:
        count = labels_in(labels, data.label_sizes(), data.name, target=data.has_target)
        return data.rows_shown(count, seed)
    except UserError as error:
        raise Unsuited(str(error)) from error


class JudgedData:
    """`api.Judged`: the data as an evaluator sees it."""

    def __init__(self, data: Data, device: torch.device | None = None, seed: int = 0) -> None:
        """seed: of the cell, by which labels are shown."""
        self._data, self._device, self._seed = data, device or torch.device("cpu"), seed
        self.name, self.fingerprint = data.name, data.fingerprint
        self.classes = data.classes
        self.held_out = data.held_out  # bool [N] of train

    def labels(self, split: Literal["train", "test"]) -> Tensor:
        return self._split(split).labels

    def images(self, split: Literal["train", "test"]) -> Tensor:
        return self._split(split).images

    def shown(self, labels: int | str, seed: int | None = None) -> Tensor:
        return _shown(self._data, labels, self._seed if seed is None else seed)

    def clips(self, split: Literal["train", "test"]) -> Tensor | None:
        return self._split(split).clips

    def corrupted(self, which: str) -> Corrupted:
        from ..data.corrupted import open_corrupted

        return open_corrupted(self._data, which, self._device)

    def _split(self, split: Literal["train", "test"]) -> Split:
        return self._data.train if split == "train" else self._data.test
