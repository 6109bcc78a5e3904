"""Shows the progress of a run: bars on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from ..events import CellDone, CellStarted, EpochDone, EvaluationDone, Event, Progress
from .app import INTERRUPTED
from .text import ID, OutputLost, duration, one_line, say

if TYPE_CHECKING:
    from rich.progress import TaskID

SHOW_CURSOR = b"\x1b[?25h\n"


class Reporter(Protocol):
    """A listener of events that can also print a message in between."""

    def __enter__(self) -> Reporter: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def __call__(self, event: Event) -> None: ...

    def say(self, text: str) -> None: ...


def reporter(
    cells: int, *, quiet: bool, err: bool, lost: Callable[[], None] = lambda: None
) -> Reporter:
    """The reporter to use: bars on a terminal, lines elsewhere, nothing with -q.

    `lost` is called when what it prints cannot be printed any more.
    """
    stream = sys.stderr if err else sys.stdout
    if quiet:
        return Silent()
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return Heard(Bars(cells, err=err), lost)
    return Heard(Lines(cells, err=err), lost)


class Heard:
    """A reporter that falls silent when nobody reads it any more, and tells that by `lost`."""

    def __init__(self, inner: Reporter, lost: Callable[[], None]) -> None:
        self.inner, self.lost = inner, lost
        self.silent = False

    def __enter__(self) -> Heard:
        self._try(self.inner.__enter__)
        return self

    def __exit__(self, *error: Any) -> None:
        self._try(self.inner.__exit__, *error)

    def __call__(self, event: Event) -> None:
        self._try(self.inner, event)

    def say(self, text: str) -> None:
        self._try(self.inner.say, text)

    def _try(self, call: Callable[..., Any], *args: Any) -> None:
        if self.silent:
            return
        try:
            call(*args)
        except (OutputLost, OSError):  # the second of a terminal that was closed
            self.silent = True
            self.lost()


@dataclass
class Tally:
    """How many cells are done, and how long the rest will take."""

    cells: int
    done: int = 0
    failed: int = 0
    shares: dict[str, float] = field(default_factory=dict)  # trained of each running cell, [0, 1]
    since: dict[str, float] = field(default_factory=dict)  # when each of them began
    took: list[float] = field(default_factory=list)  # seconds of each cell that ended

    def note(self, event: Event) -> None:
        if isinstance(event, CellStarted):
            self.since[event.cell] = time.monotonic()
            self.shares[event.cell] = 0.0
        elif isinstance(event, Progress):
            share = (event.epoch + event.step / max(event.steps, 1)) / max(event.epochs, 1)
            self.shares[event.cell] = min(share, 1.0)
        elif isinstance(event, EpochDone):
            self.shares[event.cell] = min(event.epoch / max(event.epochs, 1), 1.0)
        elif isinstance(event, CellDone):
            self.shares.pop(event.cell, None)
            self.since.pop(event.cell, None)
            if event.status in ("ok", "failed"):
                self.took.append(event.seconds)
            self.done += event.status != "interrupted"
            self.failed += event.status == "failed"

    @property
    def ahead(self) -> float:
        """Cells done so far, running ones by how far they are trained."""
        return self.done + sum(self.shares.values())

    def left(self) -> str:
        """Time left, if the cells to come take as long as those so far, with their judging."""
        now = time.monotonic()
        spent = {cell: now - begun for cell, begun in self.since.items()}
        # before the first one ends, as long as its training will take
        guesses = self.took or [spent[c] / share for c, share in self.shares.items() if share > 0]
        if not guesses:
            return "?"
        each = sum(guesses) / len(guesses)
        running = sum(max(0.0, each - seconds) for seconds in spent.values())
        waiting = each * (self.cells - self.done - len(spent))
        return duration((running + waiting) / max(1, len(spent)))

    def sentence(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.done}/{self.cells} done{failed}, {self.cells - self.done} left"


class Silent:
    """The reporter of `-q`: prints only messages, on standard error."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __call__(self, event: Event) -> None:
        return None

    def say(self, text: str) -> None:
        say(text, err=True)


class Lines:
    """Prints a line for each epoch, evaluation and cell."""

    def __init__(self, cells: int, *, err: bool) -> None:
        self.tally, self.err = Tally(cells), err
        self.titles: dict[str, str] = {}

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __call__(self, event: Event) -> None:
        self.tally.note(event)
        if isinstance(event, CellStarted):
            self.titles[event.cell] = event.title
        elif isinstance(event, EpochDone):
            title = self.titles.get(event.cell, event.cell[:ID])
            self.say(f"{title} · {_training(event)}{_watched(event)}")
        elif isinstance(event, EvaluationDone):
            self.say(f"{self.titles.get(event.cell, event.cell[:ID])} · {_judged(event)}")
        elif isinstance(event, CellDone):
            self.say(f"{_finished(event)} ({self.tally.sentence()})")

    def say(self, text: str) -> None:
        say(text, err=self.err)


