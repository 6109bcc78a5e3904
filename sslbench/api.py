"""The contract: everything a plugin author needs to read.

Letters in shape comments: B batch  N images  D features  K clusters or prototypes  Q queue
C channels  H W sides  T tokens
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, NewType, Protocol

from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from .events import Event
from .hookspecs import API_VERSION as API_VERSION  # what a plugin declares as SSLBENCH_API

View = Callable[[Tensor], Any]  # uint8 [B, 3, H, W] on the device -> float tensor(s) in [0, 1]
Pretext = NewType("Pretext", str)  # a hyperparameter that names another method
Weights = NewType("Weights", str)  # one that is the sha256 of weights taken in from outside
Labels = Literal["none", "budget", "all"]

# Types of hyperparameters that say their range; what lies outside is refused before anything runs.
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(1)]
Natural = Annotated[int, Ge(0)]
Strengths = tuple[NonNegative, NonNegative, NonNegative, NonNegative]  # of colour jitter:
# brightness, contrast, saturation, hue


# ---- methods -------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataInfo:
    """What a method may know of the data: never the images, never the labels."""

    name: str
    size: int  # pixels, side of the training crop
    length: int  # N, images of the pretraining split
    classes: int  # asked for by clusterers; others ignore it


class Batch(NamedTuple):
    views: Any  # what the view returned; None when Epoch.main is off
    index: Tensor  # type: ignore[assignment]  # not tuple.index: [B] position in the pretraining split
    label: Tensor  # [B] -1 wherever this method may not see it
    epoch: int
    progress: float  # share of this fit done, [0, 1)
    also: Mapping[str, Batch] = MappingProxyType({})  # one batch of each further stream


class Update(NamedTuple):
    """One optimiser step; `yield loss` is short for `yield Update(loss)`."""

    loss: Tensor
    group: str = "main"  # only this group's parameters get a gradient and a step
    log: Mapping[str, Tensor] = MappingProxyType({})


class Stream(NamedTuple):
    """Images drawn beside every main batch; they arrive as `batch.also[name]`."""

    pool: Tensor  # [M] positions, reshuffled and repeated as needed; or
    # [N, k]: for each main image one of its row
    batch: int | None = None  # images a step; None: as the main batch; of no meaning for [N, k]


@dataclass
class Epoch:
    """One coming pass over the data; a method may still bend it."""

    number: int
    main: bool = True  # False: no main batch is drawn; the epoch keeps its length
    weights: Tensor | None = None  # [N] sampling weights of the main stream
    streams: dict[str, Stream] = field(default_factory=dict)


class Run(Protocol):
    """What the harness lends a method while it fits."""

    def epochs(self, method: Method) -> Iterator[Epoch]:
        """Yields each epoch just before training it; once in a fit, on the method itself."""

    def fit(self, method: Method, name: str) -> None:
        """Trains a private stage declared in `stages`; a finished one is loaded instead."""

    def pretrain(self, name: Pretext, into: Backbone | None = None) -> Method:
        """That method's cell (same data, backbone, seed), trained or loaded; frozen, in eval mode.

        Its encoder's weights are copied into `into`.
        """

    def features(self, encoder: Callable[[Tensor], Tensor]) -> Tensor:
        """[N, D] of any callable on the pretraining split, un-augmented, in eval mode."""

    def labels(self) -> Tensor:
        """[N] of the pretraining split, -1 where hidden."""

    def reset(self, module: nn.Module) -> None:
        """`reset_parameters()` throughout; the optimiser forgets them."""


@dataclass(frozen=True)
class Recipe:
    """How a method is optimised. A method's own are its paper's; a suite overrides them in sight."""

    epochs: int = 100  # passes over the data
    batch: int = 256  # images a step
    optimizer: str = "sgd"  # any name of timm.optim: sgd, adamw, lars ...
    lr: float = 0.03  # at `batch`, or at batch 256 with a scaling rule
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"  # lr * (batch / 256) ** (0, 1, 1/2)
    momentum: float = 0.9  # SGD's and LARS's
    betas: tuple[float, float] = (0.9, 0.999)  # the Adam family's
    nesterov: bool = False  # SGD's
    weight_decay: float = 1e-4  # not on biases and norms, unless `decay` is all
    weight_decay_end: float | None = None  # where a cosine takes it; None: constant
    decay: Literal["weights", "all"] = "weights"  # all: biases and norms too; LARS scales the same
    schedule: Literal["cosine", "step", "constant"] = "cosine"  # of lr, after the warm-up
    milestones: tuple[float, ...] = (0.6, 0.8)  # shares of the fit at which `step` acts
    gamma: float = 0.1  # by which `step` multiplies
    lr_end: float = 0.0  # share of lr at the end of the cosine
    warmup: float = 0.0  # epochs of linear warm-up from zero
    clip: float | None = None  # largest gradient norm of an update
    clip_each: bool = False  # of each parameter by itself
    per: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # exceptions, by glob
    # over any name a parameter has, or "vectors", which are the biases and norms
    # -> lr (as a factor), momentum, weight_decay, schedule

    added: ClassVar[Mapping[str, Any]] = {"clip_each": False, "decay": "weights"}  # as Method.added


class Backbone(nn.Module, ABC):
    """Images to features."""

    name: str  # as asked for
    dim: int  # D
    net: nn.Module

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """RGB in [0, 1], [B, 3, H, W] -> [B, D]; normalises inside."""

    @abstractmethod
    def maps(self, x: Tensor) -> list[Tensor]:
        """Feature maps from shallow to deep, each [B, C, H, W]."""

    @abstractmethod
    def anew(self) -> Backbone:
        """The same architecture with another initialisation."""

    @abstractmethod
    def with_input(self, front: Callable[[Tensor], Tensor], channels: int) -> Backbone:
        """`anew`, fed by front(RGB) -> [B, channels, H, W] in place of normalisation."""

    @abstractmethod
    def pretrained(self, tag: str) -> Backbone:
        """The same architecture with published weights; `tag` as timm's, "" for its default."""


