"""The interfaces that plugins implement, and the types that they are given.

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

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from .errors import UserError
from .events import Event
from .hookspecs import API_VERSION as API_VERSION  # what a plugin declares as SSLBENCH_API

# uint8 [B, 3, H, W] on the device -> float tensor(s) in [0, 1], [B, ...]; masks of patches beside
# them are bool, positions of patches int64
View = Callable[[Tensor], Any]
Pretext = NewType("Pretext", str)  # a hyperparameter that names another method
Weights = NewType("Weights", str)  # a hyperparameter that is the sha256 of weights from outside
Labels = Literal["none", "budget", "all"]

# Types of hyperparameters that state a range; values outside it are refused before anything runs.
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(1)]
Natural = Annotated[int, Ge(0)]
# strengths of colour jitter: brightness, contrast, saturation, hue
Strengths = tuple[NonNegative, NonNegative, NonNegative, NonNegative]


# ---- methods -------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataInfo:
    """What a method is told of the data. It has neither images nor labels."""

    name: str
    size: int  # pixels, side of the training crop
    length: int  # N, images of the pretraining split
    classes: int  # clustering methods use it; others ignore it
    grey: bool = False  # whether the three channels of every image are the same
    clips: int = 0  # sequences that its images are frames of; 0: they are no frames
    domains: int = 1  # 2: some images are of a source whose labels are known, others of a target


class Batch(NamedTuple):
    views: Any  # what the view returned; None when Epoch.main is off
    index: Tensor  # type: ignore[assignment]  # not tuple.index: [B] position in the pretraining split
    label: Tensor  # [B] -1 wherever this method may not see it
    epoch: int
    progress: float  # share of this fit done, [0, 1)
    also: Mapping[str, Batch] = MappingProxyType({})  # one batch of each further stream
    labelled: bool = True  # whether any image here shows its label; known without asking the device


class Guesses(NamedTuple):
    """What a method takes the hidden classes of images to be, for the curves.

    They are mask, the mean of `sure`, and confidence, of each image's first class. Beside them the
    harness, which knows the labels, says how many are right, in curves that the method cannot read.
    """

    index: Tensor  # type: ignore[assignment]  # [B] positions of the images, as in Batch
    shares: Tensor  # [B, K], of classes
    sure: Tensor | None = None  # [B], how much each counts, 0 to 1; None: all alike


class Update(NamedTuple):
    """One optimiser step; `yield loss` is short for `yield Update(loss)`."""

    loss: Tensor
    group: str = "main"  # only this group's parameters get a gradient and a step
    log: Mapping[str, Tensor] = MappingProxyType({})
    guesses: Guesses | None = None


class Stream(NamedTuple):
    """Images drawn beside every main batch; they arrive as `batch.also[name]`."""

    # [M]: positions, reshuffled and repeated as needed; or
    # [N, k]: for each main image, one position is drawn from its row
    pool: Tensor
    batch: int | None = None  # images a step; None: as the main batch; unused for [N, k]
    # images a step as a share of the main batch, one at least: so a ratio survives --batch
    share: float | None = None


@dataclass
class Epoch:
    """The coming pass over the data; a method may change it before it is trained."""

    number: int
    main: bool = True  # False: no main batch is drawn; the epoch keeps its length
    weights: Tensor | None = None  # [N] sampling weights of the main stream
    streams: dict[str, Stream] = field(default_factory=dict)


class Run(Protocol):
    """What a method may call while it fits."""

    def epochs(self, method: Method) -> Iterator[Epoch]:
        """Yields each epoch, then trains it. Called once in a fit, with the method itself."""

    def fit(self, method: Method, name: str) -> None:
        """Trains a private stage declared in `stages`, or loads it where it is finished."""

    def pretrain(self, name: Pretext, into: Backbone | None = None) -> Method:
        """Returns another method on the same data, backbone and seed, trained or loaded.

        It is frozen and in eval mode. Its encoder's weights are copied into `into`.
        """

    def features(self, encoder: Callable[[Tensor], Tensor]) -> Tensor:
        """Applies a callable to the un-augmented pretraining split, in eval mode: [N, D]."""

    def labels(self) -> Tensor:
        """Labels of the pretraining split [N], -1 where hidden."""

    def clips(self) -> Tensor:
        """Which sequence each image is a frame of, int64 [N]; frames of one are neighbours in order.

        ValueError where `DataInfo.clips` is 0.
        """

    def domains(self) -> Tensor:
        """Which domain each image is of, int64 [N]: 0 the source, 1 the target, which is judged.

        ValueError where `DataInfo.domains` is 1.
        """

    def reset(self, module: nn.Module) -> None:
        """Calls `reset_parameters()` throughout the module and drops its optimiser state."""


@dataclass(frozen=True)
class Recipe:
    """How a method is optimised. A method states its paper's; a suite or `--set` overrides it.

    `sslbench show` and docs/methods.md print the comment behind a field.
    """

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
    # of lr, after the warm-up: at share p of the fit arc is cos(acos(lr_end) p), as FixMatch's, and
    # inverse (1 + 10 p) ** -0.75, as DANN's
    schedule: Literal["cosine", "arc", "inverse", "step", "constant"] = "cosine"
    milestones: tuple[float, ...] = (0.6, 0.8)  # shares of the fit at which `step` acts
    gamma: float = 0.1  # by which `step` multiplies
    lr_end: float = 0.0  # share of lr at the end of the cosine or arc
    warmup: float = 0.0  # epochs of linear warm-up from zero
    clip: float | None = None  # largest gradient norm of an update
    clip_each: bool = False  # of each parameter by itself
    per: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # exceptions, by glob
    # over any name a parameter has, or "vectors", which are the biases and norms
    # -> lr (as a factor), momentum, weight_decay, schedule, exempt (true: no decay, no trust ratio)

    added: ClassVar[Mapping[str, Any]] = {"clip_each": False, "decay": "weights"}  # as Method.added


class Backbone(nn.Module, ABC):
    """A network that turns images into features."""

    name: str  # as asked for
    dim: int  # D
    net: nn.Module

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Features [B, D] of RGB images [B, 3, H, W] in [0, 1], which it normalises itself."""

    @abstractmethod
    def maps(self, x: Tensor) -> list[Tensor]:
        """Feature maps from shallow to deep, each [B, C, H, W]."""

    @abstractmethod
    def anew(self) -> Backbone:
        """The same architecture with another initialisation."""

    @abstractmethod
    def with_input(self, front: Callable[[Tensor], Tensor], channels: int) -> Backbone:
        """As `anew`, with front(RGB) -> [B, channels, H, W] in place of normalisation."""

    @abstractmethod
    def pretrained(self, tag: str) -> Backbone:
        """The same architecture with published weights; `tag` as timm's, "" for its default."""

    # What not every network can. A method asks for it in `needs`, by `patch` or by trying.

    patch: int = 0  # pixels, side of the patches that become tokens; 0: it has no tokens
    prefix: int = 0  # P, tokens before those of the T patches, such as the class token

    @torch.no_grad()
    def shapes(self, size: int) -> list[tuple[int, int, int]]:
        """(C, H, W) of each of its maps of images with sides of `size` pixels."""
        training = [m for m in self.modules() if m.training]
        blank = next(self.parameters()).new_zeros(1, 3, size, size)
        maps = self.eval().maps(blank)
        for module in training:
            module.training = True
        return [(m.shape[1], m.shape[2], m.shape[3]) for m in maps]

    def upto(self, level: int) -> Backbone:
        """The same network without what follows maps()[level], which it averages to features.

        For losses on that map: what is judged has then been trained. UserError where it cannot be
        cut.
        """
        raise UserError(f"{self.name} cannot be cut after one of its maps")

    def narrower(self) -> Backbone:
        """As `anew`, at half the width. UserError where it has none."""
        raise UserError(f"{self.name} has no twin of half its width")

    def another(self, name: str) -> Backbone:
        """The network of another name, its bracket included, for images of the same size.

        For a student or a teacher of another architecture. UserError where there is none.
        """
        raise UserError(f"{self.name} knows no other networks; a network of timm does")

    def tokens(self, x: Tensor, mask: Tensor | None = None, blank: Tensor | None = None) -> Tensor:
        """Tokens [B, P + T, D] of images, patches row by row, with their positions.

        mask: bool [B, T]; patches where it is true become `blank` ([D] or [1, D]), at the same
            position.
        UserError where `patch` is 0.
        """
        raise UserError(f"{self.name} has no tokens; a ViT, such as vit_tiny_patch16_224, does")

    def attend(self, tokens: Tensor) -> Tensor:
        """What its blocks make of any of its tokens: [B, n, D] -> [B, n, D], with the last norm."""
        raise UserError(f"{self.name} has no tokens; a ViT, such as vit_tiny_patch16_224, does")

    def pool(self, attended: Tensor) -> Tensor:
        """The features [B, D] of all its attended tokens: what `forward` gives of an image."""
        raise UserError(f"{self.name} has no tokens; a ViT, such as vit_tiny_patch16_224, does")

    def fix_positions(self) -> None:
        """Makes the positions of its patches fixed sines and cosines of row and column."""
        raise UserError(
            f"{self.name} learns no positions; a ViT, such as vit_tiny_patch16_224, does"
        )