class Bars:
    """Shows one bar for all cells and one for each running cell."""

    def __init__(self, cells: int, *, err: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Live

        self.tally = Tally(cells)
        plain = bool(os.environ.get("NO_COLOR"))
        self.console = Console(
            stderr=err, highlight=False, markup=False, color_system=None if plain else "auto"
        )
        self.live = Live(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}", markup=False),
            console=self.console,
            transient=True,
        )
        self.matrix = self.live.add_task("cells", total=cells, state=self.tally.sentence())
        self.tasks: dict[str, TaskID] = {}
        self.titles: dict[str, str] = {}

    def __enter__(self) -> Bars:
        self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def __call__(self, event: Event) -> None:
        self.tally.note(event)
        if isinstance(event, CellStarted):
            self.titles[event.cell] = one_line(event.title)
            self._drop(event.cell)
            self.tasks[event.cell] = self.live.add_task(
                self.titles[event.cell], total=1.0, state="starting"
            )
        elif isinstance(event, CellDone):
            self._drop(event.cell)
            self.say(_finished(event))
        elif event.cell in self.tasks:
            state = _judged(event) if isinstance(event, EvaluationDone) else _training(event)
            share = self.tally.shares.get(event.cell, 0.0)
            self.live.update(self.tasks[event.cell], completed=share, state=one_line(state))
        state = f"{self.tally.sentence()}, {self.tally.left()} to go"
        self.live.update(self.matrix, completed=self.tally.ahead, state=state)

    def say(self, text: str) -> None:
        self.live.print(one_line(text), soft_wrap=True)

    def _drop(self, cell: str) -> None:
        task = self.tasks.pop(cell, None)
        if task is not None:
            self.live.remove_task(task)


def _training(event: Progress | EpochDone) -> str:
    """Progress in words: `agree · epoch 3/15 · loss 2.314 · 5,120 images/s`."""
    number = event.epoch + isinstance(event, Progress)
    parts = [] if event.stage == "main" else [event.stage]
    parts.append(f"epoch {number}/{event.epochs}")
    if event.loss is not None:
        parts.append(f"loss {event.loss:.4g}")
    if event.images_per_second is not None:
        parts.append(f"{event.images_per_second:,.0f} images/s")
    return " · ".join(parts)


def _watched(event: EpochDone) -> str:
    return "".join(f" · {name} {value:.4f}" for name, value in event.watched)


def _judged(event: EvaluationDone) -> str:
    if event.value is None:
        return f"{event.protocol} {event.status}"
    return f"{event.protocol} {event.metric} {event.value:.4f}"


def _finished(event: CellDone) -> str:
    why = f": {event.sentence}" if event.sentence else ""
    return f"{event.title}: {event.status} in {duration(event.seconds)}{why}"


# ---- signals ---------------------------------------------------------------------------------


class Stop:
    """Handles Ctrl-C and SIGTERM during a run: the first saves and stops, the second kills.

    A terminal that closes (SIGHUP) saves and stops too; it may do so twice, and never kills.
    """

    def __init__(self) -> None:
        self.event = threading.Event()

    @contextlib.contextmanager
    def listening(self, say: Any) -> Iterator[threading.Event]:
        """Handles signals in this block; a thread prints, since a signal may interrupt printing."""
        over = threading.Event()

        def announce() -> None:
            while not over.is_set():
                if self.event.wait(0.1):
                    say("saving, press Ctrl-C again to kill")
                    return

        if threading.current_thread() is not threading.main_thread():
            yield self.event  # signals belong to the main thread
            return
        heard = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup sets it
            heard.append(signal.SIGHUP)
        before = {s: signal.signal(s, self._heard) for s in heard}
        thread = threading.Thread(target=announce, daemon=True)
        thread.start()
        try:
            yield self.event
        finally:
            over.set()
            thread.join()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _heard(self, number: int, frame: object) -> None:
        if self.event.is_set() and number != signal.SIGHUP:
            kill()
        self.event.set()


def kill() -> None:
    """Ends the program at once, without a record or a table; the last checkpoint stays."""
    import multiprocessing

    for child in multiprocessing.active_children():
        child.kill()
    if sys.stderr.isatty():
        os.write(2, SHOW_CURSOR)
    os._exit(INTERRUPTED)
