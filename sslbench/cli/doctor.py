"""`sslbench doctor`: checks the installation, devices, plugins, data and store."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import CheckFailed, UserError
from .app import Command, State, quiet_libraries
from .checks import DoctorCheck, blas, disk, faiss_build, precisions, smoke
from .options import data_option, json_option, store_option
from .text import one_line, say_json, say_table, size

if TYPE_CHECKING:
    from ..plugins import Entry, Registry

MODULES = (
    "torch",
    "torchvision",
    "timm",
    "faiss",
    "numpy",
    "scipy",
    "sklearn",
    "safetensors",
    "pydantic",
)
SMALL = 10_000  # images; a dataset with no more is opened to check it


@click.command(cls=Command)
@store_option
@data_option
@click.option(
    "--smoke", "short", is_flag=True, help="Train and judge a small cell too; about a minute."
)
@json_option
@click.pass_context
def doctor(ctx: click.Context, store: Path, data: Path | None, short: bool, as_json: bool) -> None:
    """Check the installation, devices, plugins, data and store.

    Exits with 5 when something essential is broken.
    """
    state = ctx.ensure_object(State)
    with quiet_libraries(verbose=state.verbose):
        checks = list(_checks(state.registry, store, data))
        if short and not _broken(checks):
            checks.append(_smoke(state))
    if as_json:
        say_json([vars(check) for check in checks])
    else:
        say_table(("check", "state", "says"), [(c.name, c.state, c.says) for c in checks])
    if broken := _broken(checks):
        raise CheckFailed(f"broken: {', '.join(broken)}; the table above says why")


def _broken(checks: Sequence[DoctorCheck]) -> list[str]:
    return [check.name for check in checks if check.state == "ERROR"]


def _smoke(state: State) -> DoctorCheck:
    from ..plan.selection import Selection

    options = Selection(plugins=state.files, block=state.block, installed=state.installed)
    return smoke(state.registry, options)


def _checks(registry: Registry, store: Path, data: Path | None) -> Iterator[DoctorCheck]:
    version = platform.python_version()
    yield DoctorCheck("python", "ok" if sys.version_info >= (3, 10) else "ERROR", version)
    modules = [_module(name) for name in MODULES]
    yield from modules
    if not _broken(modules):
        yield from blas()
        yield faiss_build()
        yield from _devices()
        yield from _datasets(registry, data)
    for plugin in registry.plugins:
        if plugin.error:
            yield DoctorCheck(f"plugin {plugin.name}", "note", f"not complete: {plugin.error}")
        else:
            yield DoctorCheck(f"plugin {plugin.name}", "ok", f"{plugin.dist} {plugin.version}")
    yield _store(store)
    yield disk("store", store)


def _module(name: str) -> DoctorCheck:
    try:
        module = import_module(name)
    except Exception as error:  # noqa: BLE001 - whatever it raises, it is broken
        return DoctorCheck(name, "ERROR", f"cannot be imported: {type(error).__name__}: {error}")
    version = getattr(module, "__version__", None) or _version(name)
    return DoctorCheck(name, "ok", str(version))


def _version(name: str) -> str:
    for dist in metadata.packages_distributions().get(name, ()):
        return metadata.version(dist)
    return "unknown version"


def _devices() -> Iterator[DoctorCheck]:
    import torch

    from ..one_cell.environment import cpu_name
    from ..train.device import broken, idle_gpu

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS")
    threads = f"{torch.get_num_threads()} threads on {cores} cores"
    yield DoctorCheck("threads", "ok", threads + (f" (OMP_NUM_THREADS={asked})" if asked else ""))
    capability = torch.backends.cpu.get_cpu_capability()
    yield DoctorCheck("cpu", "ok", f"{cpu_name()}, {capability}")
    yield precisions(torch.device("cpu"))
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        device, properties = torch.device("cuda", index), torch.cuda.get_device_properties(index)
        if why := broken(device):
            yield DoctorCheck(f"cuda:{index}", "ERROR", why)
            continue
        yield DoctorCheck(
            f"cuda:{index}", "ok", f"{properties.name}, {size(properties.total_memory)}"
        )
        yield precisions(device)
    if torch.backends.mps.is_available():
        yield DoctorCheck("mps", "ok", "available")
        yield precisions(torch.device("mps"))
    elif not count:
        yield DoctorCheck("gpu", "note", idle_gpu() or "none: cells run on the CPU")


# ---- data ------------------------------------------------------------------------------------


def _datasets(registry: Registry, data: Path | None) -> Iterator[DoctorCheck]:
    from ..api import Place
    from ..data import default_roots

    place = Place(default_roots(data))
    roots = ", ".join(map(str, place.roots)) or "none given: --data DIR or SSLBENCH_DATA"
    absent = [str(root) for root in place.roots if not root.is_dir()]
    note = f"; not there: {', '.join(absent)}" if absent else ""
    yield DoctorCheck("data roots", "note" if absent else "ok", roots + note)
    yield from (disk(f"data {root}", root) for root in place.roots if root.is_dir())
    for name, entry in registry.entries("datasets").items():
        yield _guarded(f"data {name}", lambda entry=entry: _found(entry, place, registry))  # type: ignore[misc]  # bound now


def _guarded(name: str, look: Callable[[], str]) -> DoctorCheck:
    try:
        return DoctorCheck(name, "ok", look())
    except UserError as error:
        return DoctorCheck(name, "note", str(error))
    except Exception as error:  # noqa: BLE001 - a plugin's may raise anything
        return DoctorCheck(name, "note", f"{type(error).__name__}: {error}")


def _found(entry: Entry, place: Any, registry: Registry) -> str:
    """Where a dataset's files are; a small one is opened, a large one is not read."""
    target = entry.load()
    official = getattr(target, "official", None)
    if official is not None:
        paths = official.find(replace(place, download=False))
        folders = dict.fromkeys(str(path.parent) for path in paths.values())
        return f"found in {', '.join(folders)}"
    card = getattr(target, "card", None)
    if card is not None and card.train is not None and card.train <= SMALL:
        from ..data import open_data

        opened = open_data(entry.name if entry.builtin else entry.qualified, registry, place)
        return f"{len(opened.train.labels):,} train and {len(opened.test.labels):,} test images"
    raise UserError("not looked for: it has no fixed place")


# ---- the store -------------------------------------------------------------------------------


def _store(root: Path) -> DoctorCheck:
    from ..store import Store

    home = root.absolute()
    while not home.exists():
        home = home.parent
    try:
        Store(root)
        with tempfile.NamedTemporaryFile(dir=home, prefix=".sslbench-doctor-"):
            pass
    except UserError as error:
        return DoctorCheck("store", "ERROR", str(error))
    except OSError as error:
        return DoctorCheck("store", "ERROR", f"{home} cannot be written: {error.strerror or error}")
    there = "" if root.exists() else " (not there yet)"
    return DoctorCheck("store", "ok", one_line(f"{root.absolute()}{there}, writable"))
