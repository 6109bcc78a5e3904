"""Changes brightness, contrast, saturation and hue, in an order of each image's own.

The first three all are x f + t (1 - f), where t is black, the mean luma or the luma, cut to [0, 1].
Three such steps with each image's numbers serve every order, with the turn of the hue before, between or
behind them. On a CPU images are sorted by that place. A GPU gets fixed shapes instead: all images pass
three slots for such steps, turn, and pass three more, and do nothing in the slots that they do not need.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .batch import column, lend

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # the hue is last
LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601, torchvision's weights

# what f, the share of the luma and that of its mean are in a matrix on colours, and in one on their mean
_NONE = (0.0,) * 9
_BASIS = (
    (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, *_NONE),
    (*LUMA * 3, *_NONE),
    (*_NONE, *LUMA * 3),
)

# Let y in [0, 6) be the hue in sixths of a circle from red towards green. A channel's value lies
# between the smallest and the largest channel at the share `offset + way |y - own|`, cut to [0, 1].
_OWN, _WAY, _OFFSET = (3.0, 2.0, 4.0), (1.0, -1.0, -1.0), (-1.0, 2.0, 2.0)  # red, green, blue
_MIX = ((-1.0, 1.0, 1.0), (0.0, 1.0, -1.0))  # green + blue - red, green - blue


def grey(images: Tensor) -> Tensor:
    """Luma (ITU-R 601, torchvision's weights), [B, 1, H, W]."""
    red, green, blue = torch.split(images, 1, 1)
    of_red, of_green, of_blue = LUMA
    return torch.mul(red, of_red).add_(green, alpha=of_green).add_(blue, alpha=of_blue)


def turn_hue(images: Tensor, shift: Tensor) -> None:
    """Turns the hue in place. The values of the largest and the smallest channel stay.

    Let M and m be those values. In all six sectors the hue's angle from red is
    1 + (g + b - r - m) / (M - m) sixths of a circle, towards green where g >= b and else towards
    blue. A channel whose own hue is d circles away becomes m + (M - m) clamp(2 - 6 d, 0, 1). This
    needs no branches, each of which costs ten passes on a CPU.
    """
    red, green, blue = torch.split(images, 1, 1)  # [B, 1, H, W]
    most = torch.maximum(red, green)
    torch.maximum(most, blue, out=most)
    least = torch.minimum(red, green)
    torch.minimum(least, blue, out=least)
    chroma = most.sub_(least)
    angle = (green + blue).sub_(red).sub_(least)
    # where chroma is 0, so is the numerator
    angle.div_(chroma.clamp(min=1e-12)).add_(1).div_(6)
    hue = torch.copysign(angle, green - blue).add_(shift)
    own = torch.tensor([0, -1 / 3, 1 / 3]).view(3, 1, 1)  # red, green, blue
    torch.add(hue, lend(own, images), out=images)
    images.sub_(images.round()).abs_().mul_(-6).add_(2).clamp_(0, 1)
    images.mul_(chroma).add_(least)


def jitter(images: Tensor, factors: Tensor, order: Tensor, *, rows: Tensor | None = None) -> Tensor:
    """Changes brightness, contrast, saturation and hue, in an order of each image's own.

    Images are sorted by the place of the hue in their order, so that each image's hue is turned once.

    Args:
        images: float [B, 3, H, W]
        factors: [B, 4], where that of the hue is a shift; on the host
        order: [B, 4], a permutation of 0 brightness, 1 contrast, 2 saturation, 3 hue; on the host
        rows: positions of the images that are changed; all when None
    """
    rows = torch.arange(len(images)) if rows is None else rows
    place = (order[rows] == HUE).int().argmax(1)  # [n]
    sections = place.bincount(minlength=4).tolist()
    rows = rows[place.argsort(stable=True)]
    there = lend(rows, images)
    out = images.index_select(0, there)  # [n, 3, H, W]
    factors, order = factors[rows], order[rows]
    kind = order[order != HUE].view(-1, 3)  # [n, 3], in each image's order
    factor = factors.gather(1, kind)
    to_luma = (1 - factor).mul_(kind == SATURATION)
    to_mean = (1 - factor).mul_(kind == CONTRAST)
    steps = lend(torch.stack([factor, to_luma, to_mean]), images)[..., None, None, None]
    turns = torch.split(column(factors[:, HUE], images), sections)
    parts = torch.split(out, sections)
    turning = bool(factors[:, HUE].any())
    for i, (part, turn) in enumerate(zip(parts, turns, strict=True)):
        if turning and len(part):
            turn_hue(part, turn)
        if i < 3:
            f, a, b = steps[:, :, i]  # [n, 1, 1, 1]
            luma = grey(out)
            mean = luma.mean((2, 3), keepdim=True)
            out.mul_(f).add_(luma.mul_(a).add_(mean * b)).clamp_(0, 1)
    return images.index_copy(0, there, out)


# ---- in fixed shapes -----------------------------------------------------------------------


def schedule(factors: Tensor, order: Tensor, *, turning: bool) -> list[Tensor]:
    """Numbers for `jittered`: matrices on colours and on mean colours, and those of the turn.

    Args:
        factors: [B, 4], where that of the hue is a shift
        order: [B, 4], a permutation of 0 brightness, 1 contrast, 2 saturation, 3 hue
        turning: whether hues are turned at all; then there are six slots, else three
    """
    kind = order if turning else order[order != HUE].view(-1, 3)  # in each image's order
    factor = factors.gather(1, kind)
    shares = [(1 - factor).mul_(kind == of) for of in (SATURATION, CONTRAST)]
    steps = torch.stack([factor, *shares], 2)  # [B, 3 or 4, 3]
    if turning:
        place, slot = order.argmax(1).view(-1, 1, 1), torch.arange(3)[:, None]
        still = torch.tensor([1.0, 0.0, 0.0])
        before = torch.where(slot < place, steps[:, :3], still)
        steps = torch.cat([before, torch.where(slot < place, still, steps[:, 1:])], 1)
    matrices = torch.mm(steps.reshape(-1, 3), torch.tensor(_BASIS))
    numbers = [matrices.view(len(order), -1, 2, 3, 3)]  # [B, slots, 2, 3, 3]
    if turning:
        of_channels = torch.tensor([_OWN, _WAY, _OFFSET])[..., None]  # [3, 3, 1]
        numbers += [6 * factors[:, HUE, None, None], torch.tensor(_MIX), of_channels, torch.ones(1)]
    return numbers


def jittered(images: Tensor, numbers: Sequence[Tensor]) -> Tensor:
    """Does to float images what `jitter` does, with the numbers of `schedule`."""
    steps, *turn = numbers
    colours = images.flatten(2)  # [B, 3, HW]
    for i in range(steps.shape[1]):
        matrix, of_mean = steps[:, i].unbind(1)  # each [B, 3, 3]
        if turn and i == 3:
            colours = _turned(colours, *turn)
        mean = torch.bmm(of_mean, colours.mean(2, keepdim=True))  # [B, 3, 1]
        colours = torch.baddbmm(mean, matrix, colours).clamp_(0, 1)
    return colours.view(images.shape)


def _turned(colours: Tensor, turn: Tensor, mix: Tensor, channels: Tensor, one: Tensor) -> Tensor:
    """Turns the hue, from the same angle as `adjust_hue`: 1 + (g + b - r - least) / chroma sixths.

    Near grey the angle is lost to rounding, but not the colour, as chroma scales what comes of it.
    """
    least, most = torch.aminmax(colours, dim=1, keepdim=True)  # [B, 1, HW]
    angle, side = torch.split(torch.bmm(mix.expand(len(colours), 2, 3), colours), 1, 1)
    chroma = most.sub_(least)
    angle = torch.addcdiv(one, angle.sub_(least), chroma.clamp(min=1e-12))
    hue = torch.copysign(angle, side).add_(turn).remainder_(6)
    own, way, offset = channels
    share = (hue - own).copysign_(way).add_(offset).clamp_(0, 1)  # [B, 3, HW]
    return torch.addcmul(least, chroma, share)
