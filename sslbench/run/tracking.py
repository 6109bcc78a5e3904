"""Feeds trackers during a run, each in its own thread, so that none can slow or break the run."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..api import CellInfo, RunInfo, Tracker
from ..cells.cell import Cell, plain
from ..cells.parameters import bracketed, signature
from ..errors import UserError
from ..events import CellDone, Event, Listener, Progress
from ..names import parse as parse_name
from ..names import published
from ..one_cell.provenance import resolved_recipe, without_paths
from ..plugins import Registry
from ..plugins.contained import attempt, said

if TYPE_CHECKING:
    from ..plan.plan import Plan

GRACE = 30.0  # seconds that trackers get after the run to finish
BACKLOG = 1000  # waiting events above which a tracker gets no more `Progress`
Say = Callable[[str], None]


@dataclass(frozen=True)
class NamedTracker:
    """A tracker, with the name by which it was asked for."""

    name: str
    tracker: Tracker


def make_trackers(names: Sequence[str], registry: Registry) -> list[NamedTracker]:
    """Makes trackers from names such as `tensorboard` or `tensorboard[dir=runs]`.

    Raises:
        UserError: a name or parameter is unknown, or a tracker cannot be made, for example because
            its library is missing.
    """
    return [NamedTracker(name, _made(name, registry)) for name in names]


def _made(text: str, registry: Registry) -> Tracker:
    asked = parse_name(text)
    if asked.argument is not None:
        raise UserError(
            f"--track {text}: a tracker takes its parameters as {asked.base}[key=value]"
        )
    entry = registry.find("trackers", asked.base)
    cls = target = entry.load()
    while isinstance(target, functools.partial):
        target = target.func
    if not (inspect.isclass(target) and issubclass(target, Tracker)):
        raise UserError(f"tracker {asked.base!r} of {entry.dist} is {target!r}, not an api.Tracker")
    hints, _ = signature(target.__init__, what=f"tracker {asked.base!r}")
    given = bracketed(asked, hints)
    made, fault = attempt(lambda: cls(**given))
    if isinstance(fault, UserError):
        raise fault
    if not isinstance(made, Tracker):
        raise UserError(
            f"tracker {asked.base!r} of {entry.dist} {entry.version} cannot be made: "
            f"{said(fault) if fault else f'it is {made!r}'}"
        ) from fault
    return made


@contextlib.contextmanager
def tracked(
    made: Sequence[NamedTracker], plan: Plan, listener: Listener, say: Say
) -> Iterator[Listener]:
    """Adds trackers to the listener, and closes them however the run ends."""
    if not made:
        yield listener
        return
    run = RunInfo(plan.suite_id, plan.store.root, __version__)
    beside: list[_Beside] = []
    known = _CellInfos(plan)

    def tell(event: Event) -> None:
        listener(event)
        if isinstance(event, CellDone):  # what is told elsewhere has no paths of this machine
            event = dataclasses.replace(event, sentence=without_paths(event.sentence))
        if cell := known.find(event.cell):
            if not beside:  # started only with the first event: there may be nothing to run
                beside.extend(_Beside(each, run, say) for each in made)
            for each in beside:
                each.tell(event, cell)

    try:
        yield tell
    finally:
        for each in beside:
            each.end()
        deadline = time.monotonic() + GRACE
        for each in beside:
            each.wait(deadline - time.monotonic())


@dataclass
class _CellInfos:
    """Finds what trackers are told of a cell. A plan with tuning gets more cells while it runs."""

    plan: Plan
    found: dict[str, CellInfo] = field(default_factory=dict)

    def find(self, cell: str) -> CellInfo | None:
        if cell not in self.found:
            for planned in self.plan.cells:
                self._take(planned.cell)
        return self.found.get(cell)

    def _take(self, cell: Cell) -> None:
        for pretext in cell.pretexts.values():
            self._take(pretext)
        if cell.id not in self.found:
            self.found[cell.id] = CellInfo(
                id=cell.id,
                title=cell.title,
                method=cell.method,
                backbone=cell.backbone,
                dataset=published(cell.dataset),
                seed=cell.seed,
                identity=cell.identity(),
                hyperparameters=plain(cell.hyperparameters),
                recipe=resolved_recipe(cell),
            )


class _Beside:
    """One tracker in its thread, fed through a queue."""

    def __init__(self, made: NamedTracker, run: RunInfo, say: Say) -> None:
        self._made, self._say = made, say
        self._calls: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        # a daemon thread that hangs does not keep the program from ending
        self._thread = threading.Thread(target=self._work, args=(run,), daemon=True)
        self._thread.start()

    def tell(self, event: Event, cell: CellInfo) -> None:
        if not isinstance(event, Progress) or self._calls.qsize() < BACKLOG:
            self._calls.put((event, cell))

    def end(self) -> None:
        self._calls.put(None)

    def wait(self, seconds: float) -> None:
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            self._say(
                f"tracker {self._made.name} was not done {GRACE:.0f} s after the run: "
                "it is left behind, and what it had not written is lost"
            )

    def _work(self, run: RunInfo) -> None:
        tracker = self._made.tracker
        good = self._contained(tracker.start, run)
        while (call := self._calls.get()) is not None:
            good = good and self._contained(tracker, *call)
        if good:
            self._contained(tracker.close)

    def _contained(self, call: Callable[..., Any], *args: Any) -> bool:
        """Calls the tracker; returns whether it went well. Otherwise reports that and closes it."""
        try:
            call(*args)
            return True
        # a plugin may raise anything, SystemExit included, and must not end the run
        except BaseException as fault:  # noqa: BLE001
            self._say(
                f"tracker {self._made.name} failed and is left out from here on: {said(fault)}"
            )
        closing = self._made.tracker.close
        if call != closing:
            with contextlib.suppress(BaseException):  # its failure has been reported already
                closing()
        return False
