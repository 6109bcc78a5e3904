"""The parts of the page that work without scripts: tables of narrow columns, words, lists."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ...board.board import Block, Board, Column, Row
from .. import text as render
from . import published
from .markup import Markup, join, link, tag
from .published import PublishedGroup, on_data_of


def tables(board: Board) -> Markup:
    """The first table; the others are shown only to readers without scripts."""
    found = [_table(board, block) for block in board.blocks]
    if len(found) > 1:
        found[1:] = [tag("noscript", *found[1:])]
    return join(*found) if found else tag("p", "No cells.")


def _table(board: Board, block: Block) -> Markup:
    shown = [i for i, column in enumerate(block.columns) if column.narrow]
    rows = [row for row in block.rows if not row.baseline]
    held = [row for row in block.rows if row.baseline]
    width = 3 + len(shown)
    bodies = [tag("tbody", *(_row(row, block, shown) for row in rows))]
    if held:
        bodies.append(
            tag("tbody", _divider("baselines", width), *(_row(r, block, shown) for r in held))
        )
    bodies += [_published(group, width) for group in on_data_of(board, block)]
    title = render.title(block.setting)
    table = tag("table", tag("caption", title), _head(block, shown), *bodies)
    box = tag("div", table, class_="box", role="region", aria_label=title, tabindex=0)
    return join(box, tag("ul", *(tag("li", text) for text in block.findings), class_="notes"))


def _head(block: Block, shown: list[int]) -> Markup:
    fixed = [tag("th", name, scope="col", rowspan=2) for name in ("method", "n", "health")]
    columns = [block.columns[i] for i in shown]
    groups = []
    for protocol, group in itertools.groupby(columns, key=lambda column: column.protocol):
        groups.append(tag("th", protocol, scope="colgroup", colspan=len(list(group))))
    metrics = [tag("th", metric_said(column), scope="col") for column in columns]
    return tag("thead", tag("tr", *fixed, *groups), tag("tr", *metrics))


def metric_said(column: Column) -> str:
    return render.metric_said(column) or "-"


def _divider(text: str, width: int) -> Markup:
    return tag("tr", tag("th", text, scope="rowgroup", colspan=width), class_="divider")


def _row(row: Row, block: Block, shown: list[int]) -> Markup:
    cells = [tag("td", render.seeds_said(row)), tag("td", render.health_said(row))]
    for i in shown:
        score = row.scores[i]
        value = render.value_said(score, row, block.columns[i].unit)
        text = tag("b", value) if score.best else value
        rank = render.rank_said(score)
        cells.append(tag("td", text, f" {rank}" if rank else ""))
    return tag("tr", tag("th", row.label, scope="row"), *cells)


def _published(group: PublishedGroup, width: int) -> Markup:
    heading = join("published, not ranked: ", link(group.source, group.url), f" · {group.said}")
    lines = [
        tag("tr", tag("th", method, scope="row"), tag("td", numbers, colspan=width - 1))
        for method, numbers in group.rows
    ]
    return tag("tbody", _divider(heading, width), *lines, class_="ref")


# ---- lists -----------------------------------------------------------------------------------


def facts(board: Board) -> Markup:
    """A list of counts: methods, data sets, protocols, seeds ..."""
    rows = {row.label: row.baseline for block in board.blocks for row in block.rows}
    held = sum(rows.values())
    protocols = {c.protocol for block in board.blocks for c in block.columns}
    seeds = {seed for block in board.blocks for row in block.rows for seed in row.cells}
    counts = [
        (len(rows) - held, "method"),
        (held, "baseline"),
        (len({block.setting.dataset for block in board.blocks}), "data set"),
        (len({block.setting.backbone for block in board.blocks}), "backbone"),
        (len(protocols), "protocol"),
        (len(seeds), "seed"),
    ]
    texts = [f"{count} {name}{'s' * (count != 1)}" for count, name in counts if count]
    if board.title:
        texts.append(f"suite {board.suite_id}")
    return tag("ul", *(tag("li", text) for text in texts), class_="facts")


def words(board: Board) -> Markup:
    """A glossary of the statistics."""
    level = f"{100 * board.level:g} %"
    said = [
        ("Values", f"Percent where no unit is named: the mean over seeds ± half of its {level} t "
         "interval. n is the number of seeds; with one there is no interval, and n=1 is said. "
         "Files and panels keep full precision."),
        ("Ranks", "The places that its seeds allow a method: #1-4 says that none is certainly "
         "above it and that all but four are certainly below. What is left of a value after the "
         "mean of its row and that of its seed is noise, which all methods of the column estimate "
         "together; two methods separate when they are further apart than the means of so many "
         "rows come by chance (Tukey's studentised range), which corrects for all pairs. With one "
         "seed there is no rank. Baselines and published numbers are not ranked."),
        ("Comparisons", "A row's panel has its differences by seed from the best mean and from "
         f"each baseline: mean, {level} interval and p, corrected for all methods of the column "
         "(Tukey among methods, Dunnett against a baseline, by the baseline's own spread)."),
        ("Across data sets", "The mean of a row's ranks by mean value, over the data sets on which "
         "every row has one. From six data sets on with an interval: percentile bootstrap over the "
         "data sets."),
        ("Agreement", "Kendall's tau-b between the orders in which two protocols put the methods, "
         "by means over the seeds both have; 95 % interval of its Fisher transform, over methods."),
        ("Costs", "Means over seeds, every stage counted, tuning not."),
    ]  # fmt: skip
    pairs = (join(tag("dt", name), tag("dd", text)) for name, text in said)
    return tag("dl", *pairs, class_="words")


def notes(board: Board) -> Markup:
    if not board.notes:
        return Markup()
    return tag("ul", *(tag("li", note) for note in board.notes), class_="notes")


def left_out(board: Board) -> Markup:
    """The records left out, grouped by reason."""
    reasons: dict[str, list[str]] = {}
    for each in board.left_out:
        reasons.setdefault(each.reason, []).append(each.record)
    if not reasons:
        return tag("p", "Every record is on a table.")
    return join(*_reasons(reasons))


def _reasons(reasons: dict[str, list[str]]) -> Iterator[Markup]:
    for reason, records in reasons.items():
        count = f"{len(records)} record{'s' * (len(records) != 1)}: "
        ids = tag("ul", *(tag("li", tag("code", record)) for record in records), class_="ids")
        yield tag("details", tag("summary", count, reason), ids)


def elsewhere(board: Board) -> Markup:
    """Published numbers on data sets that no table is about."""
    tables = [
        tag(
            "table",
            tag("caption", f"Published numbers on {dataset}, which no table is about"),
            *(_published(group, 2) for group in groups),
        )
        for dataset, groups in published.elsewhere(board)
    ]
    return tag("div", *tables, class_="box") if tables else Markup()
