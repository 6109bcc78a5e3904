"""Changes colours: jitter, greyscale, solarise, posterise, equalise, autocontrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .batch import act_on, check_share, choose, column, on_chosen, to_bytes, to_float, uniform
from .jitter import HUE, LUMA, grey, jitter, jittered, schedule, turn_hue
from .phases import Drawn, Side, TwoPhase, mask

Strength = float | tuple[float, float]  # factors within 1 +- strength, or between the two


# ---- given factors -------------------------------------------------------------------------


def grayscale(images: Tensor) -> Tensor:
    """Puts the luma in all three channels."""
    return grey(to_float(images)).expand(-1, 3, -1, -1).contiguous()


def adjust_brightness(images: Tensor, factor: Tensor | float) -> Tensor:
    """Moves pixels towards black (factor 0) or away from it (above 1).

    `factor` is [B] or one for all.
    """
    images = to_float(images)
    return (images * column(factor, images)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor | float) -> Tensor:
    """Moves pixels towards the image's mean luma (factor 0) or away from it (above 1)."""
    images = to_float(images)
    mean = grey(images).mean((2, 3), keepdim=True)
    return blend(images, mean, column(factor, images))


def adjust_saturation(images: Tensor, factor: Tensor | float) -> Tensor:
    """Moves pixels towards greyscale (factor 0) or away from it (above 1)."""
    images = to_float(images)
    return blend(images, grey(images), column(factor, images))


