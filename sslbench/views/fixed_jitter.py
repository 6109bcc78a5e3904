"""Colour jitter in fixed shapes, for a GPU: every image passes every slot, and does nothing in some.

Brightness, contrast and saturation all are x f + t (1 - f), where t is black, the mean luma or the
luma, cut to [0, 1]: a 3 x 3 matrix on colours, and one on the mean colour. An image has three such
steps, with the turn of the hue at any place among them. So all images pass three slots for such steps,
turn, and pass three more; an image uses three of the six slots.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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
