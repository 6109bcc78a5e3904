"""Compares our batched corruptions in speed with packages that take one image at a time, on a core.

    python benchmarks/corruptions.py --write

Packages that are not installed are named and left out:

    pip install --no-deps imagecorruptions albumentations==2.0.8 albucore==0.0.24 torch-uncertainty
    pip install simsimd stringzilla kornia kornia_rs einops lightning pandas seaborn scikit-image \
        opencv-python-headless

All read and return bytes, at severity 3 or what is nearest to it. Rounds are interleaved, so that a
busy machine slows all alike; a ratio is of processor time, the median over rounds. imagecorruptions
needs functions that NumPy, scikit-image and setuptools have removed: this script restores them.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import numpy as np
import torch
from torch import Tensor

from sslbench import corruptions

RESULTS = Path(__file__).parent / "results" / "corruptions.md"
SEVERITY = 3
Act = Callable[[Tensor], object]  # on a batch, uint8 [B, 3, H, W]
ALBUMENTATIONS = {  # as near to severity 3 as its parameters come
    "gaussian_noise": ("GaussNoise", {"std_range": (0.08, 0.08)}),
    "shot_noise": ("ShotNoise", {"scale_range": (0.1, 0.1)}),
    "impulse_noise": ("SaltAndPepper", {"amount": (0.03, 0.03), "salt_vs_pepper": (0.5, 0.5)}),
    "defocus_blur": ("Defocus", {"radius": (1, 1), "alias_blur": (0.6, 0.6)}),
    "glass_blur": ("GlassBlur", {"sigma": 0.4, "max_delta": 1, "iterations": 1, "mode": "fast"}),
    "motion_blur": ("MotionBlur", {"blur_limit": (13, 13)}),
    "zoom_blur": ("ZoomBlur", {"max_factor": (1.16, 1.16), "step_factor": (0.01, 0.01)}),
    "snow": ("RandomSnow", {"method": "texture"}),
    "fog": ("RandomFog", {}),
    "brightness": (
        "RandomBrightnessContrast",
        {"brightness_limit": (0.15, 0.15), "contrast_limit": (0, 0)},
    ),
    "contrast": (
        "RandomBrightnessContrast",
        {"brightness_limit": (0, 0), "contrast_limit": (-0.6, -0.6)},
    ),
    "elastic_transform": ("ElasticTransform", {"alpha": 2.56, "sigma": 1.92}),
    "pixelate": ("Downscale", {"scale_range": (0.85, 0.85)}),
    "jpeg_compression": ("ImageCompression", {"quality_range": (58, 58)}),
    "speckle_noise": (
        "MultiplicativeNoise",
        {"multiplier": (0.88, 1.12), "per_channel": True, "elementwise": True},
    ),
    "gaussian_blur": ("GaussianBlur", {"sigma_limit": (0.7, 0.7)}),
    "spatter": (
        "Spatter",
        {"std": (0.3, 0.3), "gauss_sigma": (1, 1), "cutout_threshold": (0.69, 0.69)},
    ),
    "saturate": (
        "ColorJitter",
        {"saturation": (1.5, 1.5), "brightness": (1, 1), "contrast": (1, 1), "hue": (0, 0)},
    ),
}
TORCH_UNCERTAINTY = {  # it has no spatter, and downloads its frost
    "gaussian_noise": "GaussianNoise",
    "shot_noise": "ShotNoise",
    "impulse_noise": "ImpulseNoise",
    "defocus_blur": "DefocusBlur",
    "glass_blur": "GlassBlur",
    "motion_blur": "MotionBlur",
    "zoom_blur": "ZoomBlur",
    "snow": "Snow",
    "fog": "Fog",
    "brightness": "Brightness",
    "contrast": "Contrast",
    "elastic_transform": "Elastic",
    "pixelate": "Pixelate",
    "jpeg_compression": "JPEGCompression",
    "speckle_noise": "SpeckleNoise",
    "gaussian_blur": "GaussianBlur",
    "saturate": "Saturation",
}


# ---- who renders ---------------------------------------------------------------------------


def ours(name: str) -> Act:
    def act(images: Tensor) -> object:
        index = torch.arange(len(images))
        return corruptions.corrupt(images, name, SEVERITY, index=index)

    return act


def imagecorruptions() -> dict[str, Act]:
    """Renderers of imagecorruptions: all 19, with ImageNet's parameters."""
    if importlib.util.find_spec("pkg_resources") is None:
        stub = types.ModuleType("pkg_resources")
        stub.resource_filename = lambda module, path: str(  # type: ignore[attr-defined]
            Path(sys.modules[module].__file__ or "").parent / path
        )
        sys.modules["pkg_resources"] = stub
    np.float_ = np.float64  # type: ignore[attr-defined]
    package = importlib.import_module("imagecorruptions")
    inside = importlib.import_module("imagecorruptions.corruptions")
    gaussian = inside.gaussian

    def with_channels(image, *given, multichannel=False, **named):  # type: ignore[no-untyped-def]
        return gaussian(image, *given, channel_axis=-1 if multichannel else None, **named)

    inside.gaussian = with_channels

    def renderer(name: str) -> Act:
        return lambda images: [
            package.corrupt(picture, severity=SEVERITY, corruption_name=name)
            for picture in images.permute(0, 2, 3, 1).numpy()
        ]

    return {name: renderer(name) for name in corruptions.ALL}


