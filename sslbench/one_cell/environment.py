"""Describes, for records, the machine, the versions of all parts, and the peak memory."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement

from .. import __version__
from ..plugins import Entry
from ..plugins.passed import kit_passed
from ..train.device import driver
from ..train.options import RunOptions

NOTHING_ASKED = RunOptions()


def component(entry: Entry, version: int, *, store: Path) -> dict[str, Any]:
    """What a record says of a part: version, source and, if a plugin's, the kit that it passed.

    `store` keeps which parts passed the conformance kit.
    """
    found = _component(entry, version)
    kit = None if entry.builtin else kit_passed(store, entry)
    return found if kit is None else {**found, "conformance": kit}


@functools.cache  # hashing the source takes a while, and each record needs it
def _component(entry: Entry, version: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "version": version,
        "dist": entry.dist,
        "dist_version": entry.version,
        "source_sha256": entry.source_sha256(),
    }
    return found if entry.builtin else {**found, "requires": _required(entry.dist)}


def _required(dist: str) -> dict[str, str]:
    """Versions of the requirements of a distribution; a plugin that is a file declares none."""
    found = {}
    with contextlib.suppress(metadata.PackageNotFoundError):
        for text in metadata.requires(dist) or ():
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                with contextlib.suppress(metadata.PackageNotFoundError):
                    found[wanted.name] = metadata.version(wanted.name)
    return found


def environment(device: torch.device, how: RunOptions = NOTHING_ASKED) -> dict[str, Any]:
    """What a rerun must share to give the same bits. None of it is part of the identity."""
    cuda = device.type == "cuda"
    found = {
        "sslbench": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": metadata.version("timm"),
        "numpy": metadata.version("numpy"),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "cpu": cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
    }
    asked = {name: True for name in ("compile", "deterministic") if getattr(how, name)}
    return {**found, **(_of_cuda(device) if cuda else {}), **asked}


def _of_cuda(device: torch.device) -> dict[str, Any]:
    """What decides on the kernels that a GPU runs."""
    return {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "driver": driver(),
        "capability": "{}.{}".format(*torch.cuda.get_device_capability(device)),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }


def cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123 - no path of ours
            return next((x.split(":")[1].strip() for x in file if x.startswith("model name")), "")
    except OSError:
        return platform.processor()


def reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        try:
            with open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123 - no path of ours
                file.write("5")
        except OSError:
            return  # not allowed here: the peak is then that of the whole process


def peak_memory(device: torch.device) -> int | None:
    """Peak memory in bytes: on a GPU of its allocator, else of the process since the cell began."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        with open("/proc/self/status") as file:  # noqa: PTH123 - no path of ours
            line = next(x for x in file if x.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024
