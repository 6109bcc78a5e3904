"""Describes an evaluator: its card, read from its class's docstring, and its protocol."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..plugins import Entry, Registry

HEADS = ("Measured", "Chosen", "Source", "Departures", "Traps")
NEEDED = ("Measured", "Chosen", "Source", "Traps")


def evaluator(entry: Entry, registry: Registry) -> dict[str, Any]:
    """Describes an evaluator as plain data; imports it."""
    from ..cells.parameters import described, signature
    from ..cells.protocol import find_judge

    name = entry.name if entry.builtin else entry.qualified
    judge, cls, _ = find_judge(name, registry)
    hints, defaults = signature(cls.__init__, what=f"evaluator {name!r}")
    summary, sections, rest = _parsed(cls.__doc__ or "")
    meanings = _meanings(rest, list(hints))
    return {
        "protocol": judge.protocol,
        "version": judge.version,
        "uses": [used.protocol for used in judge.uses],
        "summary": summary,
        **{head.lower(): sections.get(head, "") for head in HEADS},
        "parameters": {
            key: {
                "default": defaults[key],
                "range": described(kind),
                "what": meanings.get(key, ""),
            }
            for key, kind in hints.items()
        },
        "metrics": {
            metric.name: metric.summary + ("" if metric.higher_is_better else " (lower is better)")
            for metric in cls.metrics
        },
        "ranks": cls.metrics[0].name,
    }


def _parsed(documentation: str) -> tuple[str, dict[str, str], str]:
    """Splits a docstring into first line, sections by their HEADS, and the rest."""
    first, _, text = documentation.partition("\n")
    text = textwrap.dedent(text)
    found = re.split(rf"^({'|'.join(HEADS)}): ", text, flags=re.MULTILINE)
    sections: dict[str, str] = {}
    rest = found[0]
    for head, body in zip(found[1::2], found[2::2], strict=True):
        own, _, after = body.partition("\n\n")
        sections[head] = " ".join(own.split())
        rest += after
    return first.strip(), sections, " ".join(rest.split())


def _meanings(text: str, names: Sequence[str]) -> dict[str, str]:
    """Reads `k: fixed. temperature: of the weights.` into texts by parameter."""
    if not names:
        return {}
    parts = re.split(rf"(?:^|(?<=\s))({'|'.join(map(re.escape, names))}): ", text)
    return {name: said.strip() for name, said in zip(parts[1::2], parts[2::2], strict=True)}


def as_lines(name: str, card: Mapping[str, Any], width: int) -> Iterator[str]:
    """The card as lines for a terminal."""

    def folded(head: str, text: str) -> Iterator[str]:
        yield from textwrap.wrap(f"{head}: {text}", width, subsequent_indent="  ")

    yield f"{name}: {card['protocol']}"
    yield from textwrap.wrap(card["summary"], width)
    for head in HEADS:
        if card[head.lower()]:
            yield from folded(head, card[head.lower()])
    metrics = [f"{k} ({v})" if v else k for k, v in _shown(card["metrics"]).items()]
    yield from folded("Metrics", ", ".join(metrics) + f"; {card['ranks']} ranks")
    for key, row in card["parameters"].items():
        yield from folded(key, f"{row['what']} ({row['range']}; default {_default(row)})")


def as_markdown(name: str, card: Mapping[str, Any]) -> str:
    """The card as a section of the page of protocols."""
    parts = [f"### {name}", f"Protocol `{card['protocol']}`. {card['summary']}"]
    parts += [f"**{head}.** {card[head.lower()]}" for head in HEADS if card[head.lower()]]
    rows = [f"| `{k}` | {v} |" for k, v in _shown(card["metrics"]).items()]
    parts.append("\n".join(["| metric | what it is |", "| --- | --- |", *rows]))
    if card["parameters"]:
        rows = [
            f"| `{key}` | `{_default(row)}` | {row['what'].rstrip('.')}; {row['range']} |"
            for key, row in card["parameters"].items()
        ]
        heads = ["| parameter | default | what it is |", "| --- | --- | --- |"]
        parts.append("\n".join([*heads, *rows]))
    return "\n\n".join(parts) + "\n"


def _shown(metrics: Mapping[str, str]) -> dict[str, str]:
    """Metrics without those of single severities, which are too many."""
    found = {k: v for k, v in metrics.items() if not re.fullmatch(r".+\.\d", k)}
    if len(found) < len(metrics):
        found["NAME.S"] = "that of one corruption at one severity"
    return found


def _default(row: Mapping[str, Any]) -> str:
    value = row["default"]
    return (
        "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )
