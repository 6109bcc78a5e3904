"""The command line. Nothing else in the package prints or exits, and nothing imports it."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Runs the command line, for `sslbench` and `python -m sslbench`."""
    _open_closed()
    from .app import program

    program.main(prog_name="sslbench")


def _open_closed() -> None:
    """Opens the null device for standard streams that are closed, lest files take their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            handle = os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, this one
            os.set_inheritable(handle, True)  # for the worker processes
            setattr(sys, name, open(handle, "w" if number else "r"))  # noqa: PTH123, SIM115
