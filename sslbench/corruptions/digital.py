"""Digital corruptions: contrast, elastic transform, pixelation, JPEG."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from io import BytesIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .draws import Draws
from .entry import Corruption, Level, Sides, to_bytes, truncated, unit
from .linear import smooth


def contrast(images: Tensor, level: Level) -> Tensor:
    """Moves pixels towards their channel's mean, which is exact since it sums whole numbers."""
    count = images.shape[2] * images.shape[3]
    mean = images.sum((2, 3), keepdim=True).double().div_(count).div_(255)
    return to_bytes(unit(images).sub_(mean).mul_(level[0]).add_(mean))


# ---- elastic transform ---------------------------------------------------------------------


def elastic_numbers(draws: Draws, sides: Sides, level: Level) -> tuple[Tensor, ...]:
    """Draws the shifts of three points and of every pixel, between -1 and 1."""
    points = draws.uniform(3, 2).mul_(2).sub_(1)
    return points, draws.uniform(2, *sides).mul_(2).sub_(1)


def elastic(images: Tensor, level: Level, points: Tensor, wishes: Tensor) -> Tensor:
    """Applies an affine map, then a smooth field of shifts, both in pixels and bilinear.

    Within 1 level of OpenCV 5. The published sets are older: warpAffine of OpenCV 4.5.5 rounds
    coordinates to 1/32 pixel, which moves a pixel by up to 4 levels, .10 to .16 on average.
    """
    strength, sigma, jitter = level
    height, width = images.shape[2:]
    x, y = _affine(points * jitter, height, width)
    across, down = max(width - 1, 1) / 2, max(height - 1, 1) / 2
    grid = torch.stack([x.div_(across).sub_(1), y.div_(down).sub_(1)], 3)
    moved = _sampled(images.double(), grid, corners=True)
    if strength:
        shift = smooth(wishes, sigma, "reflect", truncate=3).mul_(strength)  # x, y
        x, y = _places(height, width, images.device)
        x = (x + shift[:, 0]).mul_(2).add_(1).div_(width).sub_(1)
        y = (y + shift[:, 1]).mul_(2).add_(1).div_(height).sub_(1)
        moved = _sampled(moved, torch.stack([x, y], 3), corners=False)
    return truncated(moved)


def _sampled(images: Tensor, grid: Tensor, corners: bool) -> Tensor:
    """Samples images, mirrored at the middle of the border's pixels (`corners`) or at their edge."""
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=corners)


def _places(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    x = torch.arange(width, dtype=torch.float64, device=device)
    return x, torch.arange(height, dtype=torch.float64, device=device)[:, None]


def _affine(moves: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The source x and y [B, H, W] of each pixel when three points move by `moves` [B, 3, 2].

    The points are three corners of a square in the middle of the image. As in the script the middle
    is (height // 2, width // 2), where (x, y) is meant.
    """
    reach = min(height, width) // 3
    middle = torch.tensor([height // 2, width // 2], dtype=torch.float64, device=moves.device)
    offsets = torch.tensor([[1, 1], [1, -1], [-1, -1]], dtype=torch.float64, device=moves.device)
    ends = middle + offsets * reach + moves
    (ax, ay), (bx, by) = (
        (ends[:, i] - ends[:, 2])[:, :, None, None].unbind(1) for i in range(2)
    )  # each [B, 1, 1]
    corner_x, corner_y = ends[:, 2, :, None, None].unbind(1)
    x, y = _places(height, width, moves.device)
    x, y = x - corner_x, y - corner_y
    area = ax * by - ay * bx
    diagonal = (x * by - y * bx) / area  # shares of the two edges from that corner
    across = (y * ax - x * ay) / area
    start = middle - reach
    return (diagonal + across) * (2 * reach) + start[0], diagonal * (2 * reach) + start[1]


# ---- pixelate ------------------------------------------------------------------------------


def pixelate(images: Tensor, level: Level) -> Tensor:
    """Shrinks and enlarges as PIL's box filter does; enlarged, each pixel shows exactly one."""
    height, width = images.shape[2:]
    high, wide = int(height * level[0]), int(width * level[0])
    small = _fixed(images.double() @ _box(width, wide).to(images.device))
    small = _fixed(torch.matmul(_box(height, high).to(images.device).T, small)).to(torch.uint8)
    return small[:, :, _picked(high, height, images.device)][
        ..., _picked(wide, width, images.device)
    ]


def _picked(before: int, after: int, device: torch.device) -> Tensor:
    """The source pixel that each pixel of the enlarged side shows."""
    places = [int((place + 0.5) * (before / after)) for place in range(after)]
    return torch.tensor(places, device=device)


def _fixed(sums: Tensor) -> Tensor:
    """Rounds as PIL does between directions, where weights are multiples of 2^-22."""
    return sums.add_(2.0**21).mul_(2.0**-22).floor_().clamp_(0, 255)


@lru_cache(maxsize=256)
def _box(before: int, after: int) -> Tensor:
    """Weights [before, after] to shrink a side, x 2^22; boxes share pixels whose middle they hold."""
    scale = before / after
    matrix = np.zeros((before, after))
    for place in range(after):
        middle = (place + 0.5) * scale
        first = max(int(middle - scale / 2 + 0.5), 0)
        last = min(int(middle + scale / 2 + 0.5), before)
        away = (np.arange(first, last) - middle + 0.5) / scale
        weights = ((away > -0.5) & (away <= 0.5)).astype(float)
        matrix[first:last, place] = np.floor(weights / weights.sum() * 2**22 + 0.5)
    return torch.from_numpy(matrix)


# ---- JPEG ----------------------------------------------------------------------------------


def jpeg(images: Tensor, level: Level) -> Tensor:
    """Encodes and decodes by PIL, image by image, in threads since PIL releases the GIL."""
    pictures = images.permute(0, 2, 3, 1).cpu().numpy()
    threads = torch.get_num_threads()
    quality = [int(level[0])] * len(pictures)
    if threads == 1:
        done = list(map(_recoded, pictures, quality))
    else:
        with ThreadPoolExecutor(threads) as pool:
            done = list(pool.map(_recoded, pictures, quality))
    coded = torch.from_numpy(np.stack(done)).permute(0, 3, 1, 2)
    return coded.contiguous().to(images.device)


def _recoded(picture: np.ndarray, quality: int) -> np.ndarray:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer, formats=["JPEG"]))


CONTRAST = Corruption(((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)), contrast)
ELASTIC = Corruption(  # strength, sigma, jitter: pixels, 32 x those of the script
    ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
    elastic,
    elastic_numbers,
)
PIXELATE = Corruption(((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)), pixelate)
JPEG = Corruption(((80,), (65,), (58,), (50,), (40,)), jpeg)
