"""Combines views: chains, several at once, crops of several sizes, and transforms of any library."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..api import View
from .batch import to_bytes, to_float
from .colour import ColorJitter, Grayscale, Solarize
from .crops import Cutout, HorizontalFlip, PadCrop, RandomResizedCrop
from .filters import GaussianBlur
from .phases import Phase, TwoPhase, act, apply, is_two_phase
from .randaugment import RandAugment


@dataclass(frozen=True, init=False, repr=False)
class Chain:
    """Applies views one after the other: Chain(crop, jitter, blur)."""

    ops: tuple[View, ...]

    def __init__(self, *ops: View) -> None:
        object.__setattr__(self, "ops", ops)

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(repr, self.ops))})"

    def __call__(self, images: Tensor) -> Any:
        return chained(self.ops, images)


def chained(views: tuple[View, ...], images: Tensor, phase: Phase = act) -> Any:
    """Applies views in turn; neighbours of two phases share one copy of numbers to the device."""
    result: Any = images if views else to_float(images)
    for two_phase, some in groupby(views, is_two_phase):
        if two_phase:
            result = apply(cast(tuple[TwoPhase, ...], tuple(some)), result, phase)
        else:
            for view in some:
                result = view(result)
    return result


@dataclass(frozen=True)
class Views:
    """Makes a list of n independent views; with several views, n times all of them in turn."""

    view: View | tuple[View, ...]
    n: int = 1

    def __call__(self, images: Tensor) -> list[Any]:
        views = self.view if isinstance(self.view, tuple) else (self.view,)
        return [view(images) for _ in range(self.n) for view in views]


@dataclass(frozen=True)
class MultiCrop:
    """Makes several views of several kinds: MultiCrop(((large, 2), (small, 6)))."""

    crops: tuple[tuple[View, int], ...]

    def __call__(self, images: Tensor) -> list[Any]:
        return [view(images) for view, n in self.crops for _ in range(n)]


@dataclass(frozen=True, repr=False)
class PerImage:
    """Applies any transform image by image on the host, which is slow but always works.

    The transform gets a PIL image or, with `pil=False`, a uint8 tensor [3, H, W]. It returns a PIL
    image, a tensor, or a list of these for several views. `random` and numpy are seeded from torch's
    global generator.
    """

    transform: Callable[[Any], Any]
    pil: bool = True

    def __repr__(self) -> str:
        # without memory addresses, which would differ from run to run
        shown = re.sub(r" at 0x[0-9a-f]+", "", repr(self.transform))
        return f"PerImage({shown}, pil={self.pil})"

    def __call__(self, images: Tensor) -> Any:
        host = to_bytes(images).cpu()
        if self.pil:
            given = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in host]
        else:
            given = list(host)
        with _python_and_numpy_seeded():
            made = [self.transform(image) for image in given]
        if isinstance(made[0], (list, tuple)):
            return [_stack(each).to(images.device) for each in zip(*made, strict=True)]
        return _stack(made).to(images.device)


def _stack(made: Any) -> Tensor:
    tensors = [_tensor(each) for each in made]
    shapes = {tuple(each.shape) for each in tensors}
    if len(shapes) > 1:
        raise ValueError(
            f"a batch needs images of one size, the transform made {sorted(shapes)}; "
            "end it with a crop or a resize"
        )
    return torch.stack(tensors)


def _tensor(made: Any) -> Tensor:
    if isinstance(made, Image.Image):
        made = torch.from_numpy(np.array(made.convert("RGB"))).permute(2, 0, 1)
    pixels = torch.as_tensor(made)
    return pixels.float().div(255) if pixels.dtype == torch.uint8 else pixels.float()


@contextmanager
def _python_and_numpy_seeded() -> Iterator[None]:
    seed = int(torch.randint(2**31, ()))
    python, of_numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(of_numpy)


# ---- ready made ----------------------------------------------------------------------------


def crop_flip(size: int, scale: tuple[float, float] = (0.08, 1.0)) -> RandomResizedCrop:
    """Makes a random resized crop that is mirrored half of the time."""
    return RandomResizedCrop(size, scale, flip=0.5)


def shift_flip(size: int, shift: float = 0.125, flip: float = 0.5) -> Chain:
    """Makes the weak view of few labels (FixMatch, arXiv 2001.07685): mirrored or not, moved a little.

    Args:
        shift: of the side, by which it moves at most; the border is reflected
        flip: chance of a mirror image
    """
    return Chain(HorizontalFlip(flip), PadCrop(min(round(shift * size), size - 1), "reflect"))


def strong(weak: View, size: int, *, n: int = 2, m: int = 10, cutout: float = 0.5) -> Chain:
    """Makes FixMatch's strong view of a weak one: RandAugment as in its code, then a grey square.

    Args:
        cutout: side of the square, share of the image's; 0 leaves it out
    """
    hole = [Cutout(round(cutout * size), 0.5)] if cutout else []
    return Chain(weak, RandAugment(n, m, fill=0.5, scale="levels", p=0.5), *hole)


def contrastive(
    size: int,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2),
    jitter_p: float = 0.8,
    grey: float = 0.2,
    blur: float = 0.5,
    solarise: float = 0.0,
    flip: float = 0.5,
) -> Chain:
    """Makes SimCLR's view (arXiv 2002.05709), or one like it; a chance of 0 leaves a step out.

    Args:
        jitter: strengths of brightness, contrast, saturation and hue
        jitter_p, grey, blur, solarise, flip: chances of the steps
    """
    kernel = blur_kernel(size)
    ops: list[tuple[float, View]] = [
        (1.0, RandomResizedCrop(size, scale, flip=flip)),
        (jitter_p, ColorJitter(*jitter, p=jitter_p)),
        (grey, Grayscale(grey)),
        (blur if kernel > 1 else 0.0, GaussianBlur(kernel, p=blur)),
        (solarise, Solarize(solarise)),
    ]
    return Chain(*(op for p, op in ops if p > 0))


def asymmetric(
    size: int,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    jitter: float = 1.0,
    blur: tuple[float, float] = (1.0, 0.1),
    solarise: tuple[float, float] = (0.0, 0.2),
) -> Views:
    """Makes BYOL's two views (arXiv 2006.07733), which differ in their chances, or two like them.

    Args:
        jitter: factor on BYOL's strengths (0.4, 0.4, 0.2, 0.1)
        blur, solarise: chances in the first and in the second view
    """
    strengths = (0.4 * jitter, 0.4 * jitter, 0.2 * jitter, 0.1 * jitter)
    first, second = (
        contrastive(size, scale=scale, jitter=strengths, blur=b, solarise=s)
        for b, s in zip(blur, solarise, strict=True)
    )
    return Views((first, second))


def small_side(size: int, asked: int = 0, *, patch: int = 1) -> int:
    """The side of small crops: as asked, or 3/7 of the image's as in 96 of 224, in whole patches.

    ValueError when that is larger than the image.
    """
    side = asked or max(1, round(size * 3 / 7 / patch)) * patch
    if side > size:
        raise ValueError(
            f"small crops of {side} pixels are larger than the images of {size}; "
            f"set small_size to at most that"
        )
    return side


def blur_kernel(size: int) -> int:
    """The taps of SimCLR's blur, a tenth of the side made odd: 3 at 32 pixels, 9 at 96, 23 at 224.

    Below 20 pixels it is 1, which does not blur.
    """
    return size // 10 // 2 * 2 + 1
