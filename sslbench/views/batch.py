"""Tools for batches of images: converts them, draws numbers for them, and acts on some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# All numbers are drawn on the CPU, from torch's global generator: views are the same on a GPU, and
# nothing has to wait for the device to know how many images were chosen.


def uniform(count: int, low: float, high: float) -> Tensor:
    """Draws a number for each image, on the host: [count]."""
    return torch.rand(count).mul_(high - low).add_(low)


def integers(below: Tensor) -> Tensor:
    """Draws a whole number in [0, below) for each entry, on the host; float32."""
    return torch.rand(below.shape).mul_(below).floor_()


def signs(count: int) -> Tensor:
    """Draws -1 or 1 for each image, on the host: [count]."""
    return torch.randint(0, 2, (count,)).mul_(2).sub_(1).float()


def choose(count: int, p: float) -> Tensor:
    """Chooses each image with probability `p`; their positions, on the host."""
    return (torch.rand(count) < p).nonzero().squeeze(1)


def lend(values: Tensor, images: Tensor) -> Tensor:
    """Copies numbers to the device of the images, without waiting for it."""
    return values.to(images.device, non_blocking=True)


def column(values: Tensor | float, images: Tensor) -> Tensor:
    """Shapes one number for each image, [B], or a scalar, to broadcast with [B, C, H, W]."""
    values = torch.as_tensor(values, dtype=torch.float32)
    return lend(values, images).reshape(-1, 1, 1, 1)


def to_float(images: Tensor) -> Tensor:
    """Converts uint8 [B, 3, H, W] to float32 in [0, 1]; float images pass unchanged.

    Raises ValueError where it is not a batch of RGB images.
    """
    check(images)
    if images.dtype != torch.uint8:
        return images.float()
    # the same numbers; on a CPU two passes are faster
    return images.float().div_(255) if images.device.type == "cpu" else torch.div(images, 255)


def to_bytes(images: Tensor) -> Tensor:
    """Rounds float images in [0, 1] to uint8; uint8 images pass unchanged."""
    check(images)
    if images.dtype == torch.uint8:
        return images
    return images.mul(255).round_().clamp_(0, 255).to(torch.uint8)


def check(images: Tensor) -> None:
    """Raises ValueError where this is not a batch of RGB images."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"a view takes images [B, 3, H, W], got {list(images.shape)}; "
            "repeat a grey channel three times, and give one image a batch of its own"
        )
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(f"a view takes uint8, or floats in [0, 1], got {images.dtype}")


def check_share(p: float) -> None:
    """Raises ValueError where p is not between 0 and 1."""
    if not 0 <= p <= 1:
        raise ValueError(f"p is the share of images that are changed, 0 to 1, got {p}")


def pieces(images: Tensor, pixels: int) -> Iterator[slice]:
    """Splits a batch into parts that fit a CPU's cache or, elsewhere, 256 MB of floats.

    pixels: numbers that an image needs
    """
    room = 2**19 if images.device.type == "cpu" else 2**26
    step = max(1, room // max(pixels, 1))
    for start in range(0, len(images), step):
        yield slice(start, start + step)


def on_chosen(images: Tensor, p: float, act: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Applies act(part, rows) to images chosen with probability `p`; the others stay unchanged."""
    return act_on(images, choose(len(images), p), act)


def act_on(images: Tensor, rows: Tensor, act: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Applies act(part, rows) to the images at `rows`, on the host; the others stay unchanged."""
    if len(rows) == 0:
        return images
    if len(rows) == len(images):
        return act(images, rows)
    there = lend(rows, images)
    return images.index_copy(0, there, act(images.index_select(0, there), rows))


def by_group(
    images: Tensor,
    group: Tensor,
    acts: Sequence[Callable[[Tensor, Tensor], Tensor]],
    numbers: Tensor,
) -> Tensor:
    """Applies acts[k](part, its numbers) to the images whose `group` is k.

    `group` and `numbers` are [B], on the host.
    """
    order = group.argsort(stable=True)
    there = lend(order, images)
    counts = group.bincount(minlength=len(acts)).tolist()
    parts = torch.split(images.index_select(0, there), counts)
    own = torch.split(numbers[order], counts)
    done = [act(part, its) for act, part, its in zip(acts, parts, own, strict=True) if len(part)]
    return torch.empty_like(images).index_copy_(0, there, torch.cat(done))


@dataclass(frozen=True)
class ToFloat:
    """Leaves the image as it is, but converts uint8 to float in [0, 1]."""

    def __call__(self, images: Tensor) -> Tensor:
        return to_float(images)


plain = ToFloat()
