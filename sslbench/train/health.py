"""Measures whether a fit went well, while a method trains and afterwards, and warns where not.

A verdict is a `Warned` whose code is one of `records.HEALTH`. Its sentence says what was seen, what
is expected, and what that means.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..api import Method
from ..measures import rankme
from ..records import Warned
from .feed import Feed, kept_generators
from .state import resting, set_resting

IMAGES = 2048  # un-augmented, looked at after a fit
SORTED = 10_000  # images at most where there are many clusters
START = 256  # images looked at before a fit
BATCH = 512
WIDE = 4 * IMAGES  # features; with more, singular values would take minutes
SETTLED = 50  # steps: the features and loss of a shorter fit are not judged

# Measured with test_resnet on digits and Fashion-MNIST: trained features spread 0.7 to 0.8 and
# untrained ones 0.05 to 0.5; embeddings 0.7 to 1, of BYOL without its predictor 0.1 to 0.3.
SPREAD = 0.1  # of features
EMBEDDED = 0.5  # of embeddings
CHANCE = 0.01  # share of a guess's loss by which a loss must once fall below it
CROWD = 10  # images a cluster below which an empty one says nothing
EMPTY = 0.2  # share of the clusters
LARGEST = 0.5  # share of the images
OLD = 0.01  # share of a queue's rows


# ---- numbers ---------------------------------------------------------------------------------


def spread(x: Tensor) -> float:
    """Mean standard deviation of x / ||x||, times sqrt(D).

    It is 0 when all rows are alike, and 1 when they are evenly spread.
    """
    return float(F.normalize(x, dim=1).std(0).mean()) * math.sqrt(x.shape[1])


def output(
    function: Callable[[Tensor], Any], feed: Feed, images: int, *, what: str
) -> Tensor | None:
    """Applies a function to evenly spaced images: float32 [n, D], or None where it returns None.

    Raises:
        ValueError: it returned something else.
    """
    n = min(images, len(feed))
    parts = []
    # parts of nearly equal size: batch norm cannot take a last part of one image
    for index in (torch.arange(n) * len(feed) // max(n, 1)).tensor_split(-(-n // BATCH)):
        with torch.no_grad():
            made = function(feed.take(index).float() / 255)
        if made is None:
            return None
        if not isinstance(made, Tensor) or made.dim() != 2 or len(made) != len(index):
            shown = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise ValueError(
                f"check vectors: {what} returned {shown} for {len(index)} images, not [B, D]"
            )
        parts.append(made.float().cpu())
    return torch.cat(parts)


@contextlib.contextmanager
def at_rest(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Puts a module in eval mode; afterwards restores its modes and the generators."""
    names = resting(module)
    with kept_generators(device):
        module.eval()
        try:
            yield
        finally:
            set_resting(module, names)


