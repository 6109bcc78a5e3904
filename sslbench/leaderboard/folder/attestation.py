"""Attestations: somebody has reproduced numbers of a leaderboard and says so.

An attestation has a digest but no signature. It counts for a cell as long as the leaderboard has
exactly the records that were reproduced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...records import Record, digest

FORMAT = 1
LEVELS = ("", "re-judged", "retrained")  # in rising order
ACCEPTED, REFUSED = "accepted", "refused"


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The attestation with its format and a digest of it all."""
    plain = {"format": FORMAT, **content}
    return {**plain, "digest": digest(plain)}


def intact(attestation: Mapping[str, Any]) -> bool:
    """Whether its digest is right."""
    plain = {k: v for k, v in attestation.items() if k != "digest"}
    try:
        return plain.get("format") == FORMAT and attestation.get("digest") == digest(plain)
    except (TypeError, ValueError):
        return False


def file_name(attestation: Mapping[str, Any]) -> str:
    return f"attestation-{attestation['digest'][:24]}.json"


def attested(
    attestations: Iterable[Mapping[str, Any]], records: Iterable[Record]
) -> dict[str, str]:
    """The highest level at which somebody vouches for all records of a cell, by cell id.

    Only some cells of a row were drawn and reproduced. They vouch for the whole row, since nobody
    could foresee which would be drawn.
    """
    current: dict[str, set[str]] = {}
    for record in records:
        current.setdefault(record.cell_id, set()).add(record.record_id)
    found: dict[str, str] = {}
    for attestation in attestations:
        for cell, level in _vouched(attestation, current):
            found[cell] = max(found.get(cell, ""), level, key=LEVELS.index)
    return found


def _vouched(attestation: Any, current: Mapping[str, set[str]]) -> Iterable[tuple[str, str]]:
    if not isinstance(attestation, Mapping) or not intact(attestation):
        return
    if attestation.get("verdict") != ACCEPTED:
        return
    rows = attestation.get("rows")
    for row in rows if isinstance(rows, list) else ():
        records = row.get("records") if isinstance(row, Mapping) else None
        if not isinstance(records, Mapping) or row.get("level") not in LEVELS[1:]:
            continue
        for cell, own in records.items():
            if cell in current and isinstance(own, list) and current[cell] <= set(map(str, own)):
                yield cell, row["level"]
