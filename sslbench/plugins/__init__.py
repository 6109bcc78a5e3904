"""Finds plugins, contains their faults, and settles who owns which name.

Faults are contained, malice is not: a plugin runs in this process with the rights of its user.

    origins    where plugins come from
    hooks      what one says
    contained  what of its faults gets out
    kept       puts back the global functions and settings that an import replaced
    entries    what was found
    owners     who is found under which name
    passed     which have passed the conformance kit
    probe      what an import does, seen from a process of its own
"""

from __future__ import annotations

from .entries import FAMILIES, KINDS, OURS, Entry, PluginInfo, canonical
from .owners import Registry, registry

__all__ = [
    "FAMILIES",
    "KINDS",
    "OURS",
    "Entry",
    "PluginInfo",
    "Registry",
    "canonical",
    "registry",
]
