"""The nineteen corruptions of CIFAR-10-C and CIFAR-100-C (Hendrycks and Dietterich, 1903.12261).

They work in batches on the device of the images; only JPEG is done by PIL. They follow the script
that made those sets, with its parameters for 32 pixels and its truncation to 8 bits. For images of
another side, lengths in pixels stay the same, and lengths that the script gives as shares of the
side scale with it. In elastic_transform all lengths are those for 32 pixels.

An image's random numbers depend only on the seed, the corruption, the severity and its index.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..errors import UnknownName, UserError
from . import blur, colour, digital, noise, spatter, weather
from . import frost as ice
from .draws import Draws, keys
from .entry import Corruption
from .frost import Frost, frost_from

__all__ = [
    "ALL",
    "BENCHMARK",
    "CORRUPTIONS",
    "EXTRA",
    "GROUPS",
    "LEAST_SIDE",
    "SEVERITIES",
    "VERSION",
    "Corruption",
    "Frost",
    "corrupt",
    "frost_from",
]

VERSION = 1  # raise it when any byte can change
SEVERITIES = (1, 2, 3, 4, 5)
LEAST_SIDE = 16

CORRUPTIONS: dict[str, Corruption] = {  # in the order of the script
    "gaussian_noise": noise.GAUSSIAN,
    "shot_noise": noise.SHOT,
    "impulse_noise": noise.IMPULSE,
    "defocus_blur": blur.DEFOCUS,
    "glass_blur": blur.GLASS,
    "motion_blur": blur.MOTION,
    "zoom_blur": blur.ZOOM,
    "snow": weather.SNOW,
    "frost": ice.FROST,
    "fog": weather.FOG,
    "brightness": colour.BRIGHTNESS,
    "contrast": digital.CONTRAST,
    "elastic_transform": digital.ELASTIC,
    "pixelate": digital.PIXELATE,
    "jpeg_compression": digital.JPEG,
    "speckle_noise": noise.SPECKLE,
    "gaussian_blur": blur.GAUSSIAN,
    "spatter": spatter.SPATTER,
    "saturate": colour.SATURATE,
}
ALL = tuple(CORRUPTIONS)
BENCHMARK, EXTRA = ALL[:15], ALL[15:]
GROUPS = {
    "noise": BENCHMARK[:3],
    "blur": BENCHMARK[3:7],
    "weather": BENCHMARK[7:11],
    "digital": BENCHMARK[11:],
}


def corrupt(
    images: Tensor,
    name: str,
    severity: int,
    *,
    index: Tensor,
    seed: int = 0,
    frost: Frost | None = None,
) -> Tensor:
    """Makes a corrupted copy, uint8 [B, 3, H, W] on the same device.

    Args:
        images: uint8 [B, 3, H, W], RGB; the sides need not be equal
        index: [B], whole numbers: the position of each image in its split
        frost: photographs; procedural textures if not given

    Raises:
        UserError: an unknown corruption or severity, or too small an image or photograph.
        ValueError: not a batch of RGB bytes, or not one index for each image.
    """
    _check(images, name, severity, index)
    entry, level = CORRUPTIONS[name], CORRUPTIONS[name].levels[severity - 1]
    sides = (images.shape[2], images.shape[3])
    extra: tuple[Frost, ...] = ()
    if entry is ice.FROST:
        pictures = frost or ice.procedural(sides)
        pictures.check(sides)
        extra = (pictures,)
    # Apple's GPUs have no float64
    work = images.cpu() if images.device.type == "mps" else images
    key = keys(index.to(work.device), seed=seed, name=name, severity=severity)
    out = torch.empty_like(work, memory_format=torch.contiguous_format)
    with torch.no_grad():
        for run in _runs(work):
            drawn = entry.draw(Draws(key[run]), sides, level)
            out[run] = entry.render(work[run].contiguous(), level, *drawn, *extra)
    return out.to(images.device)


def _runs(images: Tensor) -> Iterator[slice]:
    """Splits the images into parts that fit a CPU's cache or, elsewhere, need about 1 GB."""
    room = 2**18 if images.device.type == "cpu" else 2**24
    step = max(1, room // images[0].numel()) if len(images) else 1
    for start in range(0, len(images), step):
        yield slice(start, start + step)


def _check(images: Tensor, name: str, severity: int, index: Tensor) -> None:
    if name not in CORRUPTIONS:
        raise UnknownName("corruption", name, ALL)
    if severity not in SEVERITIES:
        raise UserError(f"severity {severity!r} does not exist; severities are 1 to 5")
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        raise ValueError(
            f"corruptions take uint8 [B, 3, H, W], got {images.dtype} {list(images.shape)}; "
            "repeat a grey channel three times, and give one image a batch of its own"
        )
    if index.shape != images.shape[:1] or index.is_floating_point() or index.is_complex():
        raise ValueError(
            f"index is one whole number an image, [{len(images)}], got {index.dtype} "
            f"{list(index.shape)}"
        )
    if min(images.shape[2:]) < LEAST_SIDE:
        raise UserError(
            f"images of {images.shape[2]} x {images.shape[3]} pixels are too small to corrupt; "
            f"each side needs at least {LEAST_SIDE}: enlarge them first"
        )
