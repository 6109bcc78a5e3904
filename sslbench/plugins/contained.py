"""Runs a plugin's code so that its faults become sentences and never end the program."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from ..errors import UserError

SECONDS = 20.0  # that an import or a hook may take, unless SSLBENCH_PLUGIN_SECONDS is set
# These could not be imported again if they were interrupted: the time limit waits for them.
SHARED = frozenset(["numpy", "scipy", "sklearn", "sslbench", "timm", "torch", "torchvision"])

T = TypeVar("T")


class TooLong(BaseException):
    """A plugin took too long. It is not an Exception, lest the plugin's own handlers catch it."""


def attempt(call: Callable[..., T], *args: Any) -> tuple[T | None, BaseException | None]:
    """Calls a plugin's code; returns its result or its exception. What it prints goes to stderr."""
    try:
        with redirect_stdout(sys.stderr):
            return call(*args), None
    except KeyboardInterrupt:
        raise
    # a plugin may raise anything, SystemExit included, and must not end the program
    except BaseException as fault:  # noqa: BLE001
        return None, fault


@contextlib.contextmanager
def limit(seconds: float, doing: str = "") -> Iterator[None]:
    """Raises TooLong in the body after so many seconds.

    It works in the main thread only, which alone receives signals. A timer that was running goes
    on afterwards.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(
        signal, "setitimer"
    ):
        yield
        return
    begun, over = time.monotonic(), False

    def ring(number: int, frame: FrameType | None) -> None:
        if over:
            return
        if _imports_shared(frame):
            signal.setitimer(signal.ITIMER_REAL, 1)
        else:
            raise TooLong(f"it took longer than {seconds:g} s{doing and f' {doing}'}")

    handler = signal.signal(signal.SIGALRM, ring)
    left, every = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            still = left - (time.monotonic() - begun)
            signal.setitimer(signal.ITIMER_REAL, max(still, 0.001), every)


def _imports_shared(frame: FrameType | None) -> bool:
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if frame.f_code.co_name == "<module>" and name.partition(".")[0] in SHARED:
            return True
        frame = frame.f_back
    return False


def patience() -> float:
    """The number of seconds that an import may take.

    Raises:
        UserError: SSLBENCH_PLUGIN_SECONDS is not such a number.
    """
    text = os.environ.get("SSLBENCH_PLUGIN_SECONDS", "")
    try:
        seconds = float(text or SECONDS)
    except ValueError:
        seconds = 0
    if not 0 < seconds < 1e6:
        raise UserError(
            f"SSLBENCH_PLUGIN_SECONDS is {text!r}, and must be the seconds that importing a plugin "
            f"may take, such as {SECONDS:g}"
        )
    return seconds


def said(fault: BaseException) -> str:
    """Describes an exception in one line: what was raised, and where."""
    text, _ = attempt(str, fault)
    line = " ".join((text or "").split())[:300]
    if isinstance(fault, UserError):
        return line
    if isinstance(fault, TooLong):
        return f"{line}{_where(fault)}"
    if isinstance(fault, SystemExit):
        return f"it calls sys.exit({line}){_where(fault)}"
    return f"{type(fault).__name__}{line and f': {line}'}{_where(fault)}"


def _where(fault: BaseException) -> str:
    """The innermost file and line that does not belong to the import system or this package."""
    where, trace = "", fault.__traceback__
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        machinery = path.name.startswith("<") or {"importlib", "pluggy"} & set(path.parts)
        if path.parent != Path(__file__).parent and not machinery:
            where = f" ({path.name}:{trace.tb_lineno})"
        trace = trace.tb_next
    return where