def albumentations() -> dict[str, Act]:
    package = importlib.import_module("albumentations")

    def renderer(kind: str, options: dict[str, object]) -> Act:
        transform = getattr(package, kind)(**options, p=1)
        return lambda images: [
            transform(image=np.ascontiguousarray(picture))["image"]
            for picture in images.permute(0, 2, 3, 1).numpy()
        ]

    return {name: renderer(*given) for name, given in ALBUMENTATIONS.items()}


def torch_uncertainty() -> dict[str, Act]:
    """Renderers of torch-uncertainty, with ImageNet's parameters; batched where it can."""
    package = importlib.import_module("torch_uncertainty.transforms.corruption")

    def renderer(kind: str) -> Act:
        transform = getattr(package, kind)(SEVERITY)

        def act(images: Tensor) -> object:
            if getattr(transform, "batchable", False):
                return transform(images.float().div(255)).mul(255).byte()
            return [transform(image.float().div(255)).mul(255).byte() for image in images]

        return act

    return {name: renderer(kind) for name, kind in TORCH_UNCERTAINTY.items()}


PACKAGES = {
    "imagecorruptions": imagecorruptions,
    "albumentations": albumentations,
    "torch-uncertainty": torch_uncertainty,
}


def installed(images: Tensor) -> tuple[dict[str, dict[str, Act]], list[str]]:
    """Renderers by package and corruption, and sentences on packages that do not run here."""
    found: dict[str, dict[str, Act]] = {}
    missing = []
    for package, load in PACKAGES.items():
        try:
            acts = load()
        except ImportError as fault:
            missing.append(f"{package}: {fault}")
            continue
        found[package] = {}
        for name, act in acts.items():
            try:
                act(images[:2])
            except (
                TypeError,
                ValueError,
                AttributeError,
                RuntimeError,
                KeyError,
                OSError,
            ) as fault:
                missing.append(f"{package}, {name}: {type(fault).__name__}: {fault}")
            else:
                found[package][name] = act
    return found, missing


# ---- measuring -----------------------------------------------------------------------------


def rate(act: Act, images: Tensor, least: float) -> float:
    """Images per second, measured for at least so many seconds."""
    done, start = 0, time.process_time()
    while (spent := time.process_time() - start) < least:
        act(images)
        done += len(images)
    return done / spent


