"""Trackers beside a run: each in a thread of its own, so that a slow or broken one costs itself."""

from __future__ import annotations

import contextlib
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
from ..cells.parameters import checked, signature
from ..errors import UserError, suggestion
from ..events import Event, Listener, Progress
from ..names import parse as parse_name
from ..one_cell.provenance import resolved_recipe
from ..plugins import Registry
from ..plugins.contained import attempt, said

if TYPE_CHECKING:
    from ..plan.plan import Plan

GRACE = 30.0  # seconds trackers get after the run to write what they were told
BACKLOG = 1000  # events behind which a tracker is spared those within an epoch
Say = Callable[[str], None]


@dataclass(frozen=True)
class NamedTracker:
    """A tracker, and as what it was asked for."""

    name: str
    tracker: Tracker


def make_trackers(names: Sequence[str], registry: Registry) -> list[NamedTracker]:
    """The trackers that `tensorboard` or `tensorboard[dir=runs]` name.

    Raises:
        UserError: a name or parameter is unknown, or one cannot be made, such as for want of its
            library.
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
    for key in asked.params:
        if key not in hints:
            raise UserError(f"{asked.base} has no parameter {key!r}{suggestion(key, hints)}")
    given = {k: checked(v, hints[k], what=f"{asked.base}[{k}]") for k, v in asked.params.items()}
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
    """The listener with the trackers behind it, which are closed however the run ends."""
    if not made:
        yield listener
        return
    run = RunInfo(plan.suite_id, plan.store.root, __version__)
    beside: list[_Beside] = []
    known = _CellInfos(plan)

    def tell(event: Event) -> None:
        listener(event)
        if cell := known.find(event.cell):
            if not beside:  # where nothing is left to do, none is started
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
    """Cells by id; a plan that tunes learns of more while it runs."""

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
                dataset=cell.dataset,
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
        # of a daemon, what hangs ends with the program
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
        """Whether it went well; what did not is said once, and the tracker closed."""
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
            with contextlib.suppress(BaseException):  # it has failed, and that was said
                closing()
        return False