@contextlib.contextmanager
def by_batch(module: nn.Module) -> Iterator[None]:
    """Makes batch norms use the batch's statistics, as in training, without updating their own.

    Running statistics lag behind a network that changes.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [(m, m.training, m.track_running_stats) for m in norms]
    for m in norms:
        m.training, m.track_running_stats = True, False
    try:
        yield
    finally:
        for m, training, tracks in kept:
            m.training, m.track_running_stats = training, tracks


# ---- before and after the fit ----------------------------------------------------------------


@dataclass(frozen=True)
class Checkup:
    """Examines the outputs of a method, or of an encoder that is never trained."""

    module: nn.Module
    encoder: nn.Module
    feed: Feed
    classes: int

    def start(self) -> dict[str, float]:
        """Examines it before the fit. Outputs of a wrong shape fail here, before time is spent."""
        with at_rest(self.module, self.feed.device):
            found = self._outputs(START)
            if isinstance(self.module, Method):
                output(self.module.clusters, self.feed, START, what="clusters")
        x = found["feature"]
        sound = len(x) > 1 and bool(x.isfinite().all())
        return {"untrained_feature_std": spread(x)} if sound else {}

    def end(
        self, numbers: Mapping[str, float], steps: int
    ) -> tuple[dict[str, float], list[Warned]]:
        """Examines it after a fit of so many steps.

        Returns `numbers` with those measured now, and the verdicts.
        """
        found, verdicts = dict(numbers), list[Warned]()
        with at_rest(self.module, self.feed.device):
            outputs, sizes = self._outputs(IMAGES), self._sizes()
        dim = outputs["feature"].shape[1]
        for name, x in outputs.items():
            if len(x) < 2 or x.shape[1] > (WIDE if steps else IMAGES):
                continue
            if not x.isfinite().all():
                verdicts.append(_not_finite(name, x))
                continue
            found[f"{name}_std"] = spread(x)
            found[f"{name}_rankme"] = rankme(x)
            found[f"{name}_rankme_centred"] = rankme(x - x.mean(0))
            verdicts += _collapsed(name, found)
            # an embedding is made of the features: it spans little more than they do
            verdicts += _low_rank(name, found, min(dim, *x.shape), self._sorts, self.classes)
        if sizes is not None:
            found["clusters_empty"] = float((sizes == 0).double().mean())
            found["clusters_largest"] = float(sizes.max() / sizes.sum())
            verdicts += _crowded(sizes, self.classes) if not self._told else []
        judged = isinstance(self.module, Method) and steps >= SETTLED
        return found, verdicts if judged else []

    def _outputs(self, images: int) -> dict[str, Tensor]:
        features = output(self.encoder, self.feed, images, what="the encoder")
        if features is None:
            raise ValueError("the encoder returned nothing for an image; it must return [B, D]")
        found = {"feature": features}
        if isinstance(self.module, Method):
            with by_batch(self.module) if len(features) > 1 else contextlib.nullcontext():
                embedded = output(self.module.embed, self.feed, images, what="embed")
            found |= {} if embedded is None else {"embedding": embedded}
        return found

    def _sizes(self) -> Tensor | None:
        """Counts the images of each cluster, [K]; with many clusters it sorts more images."""
        if not isinstance(self.module, Method):
            return None
        sort, k = self.module.clusters, 0

        def names(x: Tensor) -> Tensor | None:
            nonlocal k
            if (logits := sort(x)) is None:
                return None
            k = logits.shape[1]
            return logits.argmax(1, keepdim=True)  # [B, 1]: the logits may be many

        found = output(names, self.feed, IMAGES, what="clusters")
        if found is None or k < 2:
            return None
        wanted = min(CROWD**2 * k, SORTED, len(self.feed))
        if wanted > len(found):
            found = output(names, self.feed, wanted, what="clusters")
            assert found is not None
        return torch.bincount(found[:, 0].long(), minlength=k)

    @property
    def _told(self) -> bool:
        """Whether it saw every label, so that the sizes of its clusters say nothing of it."""
        return isinstance(self.module, Method) and self.module.labels == "all"

    @property
    def _sorts(self) -> bool:
        """Whether it sorts images into the data's classes, so that fewer directions suffice."""
        if not isinstance(self.module, Method):
            return False
        return self.module.labels != "none" or type(self.module).predict is not Method.predict


def _not_finite(name: str, x: Tensor) -> Warned:
    rows = int((~x.isfinite().all(1)).sum())
    return Warned(
        code="not-finite",
        message=f"the {name}s of {rows} of {len(x)} images are not finite; none can be used",
    )


def _collapsed(name: str, found: Mapping[str, float]) -> Iterator[Warned]:
    own, before = found[f"{name}_std"], found.get("untrained_feature_std", math.inf)
    if name == "feature":
        if own < min(SPREAD, before / 2):
            yield Warned(
                code="collapsed",
                message=f"features of unit length have {own:.3g} of the even standard deviation, "
                f"1/sqrt(D); healthy ones have more than {SPREAD} or than before the fit "
                f"({before:.3g}): they tell images hardly apart",
            )
    elif own < EMBEDDED:
        yield Warned(
            code="collapsed-embedding",
            message=f"embeddings of unit length have {own:.3g} of the even standard deviation, "
            f"1/sqrt(D), where healthy ones have {EMBEDDED} to 1: the loss was lowered by making "
            f"all images alike",
        )


