"""Writes checkpoints beside the training that goes on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from ..store import CellFolder

PLAIN = torch.contiguous_format


class Saver:
    """Saves files of a cell in a thread, one at a time.

    `save` returns once the tensors are copied, or on a GPU once their copies are asked for, which go
    before whatever the device is asked next: training may change them at once. A file is whole or
    not there, whenever the process is killed, for `CellFolder.save` sees to it.
    """

    def __init__(self, folder: CellFolder) -> None:
        self.folder = folder
        self._thread: ThreadPoolExecutor | None = None
        self._last: Future[Any] | None = None

    def save(self, name: str, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Begins to save; first waits for the save before, and raises what that raised."""
        self.wait()
        copies, copied = _copies(tensors)
        kept = copy.deepcopy(plain)

        def write() -> None:
            copied()
            self.folder.save(name, copies, kept)

        self._thread = self._thread or ThreadPoolExecutor(1, "checkpoint")
        self._last = self._thread.submit(write)

    def wait(self) -> None:
        """Waits until everything is written; raises what writing raised."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def close(self) -> None:
        """Waits likewise, and ends the thread."""
        try:
            self.wait()
        finally:
            if self._thread is not None:
                self._thread.shutdown()
                self._thread = None


def _copies(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Callable[[], None]]:
    """Copies on the host, and what waits until they are there.

    Those of a CPU are contiguous, so that the thread has nothing left to compute. Were it to compute,
    OpenMP would give it a team of its own, and with more threads than processors each operation of
    training waits asleep, which took 1.3 times as long.
    """
    found, device = {}, None
    for name, tensor in tensors.items():
        if tensor.device.type == "cuda":
            device = tensor.device
            found[name] = torch.empty_like(tensor, device="cpu", pin_memory=True)
            found[name].copy_(tensor, non_blocking=True)
        else:
            found[name] = tensor.detach().to("cpu", copy=True, memory_format=PLAIN)
    if device is None:
        return found, lambda: None
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record(torch.cuda.current_stream(device))
    return found, done.synchronize
