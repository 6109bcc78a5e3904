"""Methods and backbones, and what they are lent while they learn.

Letters in shape comments: B batch  N images  D features  K clusters or prototypes  Q queue
C channels  H W sides  T tokens
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..errors import UserError
from .types import Labels, Pretext, View


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
