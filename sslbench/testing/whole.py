"""Checks of a plugin as a whole, and of its suites and commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..api import API_VERSION
from ..cells.protocol import find_judge
from ..cells.settings import check_settings
from ..names import parse
from ..plan.named import SETS
from ..plan.selection import Selection, settings_of, suite_of
from ..plugins import PluginInfo, Registry
from .promise import require

PATIENCE = 120  # seconds for another process


@dataclass(eq=False)
class PluginTrial:
    """The plugins of one distribution or file, to be checked."""

    registry: Registry
    plugins: Sequence[PluginInfo]
    folder: Path

    @property
    def file(self) -> Path | None:
        return self.plugins[0].file

    @cached_property
    def _probed(self) -> tuple[dict[str, Any], str]:
        """What a new process reports after importing everything, and what it printed."""
        dist = self.plugins[0].dist
        others = {p.dist for p in self.registry.plugins if p.file is None} - {dist, "sslbench"}
        asked = {"dist": dist, "file": str(self.file or ""), "block": sorted(others)}
        if self.file:
            asked["block"] = []
        out = self.folder / "probe.json"
        done = _run(["-m", "sslbench.plugins.probe", json.dumps(asked), str(out)])
        require(out.exists(), f"a fresh process could not import it: {_last(done.stderr)}")
        return json.loads(out.read_text()), done.stdout + done.stderr

    @property
    def found(self) -> dict[str, Any]:
        return self._probed[0]

    @property
    def printed(self) -> str:
        return self._probed[1]


def loads_without_fault(trial: PluginTrial) -> None:
    """It can be imported, its hooks are known and work, and what they provide can be loaded."""
    errors = [plugin.error for plugin in trial.plugins if plugin.error]
    require(not errors, "; ".join(errors))
    require(any(plugin.provides for plugin in trial.plugins), "it provides nothing")
    faults = trial.found["faults"]
    require(not faults, "; ".join(faults))


def declares_its_contract(trial: PluginTrial) -> str | None:
    """It declares the API it was written for as SSLBENCH_API.

    The remark says which of its names other plugins have too.
    """
    silent = [n for p in trial.plugins for n in p.notes if n.startswith("declares no ")]
    require(not silent, f"it declares no SSLBENCH_API: add SSLBENCH_API = {API_VERSION}, say")
    clashes = [n for p in trial.plugins for n in p.notes if "is also provided by" in n]
    return "; ".join(clashes) or None


def imports_in_silence(trial: PluginTrial) -> None:
    """Importing it prints nothing."""
    require(not trial.printed.strip(), f"importing it prints {trial.printed.strip()[:120]!r}")


def imports_without_traces(trial: PluginTrial) -> None:
    """Importing it seeds no global generator and replaces no function of torch, numpy or random."""
    changed = trial.found["changed"]
    require(not changed, "; ".join(changed))


def costs_nothing_unless_named(trial: PluginTrial) -> str | None:
    """Its hooks import no heavy library, since every `sslbench --help` calls them. A file may."""
    heavy = ", ".join(trial.found["heavy"])
    if trial.file is not None and heavy:
        return f"importing it imports {heavy}: a package can say 'module:Name' and wait"
    require(
        not heavy,
        f"importing it imports {heavy}, for which every `sslbench --help` would wait: "
        "return 'module:Name' from its hooks",
    )
    return None


@dataclass(eq=False)
class NameTrial:
    """A suite or a command to be checked."""

    registry: Registry
    name: str
    file: Path | None = None  # of the plugin


def names_what_there_is(trial: NameTrial) -> None:
    """The suite loads, everything that it names exists, and its settings are valid."""
    suite, _ = suite_of(Selection(suite=trial.name), trial.registry)
    methods = (*suite.methods, *suite.baselines)
    named = {"methods": methods, "backbones": suite.backbones, "datasets": suite.datasets}
    for kind, names in named.items():
        for name in names:
            trial.registry.find(kind, parse(name).base)
    judges = [*suite.evaluators, *suite.once, *([suite.tuning.judge] if suite.tuning else ())]
    for name in judges:
        for each in SETS.get(name, (name,)):
            find_judge(each, trial.registry)
    check_settings(trial.registry, settings_of(suite, Selection()), {*methods})


def explains_itself(trial: NameTrial) -> None:
    """`sslbench NAME --help` works."""
    plugin = ["--plugin", str(trial.file)] if trial.file else []
    done = _run(["-m", "sslbench", *plugin, trial.name, "--help"])
    require(done.returncode == 0, f"--help exits {done.returncode}: {_last(done.stderr)}")
    require(f"sslbench {trial.name}" in done.stdout, "--help does not say how it is used")


def _run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "utf-8"},
        check=False,
        timeout=PATIENCE,
    )


def _last(text: str) -> str:
    """The line of an output that says what was wrong."""
    lines = text.strip().splitlines() or ["nothing said"]
    said = [line for line in lines if line.startswith(("error: ", "internal error: "))]
    return (said or lines)[-1]


PLUGIN_CHECKS = (
    loads_without_fault,
    declares_its_contract,
    imports_in_silence,
    imports_without_traces,
    costs_nothing_unless_named,
)
SUITE_CHECKS = (names_what_there_is,)
COMMAND_CHECKS = (explains_itself,)
