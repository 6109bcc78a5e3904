"""Building blocks that three or more methods share."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .api import Backbone

ModuleT = TypeVar("ModuleT", bound=nn.Module)
NumberT = TypeVar("NumberT", float, Tensor)
BATCH_NORM = nn.modules.batchnorm._BatchNorm


def mlp(
    *dims: int,
    norm: bool = True,
    last_norm: bool = False,
    last_affine: bool = True,
    last_shift: bool = True,
    last_bias: bool = True,
) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them.

    `norm` puts batch norm before each ReLU. `last_norm` puts one after the last layer, with scale
    and shift unless `last_affine` is off; with `last_shift` off its shift stays 0. A layer before a
    norm has no bias: the norm shifts.
    """
    if len(dims) < 2:
        raise ValueError(f"an MLP has at least two widths, in and out; found {dims}")
    layers: list[nn.Module] = []
    for i, (wide, out) in enumerate(pairwise(dims), start=2):
        last = i == len(dims)
        normed = last_norm if last else norm
        layers.append(nn.Linear(wide, out, bias=not normed and (last_bias or not last)))
        if normed:
            layers.append(nn.BatchNorm1d(out, affine=last_affine or not last))
        if not last:
            layers.append(nn.ReLU(inplace=True))
    if last_norm and last_affine and not last_shift:
        layers[-1].bias.requires_grad_(False)
    return nn.Sequential(*layers)


def cosine(start: float, end: float, progress: float) -> float:
    """Interpolates from start to end along half a cosine, as `progress` goes from 0 to 1."""
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def risen(progress: float, rise: float) -> float:
    """The share of its weight that a loss has at this share of the fit, when it is whole at `rise`."""
    return min(1.0, progress / rise) if rise else 1.0


def copy_frozen(module: ModuleT) -> ModuleT:
    """Copies a module; the copy takes no gradient, and its training mode stays as it is."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def ema(
    target: nn.Module,
    online: nn.Module,
    momentum: float | Tensor,
    *,
    buffers: Literal["copy", "keep"] = "copy",
) -> None:
    """Sets target = momentum * target + (1 - momentum) * online, in place.

    The momentum may be a number on the device, as `warm` gives of steps counted there.
    Buffers, such as the running statistics of norms, are copied: an average that is used in eval
    mode needs them. `buffers="keep"` is for a target that passes batches in training mode, and so
    gathers statistics of its own.
    ValueError where the two differ in what is averaged or copied.
    """
    old, new = _held(target), _held(online)
    if [p.shape for p in old.parameters()] != [p.shape for p in new.parameters()]:
        raise ValueError("ema takes two networks of the same parameters; these differ")
    if buffers == "copy":
        _copy_buffers(old.buffers(), new.buffers())
    elif buffers != "keep":
        raise ValueError(f"ema's buffers are 'copy' or 'keep', got {buffers!r}")
    torch._foreach_mul_(old.parameters(), momentum)
    if isinstance(momentum, Tensor):
        torch._foreach_add_(old.parameters(), torch._foreach_mul(new.parameters(), 1 - momentum))
    else:
        torch._foreach_add_(old.parameters(), new.parameters(), alpha=1 - momentum)


def _copy_buffers(old: list[Tensor], new: list[Tensor]) -> None:
    if [b.shape for b in old] != [b.shape for b in new]:
        raise ValueError(
            'ema copies buffers of the same kind; these differ, so pass buffers="keep"'
        )
    kinds = {b.dtype for b in old}  # lists of one type go to a device as one
    for kind in sorted(kinds, key=str):
        mine = [b for b in old if b.dtype == kind]
        torch._foreach_copy_(mine, [b for a, b in zip(old, new, strict=True) if a.dtype == kind])


class _Held(NamedTuple):
    """Where a network keeps its tensors. To walk through its modules at each step takes long."""

    places: list[tuple[dict[str, Any], str]]  # of parameters
    buffer_places: list[tuple[dict[str, Any], str]]

    def parameters(self) -> list[Tensor]:
        return [held[key] for held, key in self.places]

    def buffers(self) -> list[Tensor]:
        return [held[key] for held, key in self.buffer_places]


_HELD: WeakKeyDictionary[nn.Module, _Held] = WeakKeyDictionary()


def _held(network: nn.Module) -> _Held:
    """Where the network keeps its tensors, found once: its modules must not be exchanged later."""
    if (found := _HELD.get(network)) is None:
        found = _HELD[network] = _Held(
            [*_places(network, "_parameters")], [*_places(network, "_buffers")]
        )
    return found


def _places(network: nn.Module, kind: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The dictionary and the key of each tensor; a shared one counts once, as in `parameters()`."""
    seen = set[int]()
    for module in network.modules():
        held = getattr(module, kind)
        for key, tensor in held.items():
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                yield held, key


