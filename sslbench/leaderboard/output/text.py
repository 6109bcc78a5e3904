"""Renders a board as a terminal table and plain text, and words what all formats share.

Tables show percent and only the narrow columns; export.py writes everything. Texts on a board are
printable already; each format escapes its own special characters.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from ..board.board import Block, Board, Column, Flag, Gap, MeanCosts, Row, Score, Setting
from ..board.details import OURS

LABEL = 32  # terminal cells; longer names are cut in tables
SENTENCE = 300  # terminal cells; longer sentences below tables are cut
WIDE = 8  # columns of a Markdown table; more make further tables
HEAD = 24  # characters; longer protocol ids are folded, not cut


class Piece(NamedTuple):
    text: str
    style: str = ""


class Grid(NamedTuple):
    """A table of texts; when split to fit a width, its first `fixed` columns are repeated."""

    heads: list[tuple[str, ...]]  # lines of the head, by column
    body: list[list[Piece]]
    fixed: int
    baselines: int  # number of rows at the end that are set apart


Line = list[Piece]


def as_rich(board: Board) -> BoardView:
    """The board as something that a rich console prints, fitted to its width."""
    return BoardView(board)


@dataclass(frozen=True)
class BoardView:
    board: Board

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in _lines(self.board, options.max_width):
            # Text, not markup: brackets in names are only brackets
            text = Text.assemble(*line, overflow="fold")
            text.rstrip()
            yield text


def as_text(board: Board, *, width: int | None = None) -> str:
    """The board as plain text; without a width no line is folded."""
    lines = ("".join(piece.text for piece in line).rstrip() for line in _lines(board, width))
    return "\n".join(lines) + "\n"


# ---- lines -----------------------------------------------------------------------------------


def _lines(board: Board, width: int | None) -> Iterator[Line]:
    if not board.blocks:
        yield from _folded("no cells", width)
    for block in board.blocks:
        yield from _folded(title(block.setting), width, "bold")
        yield []
        yield from _laid(_scores(block), width)
        yield []
        yield from _laid(_costs(block), width)
        yield []
        for sentence in block.findings:
            yield from _folded(sentence, width)
        if block.findings:
            yield []
        said = remarked(block)
        for text, labels in said.items():
            yield from _folded(f"{', '.join(map(cut, labels))}: {text}", width, "yellow")
        if said:
            yield []
    for note in board.notes:
        yield from _folded(f"note: {note}", width)
    yield from _folded(caption(board, best="*"), width, "dim")


def _folded(text: str, width: int | None, style: str = "") -> Iterator[Line]:
    if width is None:
        yield [Piece(text, style)]
        return
    for part in textwrap.wrap(text, max(width, 20), subsequent_indent="  ") or [""]:
        yield [Piece(part, style)]


def _laid(grid: Grid, width: int | None) -> Iterator[Line]:
    """Splits the grid into tables, one below the other, that fit the width."""
    sizes = [
        max(cell_len(text) for text in [*head, *(row[i].text for row in grid.body)])
        for i, head in enumerate(grid.heads)
    ]
    shown = list(range(grid.fixed, len(sizes)))
    while True:
        taken = sum(size + 2 for size in sizes[: grid.fixed])
        count = 0
        for i in shown:
            taken += sizes[i] + 2
            if count and width is not None and taken - 2 > width:
                break
            count += 1
        yield from _table(grid, sizes, [*range(grid.fixed), *shown[:count]])
        shown = shown[count:]
        if not shown:
            return
        yield []


def _table(grid: Grid, sizes: Sequence[int], columns: Sequence[int]) -> Iterator[Line]:
    def line(pieces: Sequence[Piece]) -> Line:
        found: Line = []
        for i, piece in zip(columns, pieces, strict=True):
            pad = " " * (sizes[i] - cell_len(piece.text))
            found += [piece, Piece(pad)] if i == 0 else [Piece("  " + pad), piece]
        return found

    total = sum(sizes[i] + 2 for i in columns) - 2
    tall = max(len(grid.heads[i]) for i in columns)
    heads = [("",) * (tall - len(grid.heads[i])) + grid.heads[i] for i in columns]
    for texts in zip(*heads, strict=True):
        yield line([Piece(text, "bold") for text in texts])
    yield [Piece("-" * total, "dim")]
    for number, pieces in enumerate(grid.body):
        if grid.baselines and number == len(grid.body) - grid.baselines:
            yield [Piece("- baselines ".ljust(total, "-"), "dim")]
        yield line([pieces[i] for i in columns])


def _scores(block: Block) -> Grid:
    heads: list[tuple[str, ...]] = [("method",), ("n",)]
    body = [[Piece(cut(row.label)), Piece(seeds_said(row))] for row in block.rows]
    for index, column in enumerate(block.columns):
        if not column.narrow:
            continue
        heads.append((*textwrap.wrap(column.protocol, HEAD), metric_said(column)))
        ranks = [rank_said(row.scores[index]) for row in block.rows]
        widest = max(map(len, ranks))
        for row, rank, pieces in zip(block.rows, ranks, body, strict=True):
            score = row.scores[index]
            text = ("*" if score.best else "") + value_said(score, row, column.unit)
            after = f" {rank:<{widest}}" if widest else ""
            pieces.append(Piece(text + after, "bold" if score.best else ""))
    if any(row.verdicts for row in block.rows):
        heads.append(("health",))
        for row, pieces in zip(block.rows, body, strict=True):
            pieces.append(Piece(health_said(row), "yellow"))
    if foreign(block):
        heads.append(("kit",))
        for row, pieces in zip(block.rows, body, strict=True):
            pieces.append(Piece(conformance_said(row)))
    return Grid(heads, body, 2, sum(row.baseline for row in block.rows))


def _costs(block: Block) -> Grid:
    tuned = any(row.costs.trials for row in block.rows)
    heads: list[tuple[str, ...]] = [("costs",), *((name,) for name in (*COSTS, *TUNED[:tuned]))]
    body = [[Piece(cut(row.label)), *map(Piece, _spent(row.costs, tuned))] for row in block.rows]
    return Grid(heads, body, 1, sum(row.baseline for row in block.rows))


# ---- what stands in a table ------------------------------------------------------------------

COSTS = ("seconds", "images/s", "parameters", "FLOPs/image", "peak memory")
TUNED = ("trials",)  # shown if any row was tuned


def title(setting: Setting) -> str:
    parts = [setting.dataset, setting.backbone]
    if setting.size is not None:
        parts.append(f"{setting.size} px")
    if setting.epochs is not None:
        parts.append(f"{setting.epochs} epoch{'s' * (setting.epochs != 1)}")
    if setting.budget is not None:
        parts.append(f"{setting.budget} labels")
    if setting.precision is not None:
        parts.append(setting.precision)
    if setting.fingerprint is not None:
        parts.append(f"data {setting.fingerprint[:12]}")
    return " · ".join(parts)


def caption(board: Board, *, best: str) -> str:
    """A sentence on how to read the numbers: statistics, seeds, ranks."""
    counts = {len(row.cells) for block in board.blocks for row in block.rows}
    seeds = f"{counts.pop()} seeds" if len(counts) == 1 else "seeds"
    seeds = "1 seed" if seeds == "1 seeds" else seeds
    units = any(c.unit and c.narrow for block in board.blocks for c in block.columns)
    others = " where no unit is named" if units else ""
    return (
        f"Suite {board.suite_id}: percent{others}, mean ± half of the {100 * board.level:g} % t interval "
        f"over {seeds} (n=1: no interval); ranks (#) are the places that its seeds allow a method "
        f"(all rows of a table compared together, corrected for all pairs), baselines have "
        f"none; {best}: best mean; costs count every stage"
    )


def metric_said(column: Column) -> str:
    split = "" if column.split == "test" else f" ({column.split})"
    unit = {"": "", "1": " (a number)"}.get(column.unit, f" ({column.unit})")
    return column.metric + unit + split + ("" if column.higher_is_better else " (lower is better)")


def health_said(row: Row) -> str:
    """Codes of health flags; their sentences are below the table."""
    good = "ok" if row.trained and row.health else "-"
    return cut(" ".join(row.verdicts)) or good


def foreign(block: Block) -> bool:
    """Whether a row is of a plugin's method; if so, all rows show how they were checked."""
    methods = (row.details.components.get("method", {}) for row in block.rows if row.details)
    return any(method.get("dist", OURS) != OURS for method in methods)