def compare(
    name: str, packages: dict[str, dict[str, Act]], images: Tensor, rounds: int
) -> tuple[float, dict[str, float]]:
    """Our images per second, and our ratio to every package with the corruption."""
    own = ours(name)
    others = {package: acts[name] for package, acts in packages.items() if name in acts}
    rate(own, images, 0)
    few = images[:8]
    for act in others.values():
        rate(act, few, 0)
    mine: list[float] = []
    ratios: dict[str, list[float]] = {package: [] for package in others}
    for _ in range(rounds):
        mine.append(rate(own, images, 0.05))
        for package, act in others.items():
            # those that take a batch get one as large as ours
            theirs = rate(act, images if package == "torch-uncertainty" else few, 0.05)
            ratios[package].append(mine[-1] / theirs)
    return statistics.median(mine), {p: statistics.median(r) for p, r in ratios.items()}


def mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def report(options: argparse.Namespace) -> str:
    torch.manual_seed(0)
    coarse = torch.rand(options.batch, 3, 8, 8)
    images = torch.nn.functional.interpolate(coarse, options.size, mode="bicubic")
    images = (images + 0.05 * torch.randn_like(images)).clamp(0, 1).mul(255).byte()
    packages, missing = installed(images)
    rows, best = [], {}
    every: dict[str, dict[str, float]] = {package: {} for package in packages}
    for name in corruptions.ALL:
        speed, ratios = compare(name, packages, images, options.rounds)
        for package, ratio in ratios.items():
            every[package][name] = ratio
        best[name] = min(ratios.values())
        cells = [f"{ratios[p]:.1f}" if p in ratios else "-" for p in packages]
        rows.append(f"| {name} | {speed:,.0f} | {' | '.join(cells)} | {best[name]:.1f} |")
        print(rows[-1], flush=True)
    means = [f"**{mean([*own.values()]):.1f}** ({len(own)})" for own in every.values()]
    below = [
        f"- {package}: "
        + (", ".join(f"{name} {r:.2f}x" for name, r in own.items() if r < 1) or "none")
        for package, own in every.items()
    ]
    unfrozen = [
        f"{package} {mean([r for name, r in own.items() if name != 'frost']):.1f}"
        for package, own in every.items()
        if "frost" in own
    ]
    return "\n".join(
        [
            "# Corruptions: batched against one at a time",
            "",
            f"`python benchmarks/corruptions.py --write`: {options.size} x {options.size} pixels, "
            f"batches of {options.batch}, one thread of {processor()}, torch {torch.__version__}, "
            f"processor time, median of {options.rounds} interleaved rounds. Packages: "
            + ", ".join(f"{package} {version(package)}" for package in packages)
            + ".",
            "",
            "A number is our images a second over the package's. imagecorruptions has the "
            "published algorithms with ImageNet's parameters; what NumPy, scikit-image and "
            "setuptools have dropped since is put back from outside. albumentations has "
            "transforms of the same kind, often other algorithms, and no frost. "
            "torch-uncertainty ports them to torch with ImageNet's parameters, "
            "some for batches; its frost is a download, and it has no "
            "spatter. imgaug's corruptions are imagecorruptions called from outside, and are not "
            "listed.",
            "",
            f"| corruption | images/s | {' | '.join(packages)} | against the fastest |",
            f"|---|---:|{'---:|' * (len(packages) + 1)}",
            *rows,
            f"| **geometric mean** (of so many) | | {' | '.join(means)} | "
            f"**{mean(list(best.values())):.1f}** ({len(best)}) |",
            "",
            f"Without frost, whose pictures it reads anew for every image: {', '.join(unfrozen)}.",
            "",
            "Below 1x:",
            "",
            *below,
            *(["", "Did not run here: " + "; ".join(missing) + "."] if missing else []),
            "",
        ]
    )


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'a CPU'} ({torch.backends.cpu.get_cpu_capability()})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=32, help="pixels, side of the image")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if importlib.util.find_spec("cv2"):
        importlib.import_module("cv2").setNumThreads(1)
    text = report(options)
    if options.write:
        RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
