"""Draws batches of images, puts them on the device, and seeds the global generators."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..api import Epoch, Stream
from ..blocks import free_memory, sent
from ..cells.cell import derive

SHARE = 0.25  # of a GPU's free memory that a dataset may take


def seed_all(seed: int, device: torch.device) -> None:
    """Seeds every global generator. Seeding torch's this way is 200 times as fast as manual_seed."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextlib.contextmanager
def kept_generators(device: torch.device) -> Iterator[None]:
    """Restores the global generators afterwards, so that loading and training leave them alike."""
    cuda = [device.index or 0] if device.type == "cuda" else []
    ours, theirs = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(theirs)


class Taken(NamedTuple):
    """The images of one stream at one step, on the device."""

    images: Tensor  # uint8 [B, 3, H, W]
    rows: Tensor  # [B], their positions
    labelled: bool  # whether any of them shows its label


class Feed:
    """Gives batches of uint8 images by position. The images stay on the device when they fit."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        device: torch.device,
        clips: Tensor | None = None,
        domains: Tensor | None = None,
    ) -> None:
        self.device = device
        self.clips, self.domains = clips, domains  # int64 [N] each, on the host
        self.labels = labels.to(device)  # [N]
        self.shown = labels.cpu() >= 0  # [N], on the host
        self.images = images  # [N, 3, H, W]
        self.resident = device.type != "cuda" or images.numel() < SHARE * free_memory(device)
        if self.resident:
            self.images = images.to(device)

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: Tensor) -> Tensor:
        """A batch [B, 3, H, W] on the device; `index` is on the CPU."""
        if self.resident:
            return self.images.index_select(0, index.to(self.device))
        return self.images.index_select(0, index).to(self.device)

    def batches(
        self, drawn: Mapping[str, Tensor], first: int
    ) -> Generator[dict[str, Taken], None, None]:
        """Yields the batch of every stream at each step from `first` on, in the order drawn.

        `drawn` has positions [steps, B], on the host. They go to the device at once, so that no
        step has to wait for it. Close the iterator when you leave it early: a thread may be
        fetching the next batch.
        """
        there = {name: sent(order, self.device) for name, order in drawn.items()}
        shown = {name: self.shown[order].any(1).tolist() for name, order in drawn.items()}
        steps = range(first, len(next(iter(drawn.values()))))
        given = self._there(there, steps) if self.resident else self._ahead(drawn, steps)
        for step, images in zip(steps, given, strict=True):
            yield {
                name: Taken(images[name], order[step], shown[name][step])
                for name, order in there.items()
            }

    def _there(self, drawn: Mapping[str, Tensor], steps: range) -> Iterator[dict[str, Tensor]]:
        """Batches of images that are on the device."""
        for step in steps:
            yield {k: self.images.index_select(0, order[step]) for k, order in drawn.items()}

    def _ahead(self, drawn: Mapping[str, Tensor], steps: range) -> Iterator[dict[str, Tensor]]:
        """Batches that a thread gathers into pinned memory, one ahead of the step that trains."""
        shape = self.images.shape[1:]
        pinned = [
            {
                name: torch.empty(order.shape[1], *shape, dtype=self.images.dtype, pin_memory=True)
                for name, order in drawn.items()
            }
            for _ in range(2)
        ]
        copied = [torch.cuda.Event() for _ in pinned]  # type: ignore[no-untyped-call]

        def gather(step: int) -> None:
            copied[step % 2].synchronize()  # what lay there is on the device
            for name, order in drawn.items():
                torch.index_select(self.images, 0, order[step], out=pinned[step % 2][name])

        with ThreadPoolExecutor(1, "feed") as thread:
            ready = thread.submit(gather, steps.start) if steps else None
            for step in steps:
                assert ready is not None
                ready.result()
                parts = pinned[step % 2]
                given = {k: part.to(self.device, non_blocking=True) for k, part in parts.items()}
                copied[step % 2].record()
                if step + 1 < steps.stop:
                    ready = thread.submit(gather, step + 1)
                yield given


def main_order(length: int, *, steps: int, batch: int, epoch: Epoch, seed: int) -> Tensor:
    """Draws the positions [steps, B] of a whole epoch at once, so that resuming is simple.

    Images beyond the last whole batch are dropped.
    """
    if epoch.weights is None:
        drawn = torch.randperm(length, generator=torch.Generator().manual_seed(seed))
        return drawn[: steps * batch].view(steps, batch)
    weights = epoch.weights.detach().cpu().double().numpy()
    if len(weights) != length or not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError(f"epoch.weights must be {length} finite weights of at least 0")
    upto = np.cumsum(weights)  # torch.multinomial ends at 2^24 images
    if upto[-1] <= 0:
        raise ValueError("epoch.weights are all zero")
    points = np.random.default_rng(seed).random(steps * batch) * upto[-1]
    found = np.searchsorted(upto, points, side="right").clip(max=length - 1)
    return torch.from_numpy(found).view(steps, batch)


def stream_order(
    name: str, stream: Stream, main: Tensor | None, *, steps: int, batch: int, seed: int
) -> Tensor:
    """Draws the positions [steps, b] of one stream for an epoch."""
    pool = stream.pool.detach().cpu().long()
    if pool.numel() == 0:
        raise ValueError(f"the pool of stream {name!r} is empty")
    generator = torch.Generator().manual_seed(seed)
    if pool.dim() == 2:
        if main is None:
            raise ValueError(
                f"stream {name!r} gives partners to main images, but epoch.main is off"
            )
        column = torch.randint(pool.shape[1], main.shape, generator=generator)
        return pool[main, column]
    each = stream.batch or max(1, round((stream.share or 1.0) * batch))
    rounds = -(-steps * each // len(pool))
    drawn = torch.cat([torch.randperm(len(pool), generator=generator) for _ in range(rounds)])
    return pool[drawn[: steps * each]].view(steps, each)


def orders(
    epoch: Epoch, length: int, *, steps: int, batch: int, origin: tuple[object, ...]
) -> dict[str, Tensor]:
    """Draws the positions of every stream of an epoch.

    `origin` is (dataset, seed), so that all methods see the same order.
    """

    def seed(stream: str) -> int:
        return derive("order", *origin, epoch.number, stream)

    found: dict[str, Tensor] = {}
    if epoch.main:
        found["main"] = main_order(length, steps=steps, batch=batch, epoch=epoch, seed=seed("main"))
    for name, stream in epoch.streams.items():
        if name == "main":
            raise ValueError("a stream cannot be called 'main'")
        found[name] = stream_order(
            name, stream, found.get("main"), steps=steps, batch=batch, seed=seed(name)
        )
    if not found:
        raise ValueError("epoch.main is off and there are no streams: nothing to train on")
    return found