def warm(momentum: float, steps: NumberT) -> NumberT:
    """A momentum for `ema` after so many steps: min(momentum, (1 + steps) / (10 + steps)).

    Of steps counted in a buffer it is a number on the device, for which nothing waits.
    Of a momentum of 0.999, 95 % of the average is still initial weights after 50 steps.
    """
    share = (1 + steps) / (10 + steps)
    return share.clamp(max=momentum) if isinstance(share, Tensor) else min(momentum, share)


@contextlib.contextmanager
def unrecorded(*networks: nn.Module) -> Iterator[None]:
    """Within it, passes in training mode leave the running statistics of batch norms as they are."""
    every = (m for each in networks for m in each.modules() if isinstance(m, BATCH_NORM))
    with contextlib.ExitStack() as kept:
        for norm in (m for m in every if m.track_running_stats):
            norm.track_running_stats = False
            kept.callback(setattr, norm, "track_running_stats", True)
        yield


@torch.no_grad()
def in_parts(network: nn.Module, x: Tensor, parts: int) -> Tensor:
    """Passes a batch without gradient in so many parts, each with batch statistics of its own.

    On a device equal parts pass as one, where only norms look at them one by one: small passes would
    leave it idle.
    """
    norms = [m for m in network.modules() if isinstance(m, BATCH_NORM)]
    odd = any(m.momentum is None or not m.training for m in norms)
    if x.device.type == "cpu" or len(x) % parts or odd:
        return torch.cat([network(part) for part in x.tensor_split(parts)])
    with contextlib.ExitStack() as patches:
        for norm in norms:
            patches.enter_context(_forward_of(norm, partial(_norm_parts, norm, parts)))
        found: Tensor = network(x)
        return found