class Method(nn.Module, ABC):
    """A way to pretrain a backbone. The first line of the docstring is what `list` shows."""

    recipe: ClassVar[Recipe] = Recipe()
    version: ClassVar[int] = 1  # raised when the numbers can change; part of the identity
    labels: ClassVar[Labels] = "none"  # stages and pretexts may see no more than their method
    stages: ClassVar[Mapping[str, type[Method]]] = {}  # private stages by name
    added: ClassVar[
        Mapping[str, Any]
    ] = {}  # a later hyperparameter -> the value at which it is left out of the identity
    least: ClassVar[int] = 1  # images in the smallest batch that its loss and norms can take
    queues: ClassVar[tuple[str, ...]] = ()  # buffers [..., Q, D] of past features: each is written
    # only after the yield, B rows a step, so that Q is a multiple of B and no row grows old
    targets: ClassVar[tuple[str, ...]] = ()  # submodules that follow others, without a gradient
    asks: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # a pretext hyperparameter -> what it must
    # have: "backbone", an encoder whose weights fit this method's, and "predict"

    @classmethod
    def needs(cls, backbone: Backbone, data: DataInfo) -> str | None:
        """A sentence when these cannot serve; the cell is then skipped with it."""
        return None

    # def __init__(self, backbone, data, *, <hyperparameters with defaults>): ...

    def views(self) -> View | Mapping[str, View]:
        """What it sees, `self.view` by default; a mapping gives streams their own ("main" otherwise)."""
        view: View | None = getattr(self, "view", None)
        if view is None:
            lacking = f"{type(self).__name__} does not say what it sees: "
            raise NotImplementedError(lacking + "set self.view in __init__, or write views()")
        return view

    @abstractmethod
    def step(self, batch: Batch) -> Generator[Tensor | Update, bool, None]:
        """How it moves: yields each loss; goes on after that optimiser step."""

    def fit(self, run: Run) -> None:
        """When it moves."""
        for _ in run.epochs(self):
            pass

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """Who moves on which loss."""
        return {"main": self.parameters()}

    def encoder(self) -> nn.Module:
        """What is judged: RGB in [0, 1], [B, 3, H, W] -> [B, D]."""
        return self.backbone  # type: ignore[return-value]  # every method names it so

    def predict(self, x: Tensor) -> Tensor | None:
        """Logits [B, K] over the data's classes, for methods that end in some."""
        return None

    def clusters(self, x: Tensor) -> Tensor | None:
        """Logits [B, K] over whatever it sorts images into: prototypes, k-means' names."""
        return self.predict(x)

    def embed(self, x: Tensor) -> Tensor | None:
        """[B, D] that its loss compares by direction: what collapses before the features do."""
        return None

    def uniform(self) -> float | None:
        """The loss of a guess, such as log K: where a fit ends there, nothing was learned."""
        return None

    def reconstruct(self, x: Tensor) -> Tensor | None:
        """[B, 3, H, W], for methods that rebuild the image."""
        return None


