"""Finds plugins, contains their faults, and decides which plugin owns a name.

Cells, the store, data and all above may import it.

This guards against faults, not against malice: a plugin runs in this process with its user's rights.

    origins    finds plugins: built in, installed, and single files
    hooks      asks a plugin what it provides
    contained  runs a plugin's code so that its faults become sentences
    kept       restores global functions and settings that an import replaced
    entries    describes what plugins provide
    owners     finds entries by name
    passed     notes which plugins have passed the conformance kit
    probe      imports a plugin in a separate process, and reports what that does
    sources    reads Python sources without importing them
    scaffold   writes the package of a new plugin
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
