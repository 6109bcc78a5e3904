"""Features too large for a device, taken block by block: how many rows fit, and how they get there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

SHARED = 0.25  # of a GPU's free memory that features may take, for all who look at them
WORKING = 0.125  # that a block may take, with all that is made of it
MOST = 1 << 16  # rows of a block on a GPU: more fill it no better, and sums round more
COPIES = 6  # of a block at once: two on their way, two as they come, two as they turn out
WHOLE = 1 << 28  # numbers that a CPU takes as one block, or copies
_PAGE = 1 << 20  # numbers that its cache holds

# features on the host -> the same on the device
_SENT: MutableMapping[Tensor, Tensor] = WeakIdKeyDictionary()


class Rows:
    """Float32 features [N, D] for a device, which get there block by block unless they fit.

    index: of the rows to take, int64 on the host; without it all. turn: what each block goes
    through before it is given, such as `unit`; a row must turn out the same in any block.
    """

    def __init__(
        self,
        features: Tensor,
        device: torch.device | None = None,
        *,
        index: Tensor | None = None,
        turn: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.device = device or features.device
        self.features = _near(features, self.device)
        self.streams = self.features.device.type != self.device.type
        self.turn, self._index = turn, index
        self.index = index if index is None or self.streams else sent(index, self.device)

    def __len__(self) -> int:
        return len(self.features if self.index is None else self.index)

    @property
    def width(self) -> int:
        return self.features.shape[1]

    def some(self, mask: Tensor) -> Rows:
        """Those where `mask`, bool [N] on the host, is true."""
        index = mask.nonzero()[:, 0] if self._index is None else self._index[mask]
        return Rows(self.features, self.device, index=index, turn=self.turn)

    def turned(self, turn: Callable[[Tensor], Tensor]) -> Rows:
        """The same, each block turned once more."""
        before = self.turn

        def both(part: Tensor) -> Tensor:
            return turn(part if before is None else before(part))

        return Rows(self.features, self.device, index=self._index, turn=both)

    def every(self, step: int) -> Rows:
        """One row of each `step`."""
        if step == 1:
            return self
        if self._index is None and not self.streams:
            return Rows(self.features[::step], turn=self.turn)
        index = torch.arange(len(self.features)) if self._index is None else self._index
        return Rows(self.features, self.device, index=index[::step], turn=self.turn)

    def kept(self, share: float = SHARED) -> Rows:
        """The same as they turn out, on the device, where they fit a share of what is free there."""
        plain = self.index is None and self.turn is None and not self.streams
        if plain or not fits(4 * len(self) * self.width, self.device, share):
            return self
        made = torch.empty(len(self), self.width, device=self.device)
        for at, part in self.blocks(self.block(0, cpu=_PAGE // self.width)):
            made[at] = part
        return Rows(made)

    def block(self, made: int, *, cpu: int) -> int:
        """How many rows a block has, where each takes `made` bytes beside its numbers.

        On a GPU as many as an eighth of its free memory has room for, up to 65,536, else `cpu`.
        """
        if self.device.type != "cuda":
            return max(1, cpu)
        room = int(WORKING * free_memory(self.device))
        return max(1, min(MOST, room // (made + 4 * COPIES * self.width)))

    def blocks(self, size: int) -> Iterator[tuple[slice, Tensor]]:
        """Where rows stand, and the rows [n, D] on the device, `size` at a time.

        A block may be written over as soon as the next is asked for.
        """
        given = self.parts(size)
        if self.streams:
            given = _streamed(self.features, self.index, size, self.device)
        start = 0
        for part in given:
            yield slice(start, start + len(part)), self._turned(part)
            start += len(part)

    def parts(self, size: int) -> Iterator[Tensor]:
        """Blocks as the features are, where they are."""
        if self.index is None:
            yield from torch.split(self.features, size)
        else:
            for rows in torch.split(self.index, size):
                yield self.features[rows]

    def take(self, at: Tensor) -> Tensor:
        """The rows at these places, on the device. The host waits for `at` where rows stream."""
        if at.device.type != self.features.device.type:
            at = sent(at, self.features.device)
        rows = self.features[at if self.index is None else self.index[at]]
        return self._turned(rows.to(self.device, non_blocking=True))

    def _turned(self, part: Tensor) -> Tensor:
        part = part.float()
        return part if self.turn is None else self.turn(part)


def as_rows(features: Tensor | Rows) -> Rows:
    return features if isinstance(features, Rows) else Rows(features)


def free_memory(device: torch.device) -> int:
    """Bytes that a GPU has to spare, with those that this process holds and does not use."""
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + max(unused, 0))


def fits(size: int, device: torch.device, share: float) -> bool:
    """Whether so many bytes are within a share of what a GPU has free; elsewhere within 1 GiB."""
    return size <= (share * free_memory(device) if device.type == "cuda" else 4 * WHOLE)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Copies numbers of the host to a device without waiting for it."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def broken(features: Tensor | Rows) -> int:
    """How many rows of [N, D] hold NaN or infinity, looked at where they are."""
    rows = as_rows(features)
    parts = rows.parts(max(1, 4 * _PAGE // max(1, rows.width)))
    return int(sum((~part.isfinite()).any(1).sum() for part in parts))


def largest(rows: Rows) -> Tensor:
    """The largest magnitude in each column [1, D]."""
    return torch.stack(
        [
            torch.maximum(-part.amin(0, keepdim=True), part.amax(0, keepdim=True))
            for _, part in rows.blocks(rows.block(0, cpu=WHOLE // rows.width))
        ]
    ).amax(0)


def moments(rows: Rows) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each column [D]: float64 of which float32 holds all that is known."""
    found = [
        (len(part), part.mean(0).double(), part.std(0, unbiased=False).double())
        for _, part in rows.blocks(rows.block(0, cpu=WHOLE // rows.width))
    ]
    n = len(rows)
    mean = torch.stack([many * own for many, own, _ in found]).sum(0).div(n).float().double()
    squares = [many * (std.square() + (own - mean).square()) for many, own, std in found]
    return mean, torch.stack(squares).sum(0).div(n).sqrt()


def _near(features: Tensor, device: torch.device) -> Tensor:
    """The features on the device if they fit, sent once for all who ask while they live."""
    if features.device.type == device.type:
        return features
    if features.device.type != "cpu" or device.type != "cuda" or features.requires_grad:
        return features.to(device)
    found = _SENT.get(features)
    if found is None and fits(features.numel() * features.element_size(), device, SHARED):
        _SENT[features] = found = torch.empty_like(features, device=device)
        start = 0
        for part in _streamed(features, None, max(1, 16 * _PAGE // features.shape[1]), device):
            found[start : start + len(part)] = part
            start += len(part)
    return features if found is None else found


class _Slot:
    """Room for a block on the device, and for the same where the device can read it by itself."""

    def __init__(self, size: int, features: Tensor, device: torch.device, *, here: bool) -> None:
        shape, kind = (size, features.shape[1]), features.dtype
        self.there = torch.empty(shape, dtype=kind, device=device)
        self.here = torch.empty(shape, dtype=kind, pin_memory=True) if here else None
        self.copied: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.read: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def filled(self, features: Tensor, index: Tensor | None, start: int, stop: int) -> Tensor:
        """Rows of the host from start to stop, where the device can read them."""
        if self.here is None:
            return features[start:stop]
        self.copied.synchronize()  # the one wait: for the copy of two blocks ago
        into = self.here[: stop - start]
        if index is None:
            return into.copy_(features[start:stop])
        return torch.index_select(features, 0, index[start:stop], out=into)


def _streamed(
    features: Tensor, index: Tensor | None, size: int, device: torch.device
) -> Iterator[Tensor]:
    """Blocks of features of the host on the device; while one is worked on the next is copied."""
    n = len(features if index is None else index)
    size = max(1, min(size, n))
    pinned = index is None and features.is_pinned()
    slots = [_Slot(size, features, device, here=not pinned) for _ in range(2)]
    here = torch.cuda.current_stream(device)
    beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    beside.wait_stream(here)  # for whatever had the slots' memory before

    def send(start: int) -> None:
        slot, stop = slots[start // size % 2], min(start + size, n)
        source = slot.filled(features, index, start, stop)
        with torch.cuda.stream(beside):
            beside.wait_event(slot.read)
            slot.there[: stop - start].copy_(source, non_blocking=True)
            slot.copied.record(beside)

    try:
        for start in range(-size, n, size):
            if start + size < n:
                send(start + size)
            if start >= 0:
                slot = slots[start // size % 2]
                here.wait_event(slot.copied)
                yield slot.there[: min(size, n - start)]
                slot.read.record(here)
    finally:
        here.wait_stream(beside)  # who leaves early leaves a copy on its way