Encoder = Callable[..., nn.Module]  # (backbone, data, *, <hyperparameters>): judged, never trained


# ---- data ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Card:
    """What a reader of a table must know of a dataset."""

    summary: str
    classes: int | None  # None: the folder says
    train: int | None  # images
    test: int | None
    licence: str
    citation: str
    source: str  # where the bytes come from
    unlabelled: int | None = None


class Split(NamedTuple):
    images: Tensor  # uint8 [N, 3, H, W], RGB, in memory or memory-mapped
    labels: Tensor  # int64 [N], -1 where there is none


@dataclass(frozen=True)
class Images:
    """What a dataset loads."""

    train: Split
    test: Split
    classes: tuple[str, ...]
    fingerprint: str  # sha256 over the bytes that matter: images, labels, and how they were made
    unlabelled: Split | None = None
    skipped: tuple[str, ...] = ()  # broken files left out with --skip-broken


@dataclass(frozen=True)
class Place:
    """Where a dataset may look, and what it may do."""

    roots: tuple[Path, ...] = ()  # folders to look in, first match wins
    download: bool = False
    skip_broken: bool = False
    scratch: Path | None = None  # where arrays too large for memory are laid down


class Dataset(ABC):
    """Images with labels. Keyword-only constructor arguments are what its name's bracket may set."""

    card: ClassVar[Card]
    version: ClassVar[int] = 1

    @abstractmethod
    def load(self, place: Place) -> Images:
        """Every split. MissingData says which file, where it was looked for, how to get it."""

    def corrupted(self, place: Place, labels: Tensor) -> Corrupted | None:
        """The published corruptions of its test split, whose `labels` [N] it must have in order.

        None where nobody published any. MissingData as for `load`.
        """
        return None


class Corrupted(ABC):
    """A test split under common corruptions."""

    name: str  # of the set: cifar10-c
    fingerprint: str  # sha256 over the bytes that matter

    @abstractmethod
    def block(self, corruption: str, severity: int, rows: Tensor | None = None) -> Tensor:
        """uint8 [M, 3, H, W] of those rows of the test split, or of all; severity from 1 to 5."""


# ---- judges --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metric:
    name: str
    higher_is_better: bool = True
    summary: str = ""
    unit: str = ""  # of a number that is not a fraction: FLOPs, ms ...; "1" where it has none


class Value(NamedTuple):
    value: float  # a fraction, or in the unit of its metric, at full precision
    n: int | None = None  # items it was computed on
    stderr: float | None = None  # over items, where one exists
    split: str = "test"


class Judgement(NamedTuple):
    metrics: Mapping[str, Value]
    chosen: Mapping[str, Any] = MappingProxyType({})  # what was chosen on held-out train
    warnings: tuple[str, ...] = ()
    sources: Mapping[str, str] = MappingProxyType({})  # other data it saw -> fingerprint


class Judged(Protocol):
    """The data as a judge sees it."""

    @property
    def name(self) -> str:
        """Of the dataset, canonical."""

    @property
    def fingerprint(self) -> str:
        """sha256 over its bytes."""

    @property
    def classes(self) -> int: ...

    @property
    def held_out(self) -> Tensor:
        """bool [N] of train: the tenth on which anything is chosen."""

    def labels(self, split: Literal["train", "test"]) -> Tensor:
        """int64 [N]."""

    def images(self, split: Literal["train", "test"]) -> Tensor:
        """uint8 [N, 3, H, W]."""

    def corrupted(self, which: str) -> Corrupted:
        """The test split corrupted: "official", as published; "regen", rendered here; or by the
        name of a folder in the official layout.

        Unsuited where nothing is published; MissingData where files are not there or not whole.
        """