def conformance_said(row: Row) -> str:
    """How its method was checked."""
    return (row.details.conformance or "not checked") if row.details else "-"


def seeds_said(row: Row) -> str:
    return str(row.n) if row.n == len(row.cells) else f"{row.n}/{len(row.cells)}"


def rank_said(score: Score) -> str:
    """`#2` or `#1-4`."""
    if score.rank is None:
        return ""
    return f"#{score.rank}" if score.rank == score.rank_to else f"#{score.rank}-{score.rank_to}"


def value_said(score: Score, row: Row, unit: str) -> str:
    if score.mean is None:
        return lacking_said(score.gaps.values())
    if score.interval is None:
        return f"{si(score.mean) if unit else f'{100 * score.mean:.1f}'} (n=1)"
    half = (score.interval[1] - score.interval[0]) / 2
    partial = f" (n={score.n})" if score.n < row.n else ""
    if unit:
        return f"{si(score.mean)} ± {si(half)}{partial}"
    digits = 2 if 0 < half < 0.0005 else 1
    return f"{100 * score.mean:.{digits}f} ± {100 * half:.{digits}f}{partial}"


def lacking_said(gaps: Iterable[Gap]) -> str:
    """Why there is no value: `failed (nan)`, with counts if seeds differ; `-`: never asked for."""
    counts = Counter(state_said(gap) for gap in gaps if gap.state != "absent")
    if len(counts) < 2:
        return next(iter(counts), "-")
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def state_said(gap: Gap) -> str:
    return f"{gap.state} ({cut(gap.kind)})" if gap.kind else gap.state


