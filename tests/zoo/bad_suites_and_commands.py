"""A suite that names what is not there, a command whose help fails, a tracker that falls over."""

from pathlib import Path

import click

from sslbench import hookimpl
from sslbench.api import Tracker

SSLBENCH_API = (1, 1)


class Raising(click.Command):
    def format_help(self, ctx, formatter):
        raise RuntimeError("no help")


class Falls(Tracker):
    """Raises at the first event."""

    def __call__(self, event, cell):
        raise OSError("disk full")


@hookimpl
def suites():
    return {"zoo-suite": Path(__file__).with_suffix(".yaml")}


@hookimpl
def commands():
    return {"zoo-help": Raising("zoo-help"), "zoo-other": len}


@hookimpl
def trackers():
    return {"zoo-tracker": Falls}