class Method(nn.Module, ABC):
    """A way to pretrain a backbone. The first line of the docstring is what `list` shows."""

    recipe: ClassVar[Recipe] = Recipe()
    version: ClassVar[int] = 1  # raise it when the numbers can change; part of the identity
    labels: ClassVar[Labels] = "none"  # stages and pretexts may see no more than their method
    stages: ClassVar[Mapping[str, type[Method]]] = {}  # private stages by name
    # hyperparameters added in a later release -> the value that means the old behaviour: there
    # they are left out of the identity, so that older cells keep their ids
    added: ClassVar[Mapping[str, Any]] = {}
    least: ClassVar[int] = 1  # images in the smallest batch that its loss and norms can take
    # buffers [..., Q, D] of past features: each is written only after the yield, B rows a step,
    # so that Q is a multiple of B and every row is replaced in time
    queues: ClassVar[tuple[str, ...]] = ()
    targets: ClassVar[tuple[str, ...]] = ()  # submodules that follow others, without a gradient
    # why a step must read a number of the device before it can go on, where it must: a GPU idles
    waits: ClassVar[str] = ""
    # a pretext hyperparameter -> what that method must have: "predict", or "backbone", which is
    # an encoder whose weights fit this method's
    asks: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    @classmethod
    def needs(cls, backbone: Backbone, data: DataInfo) -> str | None:
        """Says why it cannot use this backbone or data; None when it can.

        The cell is then skipped, with that sentence.
        """
        return None

    # def __init__(self, backbone, data, *, <hyperparameters with defaults>): ...

    def views(self) -> View | Mapping[str, View]:
        """Returns the augmentation, by default `self.view`.

        A mapping gives each stream its own; streams that it lacks take "main".
        """
        view: View | None = getattr(self, "view", None)
        if view is None:
            lacking = f"{type(self).__name__} does not say what it sees: "
            raise ValueError(lacking + "set self.view in __init__, or write views()")
        return view

    @abstractmethod
    def step(self, batch: Batch) -> Generator[Tensor | Update, bool, None]:
        """Yields each loss of a batch, and goes on after the optimiser step that it caused."""

    def fit(self, run: Run) -> None:
        """Walks through the training, epoch by epoch; override it to act between epochs."""
        for _ in run.epochs(self):
            pass

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """Parameters by the name of the update that trains them."""
        return {"main": self.parameters()}

    def encoder(self) -> nn.Module:
        """The network that is judged: RGB in [0, 1], [B, 3, H, W] -> [B, D]."""
        return self.backbone  # type: ignore[return-value]  # every method names it so

    def predict(self, x: Tensor) -> Tensor | None:
        """Logits [B, K] over the data's classes, for methods that predict them."""
        return None

    def clusters(self, x: Tensor) -> Tensor | None:
        """Logits [B, K] over its clusters, such as prototypes or those of k-means."""
        return self.predict(x)

    def embed(self, x: Tensor) -> Tensor | None:
        """Embeddings [B, D] that the loss compares by direction; they collapse before features do."""
        return None

    def uniform(self) -> float | None:
        """The loss of a blind guess, such as log K: a fit that ends there has learned nothing."""
        return None

    def reconstruct(self, x: Tensor) -> Tensor | None:
        """Rebuilt images [B, 3, H, W], for methods that rebuild them."""
        return None


