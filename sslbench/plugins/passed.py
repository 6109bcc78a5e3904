"""Notes in a store which plugins have passed the conformance kit, and reads those notes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .entries import Entry, PluginInfo, canonical

KIT = 1  # version of sslbench.testing; raise it when what passed before may fail
FOLDER = "conformance"


def write_pass(root: Path, plugin: PluginInfo, entries: Mapping[str, Entry]) -> Path:
    """Notes in the store `root` that all of `entries`, as Registry.of names them, have passed."""
    from ..disk import write_atomic
    from ..records import now

    what = {
        "kit": KIT,
        "dist": plugin.dist,
        "version": plugin.version,
        "entries": {key: entry.source_sha256() for key, entry in sorted(entries.items())},
    }
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    slug = re.sub(r"[^a-z0-9-]+", "_", plugin.dist.lower())[:40]
    path = root / FOLDER / f"{slug}-{digest[:12]}.json"
    write_atomic(path, json.dumps({**what, "when": now()}, indent=1).encode())
    return path


def kit_passed(root: Path, entry: Entry) -> int | None:
    """The newest kit that an entry's present source has passed, as noted in the store `root`."""
    source = entry.source_sha256()
    kits = [
        note["kit"]
        for note in _notes(root)
        if canonical(str(note.get("dist"))) == canonical(entry.dist)
        and note.get("version") == entry.version
        and source
        and note["entries"].get(f"{entry.kind}/{entry.name}") == source
    ]
    return max(kits, default=None)


def _notes(root: Path) -> Iterator[dict[str, Any]]:
    """Reads the notes of a store; one that cannot be read is passed over."""
    for path in sorted((root / FOLDER).glob("*.json")):
        try:
            note = json.loads(path.read_text())
        except (ValueError, OSError, RecursionError):
            continue
        sound = isinstance(note, dict) and isinstance(note.get("entries"), dict)
        if sound and type(note.get("kit")) is int:
            yield note
