"""Views in two phases: numbers are drawn on the host, then they are applied to the images.

On a CPU a view acts on the chosen images alone, which is faster there. Elsewhere all images pass, in
fixed shapes: those that were not chosen get numbers that change nothing. The numbers of a whole
chain cross to the device in one copy, and nothing waits for it.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TypeGuard

import torch
from torch import Tensor

from .batch import check

Drawn = tuple[Tensor, ...]  # what a view has drawn, on the host
Side = tuple[int, int]  # height and width of the images; pixels
Layout = tuple[tuple[torch.Size, ...], ...]  # for each view, the shapes of its numbers


class TwoPhase(ABC):
    """A view that draws first, in the same way for every device, and then acts."""

    @abstractmethod
    def draw(self, count: int, side: Side) -> Drawn:
        """Draws the numbers of so many images, on the host, from torch's global generator."""

    @abstractmethod
    def on_host(self, images: Tensor, drawn: Drawn) -> Tensor:
        """Applies what was drawn on a CPU."""

    @abstractmethod
    def numbers(self, drawn: Drawn, count: int, side: Side) -> list[Tensor]:
        """Turns what was drawn into float32 tensors of shapes that it has no part in."""

    @abstractmethod
    def on_device(self, images: Tensor, numbers: Sequence[Tensor]) -> Tensor:
        """Applies such numbers to all images, in fixed shapes and into new memory.

        Images may be uint8. Values may leave [0, 1] by rounding errors.
        """

    def side_after(self, side: Side) -> Side:
        """The side of the result, for images of this side."""
        return side

    def __call__(self, images: Tensor) -> Tensor:
        return apply((self,), images)


def is_two_phase(view: object) -> TypeGuard[TwoPhase]:
    """Whether the two phases are all that a view does; a subclass may do more in its call."""
    return isinstance(view, TwoPhase) and type(view).__call__ is TwoPhase.__call__


# (views, shapes of their numbers, images, all numbers) -> images
Phase = Callable[[tuple[TwoPhase, ...], Layout, Tensor, Tensor], Tensor]


def act(views: tuple[TwoPhase, ...], layout: Layout, images: Tensor, packed: Tensor) -> Tensor:
    """The second phase of several views, on any device but in the fixed shapes of a GPU."""
    parts = iter(torch.split(packed, [shape.numel() for shapes in layout for shape in shapes]))
    for view, shapes in zip(views, layout, strict=True):
        images = view.on_device(images, [next(parts).view(shape) for shape in shapes])
    return images.clamp(0, 1)


def apply(views: tuple[TwoPhase, ...], images: Tensor, phase: Phase = act) -> Tensor:
    """Draws for the views in turn and applies them."""
    check(images)
    count, side = len(images), (images.shape[2], images.shape[3])
    if images.device.type == "cpu":
        for view in views:
            images = view.on_host(images, view.draw(count, side))
            side = view.side_after(side)
        return images
    numbers = drawn(views, count, side)
    layout = tuple(tuple(each.shape for each in own) for own in numbers)
    with exact(images.device):
        return phase(views, layout, images, lent(numbers, images.device))


def drawn(views: Sequence[TwoPhase], count: int, side: Side) -> list[list[Tensor]]:
    """Draws for the views in turn: the numbers of each, on the host."""
    numbers = []
    for view in views:
        numbers.append(view.numbers(view.draw(count, side), count, side))
        side = view.side_after(side)
    return numbers


def lent(numbers: Sequence[Sequence[Tensor]], device: torch.device) -> Tensor:
    """Copies all numbers to the device at once, and does not wait for that.

    The buffer is new each time: torch does not reuse pinned memory before its copy is done.
    """
    flat = [each.reshape(-1) for own in numbers for each in own]
    pinned = device.type == "cuda"
    buffer = torch.empty(sum(each.numel() for each in flat), pin_memory=pinned)
    if flat:
        torch.cat(flat, out=buffer)
    return buffer.to(device, non_blocking=True)


@contextlib.contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Within the block products are of float32, whatever autocast and TF32 are for the networks.

    bfloat16 keeps eight bits of a colour and TF32 eleven; both are seen in pictures.
    """
    with contextlib.ExitStack() as stack:
        if torch.amp.is_autocast_available(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        if device.type == "cuda":
            stack.enter_context(_without_tf32())
        yield


@contextlib.contextmanager
def _without_tf32() -> Iterator[None]:
    matmul = torch.backends.cuda.matmul
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # it was set by the newer of torch's two switches, which is kept below
        before = "highest"
    newer = getattr(matmul, "fp32_precision", None)  # torch 2.9
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        if newer is not None:
            matmul.fp32_precision = newer


def mask(rows: Tensor, count: int) -> Tensor:
    """1 for the images at these positions and 0 for the others: [count], on the host."""
    return torch.zeros(count).index_fill_(0, rows, 1)