def blend(images: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Computes share x images + (1 - share) x other, clamped to [0, 1]."""
    return (images * share).add_(other * (1 - share)).clamp_(0, 1)


def adjust_hue(images: Tensor, shift: Tensor | float) -> Tensor:
    """Turns the hue by `shift` ([B] or one for all) of a full circle, in torchvision's HSV."""
    images = to_float(images).clone()
    turn_hue(images, column(shift, images))
    return images


def solarize(images: Tensor, threshold: Tensor | float) -> Tensor:
    """Inverts values of at least `threshold` ([B] or one for all)."""
    images = to_float(images)
    bright = torch.ge(images, column(threshold, images), out=torch.empty_like(images))
    return images + bright * (1 - 2 * images)


def posterize(images: Tensor, bits: Tensor | int) -> Tensor:
    """Keeps the upper `bits` ([B] or one for all) of each channel's eight."""
    step = 2 ** (8 - column(bits, images))
    return to_bytes(images).float().div_(step).floor_().mul_(step).div_(255)


def autocontrast(images: Tensor) -> Tensor:
    """Stretches each channel to [0, 1]; a constant one stays unchanged."""
    images = to_float(images)
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    flat = (high == low).float()
    scale = (1 - flat) / (high - low + flat)
    return ((images - low) * (scale + flat)).add_(low * flat).clamp_(0, 1)


def equalize(images: Tensor) -> Tensor:
    """Flattens each channel's 8-bit histogram, by PIL's integer arithmetic."""
    values = to_bytes(images).flatten(2).long()  # [B, 3, HW]
    counts = values.new_zeros(*values.shape[:2], 256).scatter_add_(
        2, values, values.new_ones(1).expand_as(values)
    )
    last = counts.gather(2, values.amax(2, keepdim=True))
    step = (values.shape[2] - last) // 255  # [B, 3, 1]
    table = (counts.cumsum(2) - counts + step // 2) // step.clamp(min=1)
    spread = table.clamp_(0, 255).gather(2, values).float().div_(255)
    kept = (step == 0).float()  # too few pixels to spread
    return (spread * (1 - kept)).view(images.shape) + to_float(images) * kept[..., None]


# ---- drawn ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class ColorJitter(TwoPhase):
    """Changes brightness, contrast, saturation and hue by random factors, in a random order.

    torchvision's semantics; every image draws its own factors and its own order.
    """

    brightness: Strength = 0.0
    contrast: Strength = 0.0
    saturation: Strength = 0.0
    hue: Strength = 0.0  # share of a circle: within +- hue, or between the two
    p: float = 1.0

    def __post_init__(self) -> None:
        check_share(self.p)
        self._ranges()

    def _ranges(self) -> list[tuple[float, float]]:
        three = (self.brightness, self.contrast, self.saturation)
        return [_factors(s) for s in three] + [_shifts(self.hue)]

    def draw(self, count: int, side: Side) -> Drawn:
        rows = choose(count, self.p)
        order = torch.rand(count, 4).argsort(1)
        factors = torch.stack([uniform(count, *bounds) for bounds in self._ranges()], 1)
        return rows, order, factors

    def on_host(self, images: Tensor, drawn: Drawn) -> Tensor:
        rows, order, factors = drawn
        images = to_float(images)
        return jitter(images, factors, order, rows=rows) if len(rows) else images

    def numbers(self, drawn: Drawn, count: int, side: Side) -> list[Tensor]:
        rows, order, factors = drawn
        still = torch.tensor([1.0, 1.0, 1.0, 0.0])
        factors = torch.where(mask(rows, count)[:, None] > 0, factors, still)
        return schedule(factors, order, turning=self._ranges()[HUE] != (0, 0))

    def on_device(self, images: Tensor, numbers: Sequence[Tensor]) -> Tensor:
        return jittered(to_float(images), numbers)


def _factors(strength: Strength) -> tuple[float, float]:
    if isinstance(strength, tuple):
        low, high = strength
    else:
        low, high = max(0.0, 1 - strength), 1 + strength
    if not 0 <= low <= high:
        raise ValueError(f"a jitter's strength is zero or more, or a rising pair, got {strength}")
    return low, high


def _shifts(strength: Strength) -> tuple[float, float]:
    low, high = strength if isinstance(strength, tuple) else (-strength, strength)
    if not -0.5 <= low <= high <= 0.5:
        raise ValueError(f"a hue is shifted by up to half a circle, 0.5, got {strength}")
    return low, high


@dataclass(frozen=True)
class Grayscale(TwoPhase):
    """Puts the luma in all three channels."""

    p: float = 1.0

    def __post_init__(self) -> None:
        check_share(self.p)

    def draw(self, count: int, side: Side) -> Drawn:
        return (choose(count, self.p),)

    def on_host(self, images: Tensor, drawn: Drawn) -> Tensor:
        return act_on(to_float(images), drawn[0], lambda part, _: grayscale(part))

    def numbers(self, drawn: Drawn, count: int, side: Side) -> list[Tensor]:
        chosen = mask(drawn[0], count).view(-1, 1, 1)
        return [torch.lerp(torch.eye(3), torch.tensor(LUMA).expand(3, 3), chosen)]

    def on_device(self, images: Tensor, numbers: Sequence[Tensor]) -> Tensor:
        return torch.bmm(numbers[0], to_float(images).flatten(2)).view(images.shape)


@dataclass(frozen=True)
class Solarize(TwoPhase):
    """Inverts values of at least `threshold`."""

    p: float = 1.0
    threshold: float = 0.5

    def __post_init__(self) -> None:
        check_share(self.p)

    def draw(self, count: int, side: Side) -> Drawn:
        return (choose(count, self.p),)

    def on_host(self, images: Tensor, drawn: Drawn) -> Tensor:
        return act_on(to_float(images), drawn[0], lambda part, _: solarize(part, self.threshold))

    def numbers(self, drawn: Drawn, count: int, side: Side) -> list[Tensor]:
        threshold = torch.full((count, 1, 1, 1), float("inf"))
        return [threshold.index_fill_(0, drawn[0], self.threshold)]

    def on_device(self, images: Tensor, numbers: Sequence[Tensor]) -> Tensor:
        images = to_float(images)
        return torch.where(images >= numbers[0], 1 - images, images)


@dataclass(frozen=True)
class Posterize:
    """Keeps the upper bits of each channel."""

    bits: int
    p: float = 1.0

    def __post_init__(self) -> None:
        check_share(self.p)
        if not 0 <= self.bits <= 8:
            raise ValueError(f"an image has 8 bits a channel; asked to keep {self.bits}")

    def __call__(self, images: Tensor) -> Tensor:
        return on_chosen(to_float(images), self.p, lambda part, _: posterize(part, self.bits))


@dataclass(frozen=True)
class AutoContrast:
    """Stretches each channel to the full range."""

    p: float = 1.0

    def __post_init__(self) -> None:
        check_share(self.p)

    def __call__(self, images: Tensor) -> Tensor:
        return on_chosen(to_float(images), self.p, lambda part, _: autocontrast(part))


@dataclass(frozen=True)
class Equalize:
    """Flattens each channel's histogram."""

    p: float = 1.0

    def __post_init__(self) -> None:
        check_share(self.p)

    def __call__(self, images: Tensor) -> Tensor:
        return on_chosen(to_float(images), self.p, lambda part, _: equalize(part))
