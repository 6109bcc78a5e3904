"""Evaluators, and what they are shown of data and of the encoder that they judge.

Letters in shape comments: N images  D features  K classes  C channels  H W sides
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from torch import Tensor, nn

from .data import Corrupted
from .types import Labels


@dataclass(frozen=True)
class Metric:
    name: str
    higher_is_better: bool = True
    summary: str = ""
    unit: str = ""  # "" for a fraction; else FLOPs, ms ..., or "1" for a plain number


class Value(NamedTuple):
    value: float  # a fraction, or in the unit of its metric, at full precision
    n: int | None = None  # items it was computed on
    stderr: float | None = None  # over items, where one exists
    split: str = "test"


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a judge that classifies said of each labelled image of test, in their order."""

    predicted: Tensor  # int64 [N], classes
    truth: Tensor  # int64 [N], classes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Predictions) and all(
            mine.equal(theirs)
            for mine, theirs in ((self.predicted, other.predicted), (self.truth, other.truth))
        )

    __hash__ = None  # type: ignore[assignment]


class Judgement(NamedTuple):
    metrics: Mapping[str, Value]
    chosen: Mapping[str, Any] = MappingProxyType({})  # what was chosen on the held-out tenth
    warnings: tuple[str, ...] = ()
    sources: Mapping[str, str] = MappingProxyType({})  # other data that it saw -> fingerprint
    predictions: Predictions | None = None  # behind the metric that ranks
    sheet: Tensor | None = None  # uint8 [3, H, W], for people to look at; kept as a PNG


class Judged(Protocol):
    """The data as an evaluator sees it."""

    @property
    def name(self) -> str:
        """The dataset's canonical name."""

    @property
    def fingerprint(self) -> str:
        """sha256 over the dataset's bytes."""

    @property
    def classes(self) -> int: ...

    @property
    def held_out(self) -> Tensor:
        """bool [N] over train: marks the tenth on which anything is chosen."""

    def labels(self, split: Literal["train", "test"]) -> Tensor:
        """Labels of a split, int64 [N]."""

    def images(self, split: Literal["train", "test"]) -> Tensor:
        """Images of a split, uint8 [N, 3, H, W]."""

    def shown(self, labels: int | str, seed: int | None = None) -> Tensor:
        """The rows of train whose labels a method with this budget and seed was shown: int64 [M].

        labels: 40, "4/class", "10%" or "all"; of two domains, those of the target, beside which all
            of the source were shown. Unsuited where the data cannot give them.
        seed: None: that of the cell that is judged.
        """

    def clips(self, split: Literal["train", "test"]) -> Tensor | None:
        """Which sequence each image of a split is a frame of, int64 [N]; None: of none."""

    def corrupted(self, which: str) -> Corrupted:
        """The corrupted test split: "official" as published, "regen" as rendered here.

        Any other name is that of a folder in the official layout. Unsuited where nothing is
        published; MissingData where files are missing or damaged.
        """


class Head(Protocol):
    """A fitted classifier of features."""

    def __call__(self, features: Tensor, /) -> Tensor:
        """Logits [N, C] of features [N, D]; gradients flow through it."""


class Subject(Protocol):
    """The frozen encoder as an evaluator sees it."""

    @property
    def dim(self) -> int:
        """The width D of the features."""

    @property
    def device(self) -> Any:
        """The torch.device for heavy computation."""

    def features(self, split: Literal["train", "test"]) -> Tensor:
        """Features of a split, float32 [N, D]; computed once for all evaluators of a cell."""

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        """Features of other uint8 images, batch by batch."""

    def maps(self, split: Literal["train", "test"]) -> list[Tensor]:
        """Feature maps pooled to [N, C], from shallow to deep."""

    def dense(self, images: Tensor, side: float) -> Iterator[Tensor]:
        """Feature maps [n, C, H, W] of other uint8 images, batch by batch, on `device`.

        Of the encoder's maps the deepest with sides of at least `side` positions or, where all are
        smaller, of the largest. Unsuited where it has none.
        """

    @property
    def told(self) -> Labels:
        """Which labels its method saw: of none, what it predicts are clusters, not classes."""

    def predict(self, split: Literal["train", "test"]) -> Tensor | None:
        """Logits [N, K] of the method's own classifier; None where it has none."""

    def reconstruct(self, split: Literal["train", "test"]) -> Tensor | None:
        """Images [N, 3, H, W] as the method rebuilds them; None where it does not."""

    def copy(self) -> nn.Module:
        """A trainable copy of the encoder, in eval mode."""

    def probe(self, name: str, *, nine_tenths: bool = False) -> Head:
        """The head that another evaluator fits on train, or on the nine tenths not held out.

        The caller must list that evaluator in `uses`. It is fitted once for all that borrow it.
        """

    def elsewhere(self, dataset: str) -> tuple[Subject, Judged]:
        """The same encoder on another dataset, by name."""


class Evaluator(ABC):
    """Judges a frozen encoder under a versioned protocol. Its parameters are keyword-only."""

    metrics: ClassVar[tuple[Metric, ...]]  # the first one ranks
    version: ClassVar[int] = 1  # raise it when the numbers can change; part of the protocol's id
    # evaluators whose probes it borrows; its protocol's name contains theirs
    uses: ClassVar[tuple[str, ...]] = ()
    added: ClassVar[Mapping[str, Any]] = {}  # as Method.added

    @abstractmethod
    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        """Judges the encoder. It chooses on `data.held_out` only, and reads test once.

        Raises errors.Unsuited where this data or encoder gives it nothing to measure.
        """

    def extra(self) -> Mapping[str, Any]:
        """Anything else that decides its numbers, such as the version of what it renders."""
        return {}

    def budget(self) -> int | str:
        """The labels that it judges within: 40, 4/class, 10%; "" for all. Known before anything runs."""
        return ""

    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets it takes by `elsewhere`; they are opened before anything runs."""
        return ()

    def probe(self, subject: Subject, data: Judged, *, nine_tenths: bool = False) -> Head:
        """Fits the head that other evaluators borrow."""
        raise ValueError(f"{type(self).__name__} has no probe to lend")
