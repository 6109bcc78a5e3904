"""Crops boxes out of images and resizes them, with antialiasing: on a CPU, and in a GPU's fixed shapes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .batch import check, lend, pieces, to_float
from .phases import Side

Size = int | tuple[int, int]  # side of a square, or (height, width); pixels

# Above this side, on a CPU, `resample` is faster image by image than by matrix products.
_DENSE_SIDE = 64  # pixels


def sides(size: Size) -> tuple[int, int]:
    """Returns a size as (height, width); ValueError where one is not positive."""
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"a size is one or more pixels a side, got {size}")
    return height, width


def resample(images: Tensor, boxes: Tensor, size: Size, flip: Tensor | None = None) -> Tensor:
    """Crops each image to its own box, resizes that to `size`, and mirrors it where `flip` says so.

    It is bilinear, antialiased when shrinking, and reads nothing outside the box, like torchvision's
    resized_crop with antialias but without rounding to 8 bits. Small images, and all on a GPU, take
    two batched matrix products with row and column weights, in pieces of at most 256 MB. Images
    above 64 pixels a side on a CPU go one by one, so that only the box is read.

    Args:
        images: uint8 or float [B, 3, H, W]
        boxes: [B, 4] of top, left, height, width; whole pixels inside the image
        flip: bool [B]
    """
    check(images)
    height, width = sides(size)
    if flip is None:
        flip = torch.zeros(len(images), dtype=torch.bool)
    out = images.new_empty(len(images), 3, height, width, dtype=torch.float32)
    if images.device.type == "cpu" and max(*images.shape[2:], height, width) > _DENSE_SIDE:
        _resample_one_by_one(images, boxes, flip, out)
    else:
        _resample_densely(images, boxes, flip, out)
    return out.clamp_(0, 1)


def _resample_one_by_one(images: Tensor, boxes: Tensor, flip: Tensor, out: Tensor) -> None:
    tops = zip(images, boxes.int().tolist(), flip.tolist(), out, strict=True)
    for image, (top, left, height, width), mirrored, home in tops:
        crop = to_float(image[None, :, top : top + height, left : left + width])
        crop = F.interpolate(crop, home.shape[1:], mode="bilinear", antialias=True)[0]
        home.copy_(crop.flip(-1) if mirrored else crop)


def _resample_densely(images: Tensor, boxes: Tensor, flip: Tensor, out: Tensor) -> None:
    height, width = images.shape[2:]
    boxes, flip = lend(boxes.float(), images), lend(flip.float(), images)
    still = torch.zeros_like(flip)
    unit = 255.0 if images.dtype == torch.uint8 else 1.0
    for run in pieces(images, 3 * max(height * width, out.shape[2] * out.shape[3])):
        part = images[run].float()
        top, left, tall, wide = boxes[run, :, None, None].unbind(1)  # [b, 1, 1]
        rows = _weights(top, tall, still[run], (out.shape[2], height))  # [b, h, H]
        columns = _weights(left, wide, flip[run], (out.shape[3], width))  # [b, w, W]
        # autocast leaves a product with `out` in float32; bfloat16 would cost three of eight bits
        slim = part.new_empty(len(part), 3 * height, out.shape[3])
        torch.bmm(part.reshape(-1, 3 * height, width), columns.mT.div(unit), out=slim)
        slim = slim.view(len(part), 3, height, -1)  # [b, 3, H, w]
        torch.matmul(rows[:, None], slim, out=out[run])  # [b, 3, h, w]


def _weights(start: Tensor, length: Tensor, mirrored: Tensor, shape: tuple[int, int]) -> Tensor:
    """Weights [b, out, all] by which pixels in [start, start + length) give those of the result.

    They are triangles as wide as the result's pixels are far apart, but at least one pixel.
    """
    made, there = shape
    scale = length / made  # [b, 1, 1]
    i = torch.arange(made, device=start.device, dtype=torch.float32)[:, None]
    i = i + mirrored[:, None, None] * (made - 1 - 2 * i)  # [b, out, 1]
    pixel = torch.arange(there, device=start.device, dtype=torch.float32).add_(0.5)  # [all]
    distance = (i.add_(0.5).mul_(scale).add_(start) - pixel).abs_().div_(scale.clamp(min=1))
    inside = (pixel > start).float().mul_(pixel < start + length)  # [b, 1, all]
    weights = distance.neg_().add_(1).clamp_(min=0).mul_(inside)
    return weights.div_(weights.sum(2, keepdim=True))


def placed(boxes: Tensor, flip: Tensor, side: Side, size: Side) -> list[Tensor]:
    """Numbers for `resampled`: the places, in every box, of the result's pixels and of the image's.

    The unit is the distance up to which a pixel counts, the origin the image's middle. Pixels outside
    the box are far away. Axes have the length of the longest.

    Returns:
        [2, B, made, 1] and [2, B, 1, there], of which the first halves are for rows
    """
    made, there = torch.tensor([size, side], dtype=torch.float32)[..., None, None]  # each [2, 1, 1]
    start, length = boxes.float().t().reshape(2, 2, -1, 1)  # each [2, B, 1]; top, left; tall, wide
    scale = length / made
    reach = scale.clamp(min=1)
    middle = start + (length - there) / 2
    pixel = torch.arange(max(side)) + (0.5 - there / 2)  # [2, 1, there]
    # a pixel outside is half a pixel or more from the box
    beyond = pixel.sub(middle).abs_().sub_(length / 2).relu_()  # [2, B, there]
    place = pixel.div(reach).add_(beyond, alpha=1e6)
    ways = torch.stack([torch.ones(len(flip)), 1 - 2 * flip.float()])[..., None]  # [2, B, 1]
    i = torch.arange(max(size)) + (0.5 - made / 2)
    centre = i.mul(ways * scale / reach).add_(middle / reach)  # [2, B, made]
    return [centre[..., None], place[:, :, None]]


def resampled(images: Tensor, centre: Tensor, pixel: Tensor, size: Side) -> Tensor:
    """Resamples as `resample` does, with the numbers of `placed`: float32 [B, 3, height, width]."""
    high, wide = images.shape[2:]
    height, width = size
    weights = (1 - (centre - pixel).abs_()).relu_()  # [2, B, made, there]
    rows, columns = weights.div_(weights.sum(3, keepdim=True))
    images = to_float(images).reshape(-1, 3 * high, wide)
    slim = torch.bmm(images, columns[:, :width, :wide].mT).view(-1, 3, high, width)
    return torch.matmul(rows[:, None, :height, :high], slim)
