"""What an encoder costs to use: size, arithmetic, time, memory."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sslbench.api import Count, Evaluator, Judged, Judgement, Metric, Subject, Value
from sslbench.measures import flops

CPU_FLOPS = 5e10  # of the largest batch on a CPU, so that a pass takes about a second
CPU_BYTES = 2**30  # of the tensors of the largest batch there: memory that is too full kills
WARM = 3  # passes before any is timed
PASSES = 200  # timed, at most
SECONDS = 1.0  # of timed passes at a batch size, as soon as there are LEAST of them
LEAST = 3


class Cost(Evaluator):
    """Size, FLOPs, time and memory of the encoder.

    Measured: a copy of the encoder in eval mode, without gradients, on images of test as they are,
    on the device and threads that the record names. `flops` of one image forward as torch counts
    them: convolutions, matrix products and attention, a multiply-add as 2; norms, activations and
    pooling as 0. `bytes` are those of parameters and buffers. `latency_ms` is the median of up to
    200 passes of one image within a second, `latency_p95_ms` their 95th percentile,
    `throughput_1` images a second at that median, `throughput` at the largest batch that fits:
    halved from 1,024 until it does. On a GPU that is until memory holds it; on a CPU, where no
    error comes before the end, until its tensors hold a GiB and a pass 5e10 FLOPs. `memory_1` and
    `memory` are the bytes of parameters, buffers, images and all tensors that torch holds at the
    same time, at most, for one image and for that batch; scratch of kernels is not in them.
    `allocated` is the peak of the GPU's allocator at that batch, scratch included.
    Chosen: nothing; no label is read.
    Source: torch.utils.flop_counter; Dehghani et al., arXiv 2110.12894 (why no one number is it).
    Traps: papers state multiply-adds, half of these FLOPs; times hold for this machine, and only
    while nothing else ran on it; FLOPs do not order encoders by speed.

    batch: the largest that is tried.
    """

    metrics = (
        Metric(
            "flops",
            higher_is_better=False,
            summary="of one image, a multiply-add as 2",
            unit="FLOPs",
        ),
        Metric(
            "parameters", higher_is_better=False, summary="numbers that training moves", unit="1"
        ),
        Metric("bytes", higher_is_better=False, summary="of parameters and buffers", unit="bytes"),
        Metric("latency_ms", higher_is_better=False, summary="one image, median", unit="ms"),
        Metric(
            "latency_p95_ms",
            higher_is_better=False,
            summary="one image, 95th percentile",
            unit="ms",
        ),
        Metric("throughput_1", summary="images a second, one at a time", unit="images/s"),
        Metric(
            "throughput", summary="images a second, at the largest batch that fits", unit="images/s"
        ),
        Metric("batch", summary="the largest batch that fits", unit="images"),
        Metric(
            "memory_1",
            higher_is_better=False,
            summary="bytes alive at once, one image",
            unit="bytes",
        ),
        Metric(
            "memory",
            higher_is_better=False,
            summary="bytes alive at once, largest batch",
            unit="bytes",
        ),
        Metric(
            "allocated", higher_is_better=False, summary="GPU bytes, largest batch", unit="bytes"
        ),
    )
    version = 2

    def __init__(self, *, batch: Count = 1024) -> None:
        self.batch = batch

    def __call__(self, subject: Subject, data: Judged, seed: int) -> Judgement:
        device = torch.device(subject.device)
        start = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        encoder = subject.copy()
        images = _Images(data.images("test"), device)
        with torch.no_grad():
            one = images(1)
            operations = flops(encoder, one)
            kept, memory = weight_bytes(encoder), peak_bytes(encoder, one)
            single = _timed(encoder, one)
            batch = self._first(device, operations, memory)
            many, memory_many, allocated, batch = _largest(encoder, images, batch)
        latency = statistics.median(single)
        numbers = {
            "flops": operations,
            "parameters": sum(p.numel() for p in encoder.parameters()),
            "bytes": kept,
            "latency_ms": 1000 * latency,
            "latency_p95_ms": 1000 * sorted(single)[-(-95 * len(single) // 100) - 1],
            "throughput_1": 1 / latency,
            "throughput": batch / statistics.median(many),
            "batch": batch,
            "memory_1": kept + memory,
            "memory": kept + memory_many,
        }
        if device.type == "cuda":
            numbers["allocated"] = allocated - start
        timed = dict.fromkeys(("latency_ms", "latency_p95_ms", "throughput_1"), len(single))
        timed["throughput"] = len(many)
        return Judgement({k: Value(float(x), timed.get(k)) for k, x in numbers.items()})

    def _first(self, device: torch.device, operations: int, memory: int) -> int:
        """The batch to begin with: the largest asked for; on a CPU one that surely fits."""
        if device.type == "cuda":
            return self.batch
        batch = self.batch
        while batch > 1 and (batch * operations > CPU_FLOPS or batch * memory > CPU_BYTES):
            batch //= 2
        return batch


class _Images:
    """Batches of any size, of the same images again and again."""

    def __init__(self, images: Tensor, device: torch.device) -> None:
        self.images, self.device = images, device

    def __call__(self, batch: int) -> Tensor:
        rows = torch.arange(batch) % len(self.images)
        return self.images[rows].to(self.device).float() / 255


def _largest(encoder: nn.Module, images: _Images, batch: int) -> tuple[list[float], int, int, int]:
    """Seconds of passes, bytes alive at once, the allocator's peak, and the batch."""
    while True:
        try:
            return *_at(encoder, images, batch), batch
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
        batch //= 2  # once what did not fit is forgotten


def _at(encoder: nn.Module, images: _Images, batch: int) -> tuple[list[float], int, int]:
    cuda = images.device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(images.device)
    some = images(batch)
    seconds = _timed(encoder, some)
    peak = torch.cuda.max_memory_allocated(images.device) if cuda else 0
    return seconds, peak_bytes(encoder, some), peak


def _timed(encoder: nn.Module, images: Tensor) -> list[float]:
    """Seconds of single passes, after some that are not counted."""
    wait = _waiter(images.device)
    seconds: list[float] = []
    begun = time.perf_counter()
    for step in range(WARM + PASSES):
        wait()
        start = time.perf_counter()
        encoder(images)
        wait()
        end = time.perf_counter()
        if step >= WARM or (step and end - begun > SECONDS):
            seconds.append(end - start)
        if len(seconds) >= LEAST and end - begun > SECONDS:
            break
    return seconds


def _waiter(device: torch.device) -> Callable[[], Any]:
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return torch.mps.synchronize if device.type == "mps" else lambda: None


def weight_bytes(network: nn.Module) -> int:
    """Of parameters and buffers, each once."""
    tensors = [*network.parameters(), *network.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors)


def peak_bytes(network: nn.Module, images: Tensor) -> int:
    """Most bytes of tensors alive at once in a pass over images, themselves included."""
    own = {t.untyped_storage()._cdata for t in [*network.parameters(), *network.buffers()]}
    with torch.no_grad(), _Living(own, images) as living:
        network(images)
    peak: int = living.peak
    return peak


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts storages as operations make them and as they are freed."""

    def __init__(self, ignored: set[int], images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}
        self._ignored = ignored
        self._add(images)

    def _add(self, made: Any) -> None:
        if not isinstance(made, Tensor):
            return
        storage = made.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._ignored or key in self._known:
            return

        def freed(_: Any) -> None:
            del self._known[key]
            self.now -= size

        self._known[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            self._add(each)
        return made
