"""A worker process: it is told cells, runs them, and tells what happens, until its connection ends."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from ..cells.cell import Cell
from ..cells.protocol import Judge
from ..disk import DiskError
from ..errors import UserError
from ..events import CellDone, Event, Listener
from .memory import keep_freed

if TYPE_CHECKING:
    from ..one_cell.workbench import Workbench
    from ..plan.selection import Selection

LEAVING = "leaving"  # told before the result of the last cell that a process can do
# only the parent handles them, and tells its children
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Setup:
    """What a process needs to know before its first cell."""

    options: Selection  # `how` names the device and the threads of this process
    suite: str  # id


def serve(connection: Connection, download: bool) -> None:
    """Runs cells in a worker process until the connection ends; its first message is a Setup."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if not os.environ.get("SSLBENCH_VERBOSE"):
        _hush()
    jobs: queue.Queue[Any] = queue.Queue()
    stop = threading.Event()

    def tell(message: Event | UserError | str) -> None:
        try:
            connection.send(message)
        except OSError:
            stop.set()  # the parent is gone: save, and leave

    threading.Thread(target=_listen, args=(connection, jobs, stop), daemon=True).start()
    if not download:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the hub's library is imported
    keep_freed()
    import timm  # noqa: F401 - takes seconds, while the plan may still be made

    from ..one_cell import workbench  # noqa: F401 - likewise
    from ..plugins.contained import said

    if (setup := jobs.get()) is None:
        return
    try:
        bench = _workbench(setup, tell, stop)
    except UserError as error:
        tell(error)
        return
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent says it
        tell(UserError(f"a worker process cannot work: {said(error)}"))
        return
    try:
        _work(bench, jobs, tell)
    except (DiskError, UserError) as error:
        tell(UserError(str(error)))


def _work(
    bench: Workbench, jobs: queue.Queue[Any], tell: Callable[[Event | UserError | str], None]
) -> None:
    """Runs cells as they come; leaves when there are no more, or when its device is of no more use.

    UserError for a cell whose precision the device lacks.
    """
    from ..train.device import broken, give_back, unfit

    device = bench.builder.device
    while (job := jobs.get()) is not None:
        if why := unfit(device, job[0].precision):
            raise UserError(why)
        done = _done(bench, *job)
        if done.status == "failed" and broken(device):
            tell(LEAVING)  # what failed has poisoned the device for this process
            tell(done)
            return
        tell(done)
        give_back(device)


def _done(bench: Workbench, cell: Cell, judges: tuple[Judge, ...]) -> CellDone:
    """Runs a cell; whatever leaves it, but a DiskError, is recorded as its failure."""
    begun = time.monotonic()
    try:
        return bench.do(cell, judges)
    except DiskError:
        raise
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
        sentence = bench.broken_off(cell, error)
        return CellDone(cell.id, cell.title, "failed", time.monotonic() - begun, sentence)


def _workbench(setup: Setup, listener: Listener, stop: threading.Event) -> Workbench:
    options = setup.options
    import torch

    from ..one_cell.building import Builder
    from ..one_cell.workbench import Workbench
    from ..plugins import registry
    from ..store import Store
    from ..train.device import broken, pick_device

    how = options.how
    torch.set_num_threads(how.threads or 1)
    device = pick_device(how.device)
    if why := broken(device):
        raise UserError(why)
    found = registry(installed=options.installed, files=options.plugins, block=options.block)
    store = Store(options.store)
    return Workbench(
        Builder(found, options.place, device, store),
        store,
        how,
        suite=setup.suite,
        listener=listener,
        stop=stop.is_set,
    )


def _listen(connection: Connection, jobs: queue.Queue[Any], stop: threading.Event) -> None:
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            stop.set()  # the parent is gone: save, and leave
            jobs.put(None)
            return
        if message == "stop":
            stop.set()
        else:
            jobs.put(message)


def _hush() -> None:
    """Keeps what libraries print from the user's terminal."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno() if sys.stdout else 1)
    os.dup2(sink, sys.stderr.fileno() if sys.stderr else 2)