class Head(Protocol):
    """A fitted classifier of features."""

    def __call__(self, features: Tensor, /) -> Tensor:
        """[N, D] -> logits [N, C]; a gradient passes."""


class Subject(Protocol):
    """The frozen encoder as a judge sees it."""

    @property
    def dim(self) -> int:
        """D."""

    @property
    def device(self) -> Any:
        """The torch.device on which heavy sums may run."""

    def features(self, split: Literal["train", "test"]) -> Tensor:
        """float32 [N, D], computed once per cell and shared by all judges."""

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        """Features of other uint8 images, batch by batch."""

    def maps(self, split: Literal["train", "test"]) -> list[Tensor]:
        """Feature maps pooled to [N, C], shallow to deep."""

    def predict(self, split: Literal["train", "test"]) -> Tensor | None:
        """[N, K] logits of the method's own, or None."""

    def reconstruct(self, split: Literal["train", "test"]) -> Tensor | None:
        """float [N, 3, H, W] or None."""

    def copy(self) -> nn.Module:
        """A trainable copy of the encoder, in eval mode."""

    def probe(self, name: str, *, nine_tenths: bool = False) -> Head:
        """What that evaluator, one of the judge's `uses`, fits on train, or on all of train that
        is not held out; fitted once and shared by all judges."""

    def elsewhere(self, dataset: str) -> tuple[Subject, Judged]:
        """The same encoder on another dataset, by name."""


class Evaluator(ABC):
    """Judges a frozen encoder under a versioned protocol; keyword-only parameters."""

    metrics: ClassVar[tuple[Metric, ...]]  # the first one ranks
    version: ClassVar[int] = 1  # raised when the numbers can change; part of the protocol's id
    uses: ClassVar[tuple[str, ...]] = ()  # evaluators whose probe it borrows; their protocols
    # stand inside its own
    added: ClassVar[Mapping[str, Any]] = {}  # as Method.added

    @abstractmethod
    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        """Test is read once; whatever is chosen is chosen on `data.held_out`.

        Raises errors.Unsuited where it can say nothing of such data or such an encoder.
        """

    def extra(self) -> Mapping[str, Any]:
        """What else decides its numbers and can change, such as a version of what it renders."""
        return {}

    def datasets(self) -> tuple[str, ...]:
        """Those it asks for by `elsewhere`: opened, and so checked, before anything runs."""
        return ()

    def probe(self, subject: Subject, data: Judged, *, nine_tenths: bool = False) -> Head:
        """The head of this protocol, for judges that borrow it."""
        raise ValueError(f"{type(self).__name__} has no probe to lend")


# ---- trackers ------------------------------------------------------------------------------


@dataclass(frozen=True)
class CellInfo:
    """What a tracker knows of a cell: plain data."""

    id: str
    title: str  # as the terminal shows it
    method: str
    backbone: str
    dataset: str
    seed: int
    identity: Mapping[str, Any]  # exactly what is meant to change the number
    hyperparameters: Mapping[str, Any]  # resolved
    recipe: Mapping[str, Any]  # resolved; empty where nothing is trained


@dataclass(frozen=True)
class RunInfo:
    """What a tracker knows of a run before its first event: plain data."""

    suite: str  # id
    store: Path
    version: str  # of sslbench


class Tracker(ABC):
    """Shows a run elsewhere while it goes on. Keyword-only parameters, as in its name's bracket.

    It is made before anything runs: errors.UserError, such as for a library that is not there, ends
    the command. All else happens in a thread of its own beside the run, in order; a tracker that
    raises there is closed and left out, and the run goes on.
    """

    def start(self, run: RunInfo) -> None:
        """Once, before the first event."""
        return

    @abstractmethod
    def __call__(self, event: Event, cell: CellInfo) -> None:
        """One of `sslbench.events`, and the cell it is of. Cells interleave."""

    def close(self) -> None:
        """Once, however the run ends; cells that saw no CellDone were broken off."""
        return
