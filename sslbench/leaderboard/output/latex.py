"""Renders a board as LaTeX: booktabs tables for pdflatex.

The output is ASCII: other characters become commands, or their code point. No text of a board can
become a command, a comment, a formula or an argument.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby

from ..board.board import Block, Board, Row, Score
from .text import (
    HEAD,
    SENTENCE,
    cut,
    health_said,
    metric_said,
    rank_said,
    remarked,
    seeds_said,
    title,
    value_said,
)
from .text import caption as statistics_of

WIDE = 5  # columns of a table that fit a page; more make further tables
TALL = 40  # rows of a table; more make further tables

PREAMBLE = r"""% Tables for \input{leaderboard.tex}; the preamble needs
%   \usepackage{booktabs}
%   \usepackage{graphicx}
%   \usepackage{textcomp}
\providecommand{\sslbenchfit}[1]{\sbox0{#1}%
  \ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi}
"""


def as_latex(board: Board) -> str:
    """LaTeX with a table for each block, or several if it is large; findings and warnings are comments."""
    parts = [PREAMBLE]
    for number, block in enumerate(board.blocks, start=1):
        parts += _block(board, block, number)
    if not board.blocks:
        parts.append("No cells.\n")
    if board.notes:
        parts.append(_unprinted([f"note: {note}" for note in board.notes]))
    return "\n".join(parts)


def _block(board: Board, block: Block, number: int) -> Iterator[str]:
    shown = [i for i, column in enumerate(block.columns) if column.narrow]
    wide = [shown[start : start + WIDE] for start in range(0, max(1, len(shown)), WIDE)]
    tall = [block.rows[start : start + TALL] for start in range(0, max(1, len(block.rows)), TALL)]
    words = f"{_sentence(title(block.setting))} {_legend(board, block)}"
    for part, (rows, columns) in enumerate((r, c) for r in tall for c in wide):
        label = f"tab:sslbench-{number}" + (f"-{part + 1}" if part else "")
        head = f"{_sentence(title(block.setting))} Continued." if part else words
        grid = _grid(block, rows, columns, health=part % len(wide) == 0)
        yield table(grid, caption=head, label=label)
    about = (f"{', '.join(labels)}: {text}" for text, labels in remarked(block).items())
    said = [*block.findings, *about]
    if said:
        yield _unprinted(said)


def _sentence(text: str) -> str:
    return escaped(cut(text, SENTENCE)).rstrip(".") + "."


def _legend(board: Board, block: Block) -> str:
    marks = "the best mean is bold"
    if any(_shares(score) for row in block.rows for score in row.scores):
        marks += r"; \textsuperscript{\dag}: shares rank 1 with it"
    board = dataclasses.replace(board, suite_id=cut(board.suite_id))
    words = escaped(statistics_of(board, best="bold")).replace("bold: best mean", marks)
    return f"{words}."


def _shares(score: Score) -> bool:
    """Whether it shares rank 1 with the best row."""
    return score.rank == 1 and not score.best


# ---- a table ---------------------------------------------------------------------------------

Lines = list[str]


def table(grid: tuple[Lines, Lines, str], *, caption: str, label: str) -> str:
    """A floating table. `grid`: lines of the head, lines of the body, alignment of columns."""
    head, body, align = grid
    return "\n".join(
        (
            r"\begin{table}[tbp]",
            r"\centering\small\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{caption}}}",
            rf"\label{{{label}}}\smallskip",
            rf"\sslbenchfit{{\begin{{tabular}}{{{align}}}",
            r"\toprule",
            *head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        )
    )


def line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _grid(
    block: Block, rows: Sequence[Row], columns: Sequence[int], *, health: bool
) -> tuple[Lines, Lines, str]:
    verdicts = health and any(row.verdicts for row in block.rows)
    head = _heads(block, columns, verdicts)
    body: Lines = []
    for baseline, group in groupby(rows, key=lambda row: row.baseline):
        if baseline and body:
            body.append(r"\midrule")
        for row in group:
            scores = [_score(row.scores[i], row, block.columns[i].unit) for i in columns]
            said = [escaped(health_said(row))] if verdicts else []
            body.append(line([escaped(cut(row.label)), escaped(seeds_said(row)), *scores, *said]))
    return head, body, "lr" + "r" * len(columns) + "l" * verdicts


def _heads(block: Block, columns: Sequence[int], verdicts: bool) -> Lines:
    """Lines of the head: protocols above their columns, then metrics."""
    groups: list[tuple[list[str], int]] = []
    for protocol, group in groupby(columns, key=lambda i: block.columns[i].protocol):
        folded = [escaped(part) for part in textwrap.wrap(cut(protocol, 4 * HEAD), HEAD)]
        groups.append((folded, len(list(group))))
    tall = max((len(folded) for folded, _ in groups), default=0)
    lines = []
    for level in range(tall):
        spans = [
            rf"\multicolumn{{{width}}}{{c}}{{{folded[level] if level < len(folded) else ''}}}"
            for folded, width in groups
        ]
        lines.append(line(["", "", *spans, *[""] * verdicts]))
    lines.append(_rules(groups))
    metrics = [escaped(cut(metric_said(block.columns[i]))) for i in columns]
    lines.append(line(["method", "$n$", *metrics, *["health"] * verdicts]))
    return lines


def _rules(groups: Sequence[tuple[list[str], int]]) -> str:
    found, start = [], 3
    for _, width in groups:
        found.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
        start += width
    return "".join(found)


def _score(score: Score, row: Row, unit: str) -> str:
    text = escaped(value_said(score, row, unit))
    text = rf"\textbf{{{text}}}" if score.best else text
    mark = r"\textsuperscript{\dag}" if _shares(score) else ""
    rank = escaped(rank_said(score))
    return f"{text}{mark} {rank}".rstrip()


def _unprinted(texts: Sequence[str]) -> str:
    """Comments in ASCII: what an author should know, and a paper need not print."""
    plain = (" ".join(text.split()).encode("ascii", "backslashreplace").decode() for text in texts)
    return "".join(f"% {text}\n" for text in plain)


# ---- text ------------------------------------------------------------------------------------

_COMMANDS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "#": r"\#",
    "$": r"\$",
    "%": r"\%",
    "&": r"\&",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedblright{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # else it could be an argument of what is before it
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "…": r"\ldots{}",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\to$",
    "∞": r"$\infty$",
    "°": r"\textdegree{}",
    "ß": r"\ss{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "µ": r"$\mu$",
    **dict(zip("αβγδεζηθικλμνξπρστυφχψω", map(r"$\{}$".format, (
        "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa",
        "lambda", "mu", "nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi",
        "omega",
    )), strict=True)),
}  # fmt: skip
_ACCENTS = dict(
    zip(
        map(chr, (0x300, 0x301, 0x302, 0x303, 0x304, 0x306, 0x307, 0x308, 0x30A, 0x30B, 0x30C)),
        "`'^~=u.\"rHv",
        strict=True,
    )
) | {"\u0327": "c"}
_LIGATURE = re.compile(r"(?<=[-',])(?=[-',])")  # LaTeX joins pairs of these into one sign


def escaped(text: str) -> str:
    """The text on one line of ASCII that LaTeX prints as it is."""
    return _LIGATURE.sub("{}", "".join(map(_spelt, " ".join(str(text).split()))))


def _spelt(character: str) -> str:
    if character in _COMMANDS:
        return _COMMANDS[character]
    if " " <= character <= "~":
        return character
    apart = unicodedata.normalize("NFD", character)
    letter, mark = apart[0], apart[1:]
    if mark in _ACCENTS and letter.isascii() and letter.isalpha():
        return rf"\{_ACCENTS[mark]}{{{letter}}}"
    return f"{{[}}U+{ord(character):04X}{{]}}"