def _low_rank(
    name: str, found: Mapping[str, float], dim: int, sorts: bool, classes: int
) -> Iterator[Warned]:
    own = found[f"{name}_rankme_centred"]
    bar = min(math.sqrt(dim), classes / 2) if sorts else math.sqrt(dim)
    if own < bar:
        yield Warned(
            code="low-rank" if name == "feature" else "low-rank-embedding",
            message=f"the RankMe of centred {name}s is {own:.1f} of {dim}, healthy is more than "
            f"{bar:.1f}: they vary in few directions",
        )


def _crowded(sizes: Tensor, classes: int) -> Iterator[Warned]:
    k, n = len(sizes), int(sizes.sum())
    empty, largest = int((sizes == 0).sum()), float(sizes.max() / n)
    # where clusters stand for classes none may be empty; of prototypes some may
    allowed = 0 if k == classes else math.floor(EMPTY * k)
    if n >= CROWD * k and empty > allowed:
        yield Warned(
            code="empty-clusters",
            message=f"{empty} of {k} clusters are empty after sorting {n} images, where at most "
            f"{allowed} may be: they take no part",
        )
    if k > 2 and largest > LARGEST:
        yield Warned(
            code="large-cluster",
            message=f"one of {k} clusters holds {100 * largest:.0f} % of {n} images, where less "
            f"than {100 * LARGEST:.0f} % is expected: most images are not told apart",
        )


# ---- during the fit --------------------------------------------------------------------------