@contextlib.contextmanager
def _forward_of(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Lends a module another forward."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


def _norm_parts(norm: nn.modules.batchnorm._BatchNorm, parts: int, x: Tensor) -> Tensor:
    """Batch norm in training mode of each of the parts [B / parts, C, ...] of x, without gradient."""
    split = x.float().reshape(parts, -1, *x.shape[1:])  # [P, b, C, ...]
    others = (1, *range(3, split.dim()))
    variance, mean = torch.var_mean(split, others, correction=0, keepdim=True)  # [P, 1, C, ...]
    scale = (variance + norm.eps).rsqrt()
    if norm.affine:
        shape = (-1, *[1] * (x.dim() - 2))
        scale = scale * norm.weight.view(shape)
        shift = norm.bias.view(shape) - mean * scale
    else:
        shift = -mean * scale
    if norm.running_mean is not None and norm.running_var is not None:
        size = x.numel() // (parts * x.shape[1])
        new = norm.momentum
        assert new is not None
        assert norm.num_batches_tracked is not None
        stay = (1 - new) ** torch.arange(parts, device=x.device).flip(0).float()
        share = new * stay  # [P], of each part in the running mean
        unbiased = variance * (size / max(size - 1, 1))
        for running, own in ((norm.running_mean, mean), (norm.running_var, unbiased)):
            running.mul_((1 - new) ** parts).add_(share @ own.reshape(parts, -1))
        norm.num_batches_tracked.add_(parts)
    return torch.addcmul(shift, split, scale).flatten(0, 1).to(x.dtype)


@torch.no_grad()
def sinkhorn(scores: Tensor, *, eps: float = 0.05, iterations: int = 3) -> Tensor:
    """Turns scores [B, K] into float32 codes [B, K] that spread images evenly over K prototypes.

    Starting from exp(scores / eps), each iteration scales prototypes to equal mass, then images to
    mass 1 (arXiv 2006.09882, appendix). Rows sum to 1 up to float32 rounding.
    """
    if scores.ndim != 2 or iterations < 1:
        found = f"{list(scores.shape)} and {iterations}"
        raise ValueError(f"sinkhorn takes [B, K] scores and one iteration or more; found {found}")
    logits = scores.float() / eps  # [B, K]
    # The first round is taken on logarithms, so that nothing under- or overflows however far
    # scores lie apart. After it every row and column has an entry of at least 1 / (B K).
    codes = torch.softmax(logits - torch.logsumexp(logits, dim=0), dim=1)  # [B, K]
    for _ in range(iterations - 1):
        codes /= codes.sum(dim=0)
        codes /= codes.sum(dim=1, keepdim=True)
    return codes


def normalised(x: Tensor) -> Tensor:
    """Scales rows [B, D] to unit length, in float32 whatever the precision of x."""
    return F.normalize(x.float(), dim=-1)


def full_precision(x: Tensor) -> torch.autocast:
    """Turns autocast off within a block; tensors used there should be float32."""
    return torch.autocast(x.device.type, enabled=False)


def sharpen(p: Tensor, temperature: float) -> Tensor:
    """Shares p [B, K] to the power of 1 / temperature, which again sum to 1."""
    p = p ** (1 / temperature)
    return p / p.sum(1, keepdim=True)


def mixup(x: Tensor, target: Tensor, alpha: float, *, each: bool = False) -> tuple[Tensor, Tensor]:
    """Mixes images and targets [B, ...] with those of another image of the batch.

    One's own share is at least a half, of a draw from Beta(alpha, alpha) (arXiv 1905.02249): one for
    all, or with `each` one for each.
    """
    beta = torch.distributions.Beta(alpha, alpha)
    drawn = beta.sample((len(x),) if each else ()).double()
    share = torch.maximum(drawn, 1 - drawn)
    other = torch.randperm(len(x), device=x.device)

    def mixed(of: Tensor) -> Tensor:
        shape = (-1, *[1] * (of.dim() - 1))
        own, rest = (s.view(shape).to(of, non_blocking=True) for s in (share, 1 - share))
        return own * of + rest * of[other]

    return mixed(x), mixed(target)


def semi_supervised(logits: Tensor, target: Tensor, known: Tensor, weight: float) -> Tensor:
    """MixMatch's loss of logits [B, K] (arXiv 1905.02249).

    Cross-entropy with targets [B, K] where known [B], and `weight` times the squared error of
    probabilities, a mean over classes, elsewhere. Each is 0 where there are no such images.
    """
    with full_precision(logits):
        logs, known = logits.float().log_softmax(1), known.float()  # [B, K], [B]
        entropy = -(target * logs).sum(1) * known
        error = (logs.exp() - target).square().mean(1) * (1 - known)
        count = known.sum()
        rest = (len(logits) - count).clamp_min(1)
        return entropy.sum() / count.clamp_min(1) + weight * (error.sum() / rest)


def sincos(grid: tuple[int, int], dim: int) -> Tensor:
    """Fixed positions [rows * columns, dim] of a grid, row by row (arXiv 2104.02057).

    The sines of row and column come first, then the cosines of both.
    ValueError where dim is not a multiple of 4.
    """
    if dim % 4:
        raise ValueError(
            f"sines and cosines of two axes take a width of a multiple of 4, got {dim}"
        )
    waves = 10_000 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    angles = [torch.arange(side).outer(waves) for side in grid]  # each [side, dim / 4]
    rows, columns = angles[0][:, None].expand(-1, grid[1], -1), angles[1].expand(grid[0], -1, -1)
    both = torch.cat([rows, columns], 2).flatten(0, 1)  # [rows * columns, dim / 2]
    return torch.cat([both.sin(), both.cos()], 1).float()


def taken(tokens: Tensor, places: Tensor) -> Tensor:
    """The tokens [B, n, D] at these places [B, n] of each image's tokens [B, T, D]."""
    return tokens.take_along_dim(places[..., None], 1)


def by_size(network: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """Applies a network to views [B, 3, H, W], one pass for each size.

    Returns [views * B, ...] with the largest views first.
    """
    sizes = sorted({v.shape[-1] for v in views}, reverse=True)
    return torch.cat([network(torch.cat([v for v in views if v.shape[-1] == s])) for s in sizes])


def deepest(shapes: Sequence[tuple[int, int, int]], side: float) -> int:
    """Which of a backbone's `shapes` is the deepest with sides of at least `side` positions.

    Where all are smaller, the deepest of the largest.
    """
    sides = [min(high, wide) for _, high, wide in shapes]
    least = min(side, max(sides))
    return max(level for level, found in enumerate(sides) if found >= least)


def replace_batch_norms(network: ModuleT) -> ModuleT:
    """The same network with layer norms over channels and positions where batch norms were.

    For losses that must not tell an image of the others in its batch.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BATCH_NORM):
                setattr(parent, name, _layer_norm(child))
    return network


def _layer_norm(norm: Any) -> nn.Module:
    """In place of a batch norm, with its scale and shift and, where it is timm's, its activation."""
    new = nn.GroupNorm(1, norm.num_features, eps=norm.eps, affine=norm.affine)
    if norm.affine:
        new.weight, new.bias = norm.weight, norm.bias
    behind = [getattr(norm, key) for key in ("drop", "act") if hasattr(norm, key)]
    return nn.Sequential(new, *behind) if behind else new


def decoder(dim: int, size: int, *, side: int = 0, width: int = 32) -> nn.Sequential:
    """Vectors [B, dim], or with `side` maps [B, dim, side, side], -> [B, 3, size, size].

    What comes out has no bounds. Each stage doubles the side by repeating pixels and convolves, so
    that all of them are reached equally often: transposed convolutions leave a checkerboard. Stages
    have `width` channels at the last side and twice as many at each one before, up to 8 times; all
    but the last layer have batch norm.
    """
    sides, first = [size], side or 4
    while sides[0] > first and (half := (sides[0] + 1) // 2) >= first:  # as strided convolutions do
        sides.insert(0, half)
    widths = [width * min(8, 2**i) for i in reversed(range(len(sides)))]
    if side:
        layers = [*_enlarged(side, sides[0]), *_convolved(dim, widths[0])]
    else:
        flat = widths[0] * sides[0] ** 2
        shape = (widths[0], sides[0], sides[0])
        layers = [nn.Linear(dim, flat, bias=False), nn.Unflatten(1, shape), *_normed(widths[0])]
    for (low, high), (wide, narrow) in zip(pairwise(sides), pairwise(widths), strict=True):
        layers += [*_enlarged(low, high), *_convolved(wide, narrow)]
    layers.append(nn.Conv2d(width, 3, 3, padding=1))
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def _enlarged(low: int, high: int) -> list[nn.Module]:
    return [] if low == high else [nn.Upsample((high, high))]


def _convolved(wide: int, narrow: int) -> list[nn.Module]:
    return [nn.Conv2d(wide, narrow, 3, padding=1, bias=False), *_normed(narrow)]


def _normed(width: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


class PooledMaps(nn.Module):
    """[B, 3, H, W] -> [B, D]: all of a backbone's maps, each max-pooled to at most `grid` a side."""

    backbone: Backbone

    def __init__(self, backbone: Backbone, grid: int) -> None:
        super().__init__()
        self.backbone, self.grid = backbone, grid

    def forward(self, x: Tensor) -> Tensor:
        maps = self.backbone.maps(x)
        sides = [[min(self.grid, side) for side in each.shape[2:]] for each in maps]
        pooled = [F.adaptive_max_pool2d(m, s).flatten(1) for m, s in zip(maps, sides, strict=True)]
        return torch.cat(pooled, 1)


class Standardise(nn.Module):
    """Gives every image of [..., 3, H, W] the mean and deviation that ImageNet's channels have.

    Backbones, which normalise their input, thus see 0 and 1. Channels are brought to their mean
    one by one, and to their deviation one by one or, unless `each`, together. What is constant
    becomes the mean. Values may leave [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, each: bool = True) -> None:
        super().__init__()
        self.over = (-2, -1) if each else (-3, -2, -1)
        for name, values in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean((-2, -1), keepdim=True)
        deviation = centred.square().mean(self.over, keepdim=True).sqrt_()
        # far below that of one pixel of 8 bits, so that no rounding error is enlarged
        scale = torch.where(deviation > 1e-5, self.std / deviation, 0.0)
        return torch.addcmul(self.mean, centred, scale)


@torch.no_grad()
def check_side(backbone: Backbone, side: int, *, what: str) -> None:
    """ValueError where a backbone does not take images of `side` pixels; `what` says what they are."""
    training = [m for m in backbone.modules() if m.training]
    try:
        backbone.eval()(next(backbone.parameters()).new_zeros(1, 3, side, side))
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{backbone.name} does not take {what} of {side} pixels ({said}); set tile to a side "
            f"that it takes, to which they are resized"
        ) from error
    finally:
        for module in training:
            module.training = True