# (backbone, data, *, <hyperparameters>) -> an encoder that is judged and never trained
Encoder = Callable[..., nn.Module]


# ---- data ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Card:
    """Facts about a dataset for the reader of a table."""

    summary: str
    classes: int | None  # None: it depends on the folder
    train: int | None  # images
    test: int | None
    licence: str
    citation: str
    source: str  # where the bytes come from
    unlabelled: int | None = None


class Split(NamedTuple):
    images: Tensor  # uint8 [N, 3, H, W], RGB, in memory or memory-mapped
    labels: Tensor  # int64 [N], -1 where there is none
    # int64 [N]: which sequence each is a frame of, in order; None: they are no frames
    clips: Tensor | None = None
    # int64 [N]: 0 of the source, 1 of the target, of whose labels a budget is; None: of one domain
    domains: Tensor | None = None


@dataclass(frozen=True)
class Images:
    """The splits of a loaded dataset, its classes and its fingerprint."""

    train: Split
    test: Split
    classes: tuple[str, ...]
    fingerprint: str  # sha256 over the bytes that matter: images, labels, and how they were made
    unlabelled: Split | None = None
    skipped: tuple[str, ...] = ()  # broken files left out with --skip-broken
    notes: tuple[str, ...] = ()  # what whoever reads a number of it must know; no paths