class Guard:
    """Watches the training of a method or of a stage; its findings are saved with the checkpoint.

    At most steps it only compares counters. It reads queues and targets at the first step, and once
    near the end.
    """

    def __init__(self, method: Method, *, epochs: int, steps: int, batch: int) -> None:
        self.method, self.steps, self.total, self.batch = method, steps, epochs * steps, batch
        self.untouched = {n: p for n, p in method.named_parameters() if p.requires_grad}
        self._early: set[str] = set()  # queues written before a loss
        self._prints: dict[str, list[float]] = {}  # of targets and of what is trained, at the start
        self._rows: dict[str, Tensor] = {}  # hashes of a queue's rows, an epoch before the end
        self._drawn: dict[str, int] = {}  # images since then
        self._seen: list[tuple[str, Tensor, int]] = []
        self._check_names()

    def _check_names(self) -> None:
        buffers, modules = dict(self.method.named_buffers()), dict(self.method.named_modules())
        own = type(self.method).__name__
        for name in self.method.queues:
            if name not in buffers or buffers[name].dim() < 2:
                raise ValueError(
                    f"{own}.queues has {name!r}, which is not a buffer [..., Q, D] of it"
                )
        for name in self.method.targets:
            if name not in modules:
                raise ValueError(f"{own}.targets has {name!r}, which is not a submodule of it")

    def begin(self) -> None:
        """Called before the first step of a fit, unless it is resumed."""
        if self.method.targets:
            modules = {name: self.method.get_submodule(name) for name in self.method.targets}
            self._prints = {name: _print(m.parameters()) for name, m in modules.items()}
            self._prints[""] = _print(self._trained())

    def before(self, step: int, images: int) -> None:
        """Called before each step, with its number of images."""
        for name in self.method.queues:
            queue = self._queue(name)
            if step == self._marked_at(queue):
                self._rows[name], self._drawn[name] = _row_hashes(queue), 0
            if name in self._drawn:
                self._drawn[name] += images
        self._seen = [(n, q, q._version) for n in self.method.queues for q in [self._queue(n)]]

    def at_loss(self) -> None:
        """Called at the first yield of a step."""
        for name, queue, version in self._seen:
            now = self._queue(name)
            if now is not queue or now._version != version:
                self._early.add(name)

    def touched(self) -> None:
        """Called after each backward pass."""
        if self.untouched:
            self.untouched = {n: p for n, p in self.untouched.items() if p.grad is None}

    def verdicts(self, losses: list[tuple[float, float]], prefix: str) -> list[Warned]:
        """The warnings at the end of the fit; `losses` are the means of its epochs."""
        found = [*self._silent(prefix), *self._at_chance(losses, prefix)]
        found += [each for name in self.method.queues for each in self._of_queue(name, prefix)]
        return found + [each for name in self._prints for each in self._of_target(name, prefix)]

    # ---- verdicts ----

    def _silent(self, prefix: str) -> Iterator[Warned]:
        if self.untouched:
            names = ", ".join(prefix + name for name in sorted(self.untouched))
            yield Warned(code="no-gradient", message=f"never got a gradient: {names}")

    def _at_chance(self, losses: list[tuple[float, float]], prefix: str) -> Iterator[Warned]:
        guess = self.method.uniform()
        if guess is None or not losses or self.total < SETTLED:
            return
        bar = guess - CHANCE * max(abs(guess), 1.0)
        last, lowest = losses[-1][1], min(value for _, value in losses)
        if last >= bar and lowest >= bar:
            yield Warned(
                code="loss-at-chance",
                message=f"{prefix}loss ended at {last:.4g} and was never below {lowest:.4g}, where "
                f"a guess has {guess:.4g}: nothing was learned from it",
            )

    def _of_queue(self, name: str, prefix: str) -> Iterator[Warned]:
        if name in self._early:
            yield Warned(
                code="early-queue",
                message=f"{prefix}{name} was written before the loss, where it should be after the "
                f"yield: what a sample is compared with holds its own key",
            )
        queue = self._queue(name)
        length = queue.shape[-2]
        if length == 0 or self._drawn.get(name, 0) < length:
            return
        rows = _row_hashes(queue)
        groups = list(zip(rows, self._rows[name].to(rows.device), strict=True))
        old = sum(int(torch.isin(now, then).sum()) for now, then in groups) / rows.numel()
        again = 1 - sum(len(now.unique()) for now in rows) / rows.numel()
        if old > OLD:
            yield Warned(
                code="stale-queue",
                message=f"{100 * old:.0f} % of {prefix}{name} are as they were {self._drawn[name]} "
                f"images before the end, where its {length} rows should all be new: samples are "
                f"compared with what an old network made",
            )
        if again > OLD:
            yield Warned(
                code="repeated-queue",
                message=f"{100 * again:.0f} % of the {length} rows of {prefix}{name} are copies of "
                f"others, where all should differ: it is shorter than it says",
            )

    def _of_target(self, name: str, prefix: str) -> Iterator[Warned]:
        if not name or _print(self._trained()) == self._prints[""]:
            return
        before = self._prints[name]
        if before and _print(self.method.get_submodule(name).parameters()) == before:
            yield Warned(
                code="dead-target",
                message=f"{prefix}{name} has the parameters it began with, where it should follow "
                f"what is trained: the rest learned from a network that never did",
            )

    # ---- what they are made from ----

    def _queue(self, name: str) -> Tensor:
        return self.method.get_buffer(name)

    def _marked_at(self, queue: Tensor) -> int:
        """The step at which rows are noted, all of which should be replaced by the end."""
        return self.total - max(self.steps, -(-queue.shape[-2] // self.batch))

    def _trained(self) -> Iterator[nn.Parameter]:
        return (p for p in self.method.parameters() if p.requires_grad)

    # ---- checkpoints ----

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        plain = {
            "untouched": sorted(self.untouched),
            "early": sorted(self._early),
            "prints": self._prints,
            "drawn": self._drawn,
        }
        return self._rows, plain

    def load(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        still = set(plain["untouched"])
        self.untouched = {n: p for n, p in self.method.named_parameters() if n in still}
        self._early, self._prints = set(plain["early"]), dict(plain["prints"])
        self._rows, self._drawn = dict(tensors), dict(plain["drawn"])


def _print(parameters: Iterator[nn.Parameter]) -> list[float]:
    """Two numbers for each parameter, which change when it does."""
    parts = [p.detach().cpu().double() for p in parameters]
    return [float(x) for p in parts for x in (p.sum(), p.square().sum())]


def _row_hashes(queue: Tensor) -> Tensor:
    """Hashes the rows of a queue [..., Q, D], bit for bit: int64 [G, Q]."""
    bits = queue.detach().cpu().double().view(torch.int64)  # [..., Q, D]
    bits = bits.flatten(0, -3) if bits.dim() > 2 else bits[None]  # [G, Q, D]
    generator = torch.Generator().manual_seed(0)
    odd = 2 * torch.randint(2**62, (queue.shape[-1],), generator=generator) + 1
    # the low bits of float32 as float64 are zero, and a product keeps zeros that are low
    return ((bits ^ (bits >> 32)) * odd).sum(-1)
