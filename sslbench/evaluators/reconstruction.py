"""How like its images are to those that a method rebuilds of them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from sslbench.api import Evaluator, Judged, Judgement, Metric, Subject, Value
from sslbench.errors import Unsuited

TAPS, SIGMA = 11, 1.5  # of the window, pixels
K1, K2 = 0.01, 0.03
LEAST = 1e-10  # mean square error: what is rebuilt to the last bit has 100 dB
_BLOCK = 1 << 22  # numbers in a block of images


class Reconstruction(Evaluator):
    """Compares images with what the method rebuilds of them.

    Measured: on all images of test, labelled or not, pixels from 0 to 1, what lies outside cut off.
    `psnr`, by which methods rank, is -10 log10 of the mean square error over channels and pixels of
    an image, at most 100; `ssim` compares mean, variance and covariance in Gaussian windows (11 x
    11, deviation 1.5, K1 .01, K2 .03) of each channel, wherever a window lies within the image, and
    is left out for images of less than 11 pixels; `mse` is the mean square error. Each is the mean
    over images, with the standard error over images.
    Chosen: nothing.
    Source: Wang et al., Image Quality Assessment, IEEE Trans. Image Processing 13 (2004), doi
    10.1109/TIP.2003.819861 (SSIM).
    Traps: it says how much of an image is kept, not how much of it is understood: `pixels` would be
    perfect. Codes of different sizes do not compare, nor does a method that fills a hole in an image
    and gives back the rest as it was. Flat backgrounds are easy, so compare on one dataset. The mean
    of the PSNR of images is not the PSNR of the mean error, which some report; torchmetrics counts
    windows beyond the border too. Squared errors favour what is blurred.
    """

    metrics = (
        Metric("psnr", summary="peak signal-to-noise ratio", unit="dB"),
        Metric("ssim", summary="structural similarity"),
        Metric("mse", higher_is_better=False, summary="mean square error, pixels from 0 to 1"),
    )
    version = 1

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        rebuilt, images = subject.reconstruct("test"), data.images("test")
        if rebuilt is None:
            raise Unsuited(
                "what it rebuilds of test was to be compared with its images, and this method rebuilds "
                "nothing; leave it out"
            )
        if rebuilt.shape != images.shape:
            raise ValueError(
                f"what it rebuilds of test was to be compared with its images, it is "
                f"{list(rebuilt.shape)} where they are {list(images.shape)}; return images of their "
                "size"
            )
        windows = min(images.shape[2:]) >= TAPS
        found: dict[str, list[Tensor]] = {
            "psnr": [],
            "mse": [],
            **({"ssim": []} if windows else {}),
        }
        for made, real in _blocks(rebuilt, images, subject.device):
            error = (made - real).square().mean((1, 2, 3))
            found["mse"].append(error.cpu())
            found["psnr"].append(-10 * error.clamp_min(LEAST).log10().cpu())
            if windows:
                found["ssim"].append(ssim(made, real).cpu())
        metrics = {name: _mean(torch.cat(parts)) for name, parts in found.items()}
        if windows:
            return Judgement(metrics)
        return Judgement(metrics, {}, (f"images of less than {TAPS} pixels have no ssim",))


def _blocks(
    rebuilt: Tensor, images: Tensor, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Float images in [0, 1] of both on the device, some at a time."""
    exact = torch.float32 if device.type == "mps" else torch.float64  # Metal has no float64
    rows = max(1, _BLOCK // images[0].numel())
    for start in range(0, len(images), rows):
        part = rebuilt[start : start + rows]
        if broken := int((~part.isfinite()).flatten(1).any(1).sum()):
            raise ValueError(
                f"what it rebuilds of test was to be judged, {broken} of {len(part)} images of it hold "
                "NaN or infinity; train again with a lower learning rate"
            )
        real = torch.as_tensor(images[start : start + rows])
        yield part.to(device, exact).clamp(0, 1), real.to(device).to(exact) / 255


def ssim(one: Tensor, two: Tensor) -> Tensor:
    """[B] mean structural similarity of images [B, C, H, W] in [0, 1], symmetric in both."""
    means = _windowed(torch.stack([one, two, one * one, two * two, one * two]).flatten(0, 1))
    a, b, aa, bb, ab = means.view(5, -1, *means.shape[1:])
    c1, c2 = K1**2, K2**2
    alike = (2 * a * b + c1) * (2 * (ab - a * b) + c2)
    whole = (a * a + b * b + c1) * ((aa - a * a) + (bb - b * b) + c2)
    found: Tensor = (alike / whole).mean((1, 2, 3))
    return found


def _windowed(x: Tensor) -> Tensor:
    """Means of [B, C, H, W] under the Gaussian window, at each place where it lies within."""
    away = torch.arange(TAPS, device=x.device, dtype=x.dtype) - TAPS // 2
    taps = torch.exp(-(away**2) / (2 * SIGMA**2))
    taps = taps / taps.sum()
    flat = x.flatten(0, 1)[:, None]  # [B * C, 1, H, W]
    flat = F.conv2d(F.conv2d(flat, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))
    return flat.view(*x.shape[:2], *flat.shape[2:])


def _mean(each: Tensor) -> Value:
    n = len(each)
    return Value(float(each.mean()), n, float(each.std()) / math.sqrt(n) if n > 1 else None)