def cut(text: str, size: int = LABEL) -> str:
    return text if cell_len(text) <= size else set_cell_size(text, size - 3).rstrip() + "..."


def _spent(costs: MeanCosts, tuned: bool) -> list[str]:
    memory = costs.peak_memory_bytes
    return [
        _number(costs.seconds, 1),
        _number(costs.images_per_second, 0),
        si(costs.parameters),
        si(costs.flops),
        "-" if memory is None else f"{memory / 2**20:.0f} MiB",
        *[str(costs.trials)][:tuned],
    ]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def si(value: float | None) -> str:
    if value is None:
        return "-"
    for power, letter in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= (1 if power == 3 else 0.1) * 10**power:
            return f"{value / 10**power:.2f} {letter}"
    if value and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:.4g}"


def remarked(block: Block) -> dict[str, list[str]]:
    """Each sentence below a table once, with the labels of the rows that it is about."""
    found: dict[str, list[str]] = {}
    for row in block.rows:
        for text in remarks(row):
            found.setdefault(text, []).append(row.label)
    return found


def remarks(row: Row) -> Iterator[str]:
    """Sentences below a table: reasons for missing values, and warnings."""
    for trouble in row.troubles:
        whose = f"{trouble.gap.evaluator} " if trouble.gap.evaluator else ""
        why = f": {cut(trouble.gap.sentence, SENTENCE)}" if trouble.gap.sentence else ""
        count = f"{len(trouble.seeds)} of {len(row.cells)}"
        yield f"{whose}{state_said(trouble.gap)}, {count}{_which(trouble.seeds, row)}{why}"
    codes: dict[str, list[Flag]] = {}
    for flag in row.flags:
        codes.setdefault(flag.code, []).append(flag)
    for code, flags in codes.items():
        seeds = sorted({seed for flag in flags for seed in flag.seeds})
        more = f" (and {len(flags) - 1} more)" if len(flags) > 1 else ""
        yield f"{code}{_which(seeds, row)}: {cut(flags[0].message, SENTENCE)}{more}"


def _which(seeds: Sequence[int], row: Row) -> str:
    """The seeds in brackets; empty if they are all."""
    if len(seeds) == len(row.cells):
        return ""
    return f" (seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))})"
