"""What the sections of gpu.py share: rows of findings, limits of time, and clocks of a device."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from sslbench.one_cell.environment import peak_memory, reset_peak_memory
from sslbench.train.device import give_back

T = TypeVar("T")
VERDICTS = {True: "ok", False: "FAILED", None: "-"}
BLOCK = "watched block"


class NeedsGpu(Exception):
    """A section, or what is left of it, makes no sense on a CPU."""


class TimeIsUp(BaseException):
    """A limit has passed. No Exception, or the harness would record it as a failure of a cell."""


@dataclass(frozen=True)
class Row:
    section: str
    what: str
    found: str
    right: bool | None  # None: measured only, or skipped
    numbers: dict[str, Any]

    @property
    def line(self) -> str:
        return f"{self.section:9} {VERDICTS[self.right]:6} {self.what:44} {self.found}"


@dataclass
class Bench:
    """Where the sections run, and what they have found so far."""

    device: torch.device
    small: bool
    scratch: Path
    section: str = ""
    rows: list[Row] = field(default_factory=list)
    begun: list[subprocess.Popen[str]] = field(default_factory=list)  # by this section
    patience: float = 1.0  # by which every limit of time is stretched

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    def tell(self, what: str, found: str, right: bool | None = None, **numbers: Any) -> None:
        """Adds a row and prints it."""
        self.rows.append(Row(self.section, what, found, right, numbers))
        print(self.rows[-1].line, flush=True)

    def need_gpu(self) -> None:
        if not self.gpu:
            raise NeedsGpu("skipped: needs a GPU")

    def sized(self, whole: T, small: T) -> T:
        return small if self.small else whole

    def leave(self) -> None:
        """Ends what the section began and did not wait for, and gives memory back."""
        for process in self.begun:
            process.kill()
            process.wait()
        self.begun.clear()
        with contextlib.suppress(RuntimeError):  # of a device that runs nothing any more
            give_back(self.device)

    def folder(self, name: str) -> Path:
        """A new folder of this section."""
        path = self.scratch / f"{self.section}-{name}"
        path.mkdir()
        return path


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raises TimeIsUp in the block when so many seconds, or those of a block around it, are over."""

    def ring(*_: object) -> None:
        raise TimeIsUp(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    around, _ = signal.getitimer(signal.ITIMER_REAL)
    begun = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, min(seconds, around or seconds))
    try:
        yield
    finally:
        left = max(around - (time.monotonic() - begun), 0.001) if around else 0
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left)


def seconds(device: torch.device, act: Callable[[], object]) -> float:
    """How long a device takes for what is asked of it in `act`; by its own events on a GPU."""
    if device.type != "cuda":
        begun = time.perf_counter()
        act()
        return time.perf_counter() - begun
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    act()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


class Traced(NamedTuple):
    """What a profiler saw of a block on a GPU."""

    kernels: int
    busy: float  # seconds in which a kernel, a copy or a fill ran
    calls: Counter[str]  # of CUDA's runtime, by name
    longest: dict[str, float]  # seconds of the longest call


def traced(device: torch.device, act: Callable[[], object], *, calls: bool = True) -> Traced:
    """Profiles what `act` asks of a GPU; without `calls` of the host, which cost it time."""
    kinds = [ProfilerActivity.CUDA, *([ProfilerActivity.CPU] if calls else [])]
    torch.cuda.synchronize(device)
    with profile(activities=kinds, acc_events=True) as seen:
        with record_function(BLOCK):
            act()
        torch.cuda.synchronize(device)
    events = list(seen.events() or ())
    on_device = [e for e in events if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
    within = [e for e in events if e.name == BLOCK and e.device_type == DeviceType.CPU]
    counted: Counter[str] = Counter()
    longest: dict[str, float] = {}
    for event in events:
        if not event.name.startswith("cuda") or event.device_type != DeviceType.CPU:
            continue
        # beside the block the profiler waits for the device itself
        if within and not (
            within[0].time_range.start <= event.time_range.start <= within[0].time_range.end
        ):
            continue
        counted[event.name] += 1
        took = event.time_range.elapsed_us() / 1e6
        longest[event.name] = max(took, longest.get(event.name, 0.0))
    spans = sorted((e.time_range.start, e.time_range.end) for e in on_device)
    kernels = sum(not e.name.startswith(("Memcpy", "Memset")) for e in on_device)
    return Traced(kernels, _union(spans) / 1e6, counted, longest)


def _union(spans: list[tuple[float, float]]) -> float:
    """The length that intervals, ordered by their start, cover together."""
    covered, upto = 0.0, float("-inf")
    for start, end in spans:
        covered += max(0.0, end - max(start, upto))
        upto = max(upto, end)
    return covered


@contextlib.contextmanager
def peak(device: torch.device) -> Iterator[Callable[[], float]]:
    """Gives what says the peak memory of the block so far, in GiB."""
    reset_peak_memory(device)
    yield lambda: (peak_memory(device) or 0) / 2**30


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:300]