@dataclass(frozen=True)
class Place:
    """Where a dataset may look for its files, and whether it may download them."""

    roots: tuple[Path, ...] = ()  # folders to look in, first match wins
    download: bool = False
    skip_broken: bool = False
    scratch: Path | None = None  # where arrays too large for memory are written


class Dataset(ABC):
    """Images with labels. The bracket of its name sets keyword-only constructor arguments."""

    card: ClassVar[Card]
    version: ClassVar[int] = 1

    @abstractmethod
    def load(self, place: Place) -> Images:
        """Loads every split.

        MissingData says which file is missing, where it was looked for, and how to get it.
        """

    def corrupted(self, place: Place, labels: Tensor) -> Corrupted | None:
        """The published corruptions of its test split; None where nobody published any.

        Their labels must equal `labels` [N], in order. MissingData as for `load`.
        """
        return None


class Corrupted(ABC):
    """Corrupted copies of a test split, by corruption and severity."""

    name: str  # of the set: cifar10-c
    fingerprint: str  # sha256 over the bytes that matter

    @abstractmethod
    def block(self, corruption: str, severity: int, rows: Tensor | None = None) -> Tensor:
        """Corrupted uint8 [M, 3, H, W] of these rows of the test split, or of all.

        Severity goes from 1 to 5.
        """


# ---- evaluators ----------------------------------------------------------------------------


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


# ---- trackers ------------------------------------------------------------------------------


@dataclass(frozen=True)
class CellInfo:
    """What a tracker is told of a cell, as plain data."""

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
    """What a tracker is told of a run before its first event, as plain data."""

    suite: str  # id
    store: Path
    version: str  # of sslbench


class Tracker(ABC):
    """Shows a running run elsewhere. The bracket of its name sets keyword-only parameters.

    It is made before anything runs: errors.UserError, such as for a missing library, ends the
    command. Its methods are called in order, in a thread of their own beside the run. A tracker
    that raises there is closed and left out, and the run goes on.
    """

    def start(self, run: RunInfo) -> None:
        """Called once, before the first event."""
        return

    @abstractmethod
    def __call__(self, event: Event, cell: CellInfo) -> None:
        """Called for each event of `sslbench.events`, with its cell. Cells interleave."""

    def close(self) -> None:
        """Called once, however the run ends. Cells without a CellDone were interrupted."""
        return
