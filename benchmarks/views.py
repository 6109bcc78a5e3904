"""Compares our batched SimCLR view in speed with torchvision's, image by image, on one thread.

    python benchmarks/views.py --size 32 --batch 256
    python benchmarks/views.py --size 224 --batch 16 --ops   # what a GPU is asked, without one

Rounds are interleaved, so that a busy machine slows both; the ratio is the median over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms as T

from sslbench import views
from sslbench.testing.pretend_cuda import pretend_cuda


def batched(size: int, blur: bool) -> Callable[[Tensor], Tensor]:
    return views.contrastive(size, blur=0.5 if blur else 0.0)


def one_by_one(size: int, blur: bool) -> Callable[[Tensor], Tensor]:
    steps = [
        T.RandomResizedCrop(size),
        T.RandomHorizontalFlip(),
        T.RandomApply([T.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
        T.RandomGrayscale(0.2),
    ]
    if blur:
        steps.append(T.RandomApply([T.GaussianBlur(views.blur_kernel(size), (0.1, 2.0))], 0.5))
    transform = T.Compose([*steps, T.ToTensor()])

    def view(images: Tensor) -> Tensor:
        pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
        return torch.stack([transform(picture) for picture in pictures])

    return view


def seconds(view: Callable[[Tensor], Tensor], images: Tensor) -> float:
    start = time.perf_counter()
    view(images)
    return time.perf_counter() - start


def compare(options: argparse.Namespace, blur: bool) -> None:
    torch.manual_seed(0)
    coarse = torch.rand(options.batch, 3, 8, 8)
    images = torch.nn.functional.interpolate(coarse, options.source or options.size)
    images = images.mul(255).to(torch.uint8)
    ours, theirs = batched(options.size, blur), one_by_one(options.size, blur)
    seconds(ours, images), seconds(theirs, images)
    rounds = [(seconds(ours, images), seconds(theirs, images)) for _ in range(options.rounds)]
    us = [1e6 / options.batch * statistics.median(column) for column in zip(*rounds, strict=True)]
    ratio = statistics.median(theirs / ours for ours, theirs in rounds)
    print(
        f"crop, flip, jitter, grey{', blur' if blur else ''}: batched {us[0]:.1f} us, "
        f"image by image {us[1]:.0f} us a view; ratio {ratio:.1f}"
    )


def count(options: argparse.Namespace) -> None:
    """Prints the operations of views on a GPU, and the bytes that they move for each value."""
    side, small = options.size, views.small_side(options.size)
    chains = {
        "contrastive": views.contrastive(side),
        "contrastive, solarised": views.contrastive(side, solarise=0.2),
        "small crop": views.contrastive(small, scale=(0.05, 0.14)),
        "crop and flip": views.crop_flip(side),
        "crop and RandAugment": views.Chain(views.crop_flip(side), views.RandAugment()),
    }
    torch.manual_seed(0)
    source = options.source or side
    images = torch.randint(0, 256, (options.batch, 3, source, source), dtype=torch.uint8)
    for name, chain in chains.items():
        with pretend_cuda() as gpu:
            there = images.to("cuda")
            with gpu.watched() as seen:
                values = chain(there).numel()
        print(
            f"{name}: {seen.count} operations, {seen.bytes / values:.0f} bytes for each value of "
            f"the view, {sum(seen.copies.values())} copies to the device"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=32, help="pixels, side of the view")
    parser.add_argument("--source", type=int, help="pixels, side of the image; the view's")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ops", action="store_true", help="count operations on a pretended GPU")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.ops:
        count(options)
        return
    for blur in (False, True):
        compare(options, blur)


if __name__ == "__main__":
    main()
