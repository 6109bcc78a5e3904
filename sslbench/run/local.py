"""Runs cells in processes on this machine: one for each GPU, or several that share the CPU."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from ..cells.cell import Cell
from ..cells.protocol import Judge
from ..errors import UserError
from ..events import CellDone, Listener
from ..names import parse as parse_name
from ..records import Failure
from .worker import LEAVING, SIGNALS, Setup, serve

if TYPE_CHECKING:
    from ..plan.plan import Plan, Planned
    from ..plan.selection import Selection
    from ..plugins import Registry

GRACE = 60.0  # seconds a process gets to save and stop


@dataclass
class _Process:
    process: Any
    connection: Connection
    setup: Setup | None = None
    cell: Cell | None = None
    begun: float = 0.0
    worked: bool = False  # whether it has done a cell
    successor: _Process | None = None  # that works on when this one has done a stranger's cell


class Spare:
    """A worker process that imports its libraries while the plan is made.

    It is started where the store is new, so that there is work, and for cells on the CPU.
    """

    def __init__(self, options: Selection) -> None:
        how = options.how
        self._threads = how.threads or max(1, _threads() // max(1, how.jobs))
        self._process: _Process | None = None
        if not (options.store / "store.json").exists() and how.device in ("auto", "cpu"):
            self._process = _start(self._threads, download=options.place.download)

    def __enter__(self) -> Spare:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def end(self) -> None:
        """Ends the process, unless it was taken."""
        if self._process is not None:
            self._process.process.kill()
            self._process = None

    def taken(self, setup: Setup) -> _Process | None:
        """Gives the process to who has work of this kind for it; None where it is not of use."""
        found = self._process
        if found is None or (setup.options.how.device, setup.options.how.threads) != (
            "cpu",
            self._threads,
        ):
            return None
        self._process = None
        return found


@dataclass
class LocalProcesses:
    """Worker processes that live as long as the run. If one dies, only its cell fails.

    A cell that a plugin's code trains or judges is the last of its process: what that code changed
    there, such as functions of torch, threads, generators or the working directory, ends with it.
    """

    plan: Plan
    registry: Registry
    listener: Listener
    spare: Spare | None = None
    left: int = 0  # cells that were not begun, since the run was asked to stop
    _processes: list[_Process] = field(default_factory=list)

    def __enter__(self) -> LocalProcesses:
        return self

    def __exit__(self, *error: object) -> None:
        heirs = [each.successor for each in self._processes if each.successor]
        begun = [*self._processes, *heirs]
        for each in begun:
            with contextlib.suppress(OSError):
                each.connection.close()  # the process sees the end and leaves
        deadline = time.monotonic() + (GRACE if error[0] is None else 1.0)
        for each in begun:
            each.process.join(max(0.1, deadline - time.monotonic()))
            if each.process.is_alive():
                each.process.kill()
                each.process.join()

    def work(self, todo: list[Planned], stop: threading.Event) -> Iterator[CellDone]:
        """Runs the cells, and yields the result of each. UserError ends the whole run."""
        waiting = [(p.cell, tuple(j.judge for j in p.judges)) for p in todo]
        unfinished = {cell.id for cell, _ in waiting}
        spare = self.spare
        self._processes = [
            _begun(setup, spare.taken(setup) if spare else None)
            for setup in self._setups(len(waiting))
        ]
        if spare:
            spare.end()
        told = False
        while waiting or any(p.cell for p in self._processes):
            if stop.is_set() and not told:
                told, self.left, waiting = True, len(waiting), []
                for each in self._processes:
                    _tell(each, "stop")
            self._hand_out(waiting, unfinished)
            if not any(p.cell for p in self._processes):
                break
            for done in self._heard():
                unfinished.discard(done.cell)
                self.listener(done)
                yield done

    def _setups(self, cells: int) -> list[Setup]:
        from ..train.device import pick_device

        options = self.plan.options
        how, gpus = options.how, _gpus()
        if how.device == "auto" and gpus > 1:
            devices = [f"cuda:{i}" for i in range(gpus)]
        else:
            devices = [str(pick_device(how.device))]
        jobs = max(1, min(how.jobs or len(devices), cells))
        threads = how.threads or max(1, _threads() // jobs)
        options = _placed(options)
        return [
            Setup(
                replace(
                    options,
                    how=replace(how, device=devices[i % len(devices)], threads=threads),
                ),
                self.plan.suite_id,
            )
            for i in range(jobs)
        ]

    def _hand_out(
        self, waiting: list[tuple[Cell, tuple[Judge, ...]]], unfinished: set[str]
    ) -> None:
        for each in self._processes:
            if each.cell is not None:
                continue
            # a cell whose pretext another process is training would only wait for it
            ready = next(
                (w for w in waiting if not any(p.id in unfinished for p in w[0].pretexts.values())),
                None,
            )
            if ready is None:
                return
            waiting.remove(ready)
            each.cell, each.begun = ready[0], time.monotonic()
            if waiting and not self._is_ours(*ready):
                each.successor = _begun(each.setup)  # imports its libraries meanwhile
            _tell(each, ready)

    def _is_ours(self, cell: Cell, judges: tuple[Judge, ...]) -> bool:
        """Whether the code that trains and judges a cell is of this package."""
        entries = [
            self.registry.find("methods", parse_name(cell.method)),
            self.registry.find("backbones", parse_name(cell.backbone).base),
            *(self.registry.find("evaluators", parse_name(judge.name).base) for judge in judges),
        ]
        if (watch := self.plan.options.how.watch) is not None:
            entries.append(self.registry.find("evaluators", parse_name(watch.evaluator).base))
        own = all(entry.builtin for entry in entries)
        return own and all(self._is_ours(each, ()) for each in cell.pretexts.values())

    def _heard(self) -> Iterator[CellDone]:
        """Waits up to a quarter of a second, and yields the cells that ended or whose process died."""
        by_connection = {p.connection: p for p in self._processes}
        for ready in wait(list(by_connection), timeout=0.25):
            each = by_connection[ready]  # type: ignore[index]  # these are our connections
            try:
                message = each.connection.recv()
            except (EOFError, OSError):
                yield from self._died(each)
                continue
            if isinstance(message, UserError):
                raise message
            if message == LEAVING:
                each.successor = each.successor or _begun(each.setup)
            elif isinstance(message, CellDone):
                each.cell, each.worked = None, True
                self._retire(each)
                yield message
            else:
                self.listener(message)

    def _retire(self, each: _Process) -> None:
        """Lets a process go that has a successor, which takes its place."""
        if each.successor is None:
            return
        each.process.kill()  # what it did is saved, and what its code left running ends
        each.process.join()
        each.connection.close()
        self._succeed(each)

    def _succeed(self, each: _Process) -> None:
        """Puts another process in the place of one that has ended: its successor, or a new one."""
        heir, each.successor = each.successor, None
        if heir is None or not heir.process.is_alive():
            heir = _begun(each.setup)
        self._processes[self._processes.index(each)] = heir
        each.process.close()

    def _died(self, each: _Process) -> Iterator[CellDone]:
        each.process.join(5)
        if each.process.is_alive():
            each.process.kill()  # it closed its connection, and hangs
            each.process.join()
        code = each.process.exitcode
        how = f"signal {-code}" if code and code < 0 else f"exit code {code}"
        hint = "; the system may have been out of memory" if code == -signal.SIGKILL else ""
        sentence = f"its process died ({how}){hint}"
        cell, worked = each.cell, each.worked
        self._succeed(each)
        if cell is None and worked:
            return  # it had nothing to do any more
        if cell is None:
            raise UserError(f"a worker process did not start ({how}); `-v` shows what it printed")
        from ..one_cell.provenance import add_failure

        folder = self.plan.store.cell(cell.id)
        wrong = Failure(kind="killed", type="ProcessDied", message=sentence)
        add_failure(folder, cell, wrong, suite=self.plan.suite_id)
        yield CellDone(cell.id, cell.title, "failed", time.monotonic() - each.begun, sentence)


def _threads() -> int:
    """The number of CPUs that this process may use, or OMP_NUM_THREADS if that is set."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _placed(options: Selection) -> Selection:
    """The options with absolute paths, since a plugin may change the working directory."""
    place = replace(options.place, roots=tuple(root.absolute() for root in options.place.roots))
    return replace(
        options,
        store=options.store.absolute(),
        plugins=tuple(file.absolute() for file in options.plugins),
        place=place,
    )


def _begun(setup: Setup | None, spare: _Process | None = None) -> _Process:
    """A process that has its setup: the spare one, or a new one."""
    assert setup is not None
    how, place = setup.options.how, setup.options.place
    process = spare or _start(how.threads or 1, download=place.download)
    process.setup = setup
    _tell(process, setup)
    return process


def _start(threads: int, *, download: bool) -> _Process:
    """Starts a process. Its thread count must be in its environment before it imports torch."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, download), name="sslbench worker")
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    main_thread = threading.current_thread() is threading.main_thread()
    handlers = {s: signal.signal(s, signal.SIG_IGN) for s in SIGNALS} if main_thread else {}
    try:
        process.start()  # Ctrl-C reaches the whole process group; children are told by us instead
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    theirs.close()
    return _Process(process, ours)


def _tell(each: _Process, message: object) -> None:
    with contextlib.suppress(OSError):  # it is dead, which `_heard` notices
        each.connection.send(message)
