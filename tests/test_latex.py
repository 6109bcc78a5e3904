"""LaTeX tables: whole output, structure that balances, and texts that stay texts."""

from __future__ import annotations

import dataclasses
import re

import pytest
from test_leaderboard import HOSTILE, board, cells, hostile, rows, small

from sslbench.leaderboard.output.latex import TALL, WIDE, as_latex, escaped

SPECIAL = "\\{}#$%&_~^<>|\"`'[]*--- ,, '' ``"
SMALL = r"""\begin{tabular}{lrrrl}
\toprule
 &  & \multicolumn{2}{c}{knn-1} &  \\
\cmidrule(lr){3-4}
method & $n$ & acc & nmi & health \\
\midrule
moco & 2 & \textbf{95.5 $\pm$ 6.4} \#1 & \textbf{75.0 $\pm$ 63.5} & - \\
swav & 2 & 90.5 $\pm$ 6.4 \#2 & 45.0 $\pm$ 63.5 & - \\
byol & 1/2 & 70.0 (n=1) & 20.0 (n=1) & below-untrained \\
dino & 0/2 & missing & missing & - \\
mae & 0/2 & skipped & skipped & - \\
\midrule
pixels & 2 & 88.0 $\pm$ 0.0 & 40.0 $\pm$ 0.0 & - \\
untrained & 2 & 81.0 $\pm$ 12.7 & 32.5 $\pm$ 31.8 & - \\
\bottomrule
\end{tabular}"""


def commands(text):
    """Every command, in order, but for those that spell a character."""
    spelt = (
        r"\\(text\w+|ldots|dag|pm|times|cdot|leq|geq|to|infty|[lLoO]|ae|AE|ss|[`'^~=u.\"rHvc])\b"
    )
    printed = re.sub(r"^%.*$", "", text, flags=re.MULTILINE)
    left = re.sub(rf"{spelt}|\\[{{}}#$%&_]", "", printed)
    return re.findall(r"\\(?:[a-zA-Z]+|.)", left)


def check_structure(text):
    """What TeX would refuse: groups, environments and cells that do not balance."""
    bare = re.sub(r"^%.*$", "", text, flags=re.MULTILINE)
    bare = re.sub(r"\\[\\{}#$%&_]", lambda m: "\\\\" if m[0] == "\\\\" else "", bare)
    assert bare.isascii()
    assert bare.count("$") % 2 == 0
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+\*?)\}", bare):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack
    for align, inner in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end", bare, re.DOTALL):
        for line in inner.split("\\\\"):
            spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
            assert not line.strip() or "&" not in line or line.count("&") + 1 + spans == len(align)
    assert not re.search(r"\\(?:\\|[a-z]*rule|item)\s*[\[*]", bare)  # would be arguments


def test_a_small_board_is_written_as_it_should_be():
    text = as_latex(small())
    assert SMALL in text
    check_structure(text)
    for package in ("booktabs", "graphicx", "textcomp"):
        assert rf"%   \usepackage{{{package}}}" in text
    caption = re.search(r"\\caption\{(.*)\}$", text, re.MULTILINE)[1]
    assert r"mean $\pm$ half of the 95 \% t interval over 2 seeds (n=1: no interval)" in caption
    assert "the best mean is bold" in caption
    assert "dag" not in text  # nothing is tied with the best here
    assert "\n% byol: failed (nan), 1 of 2 (seed 1): loss is nan, last was 0.3\n" in text


def test_what_shares_rank_1_with_the_best_is_marked_and_the_caption_says_how():
    found = board(
        cells("best", 0.92, 0.94, 0.96),
        cells("near", 0.93, 0.93, 0.95),
        cells("far", 0.1, 0.12, 0.1),
    )
    ranks = {label: row.scores[0].rank for label, row in rows(found).items()}
    assert ranks == {"best": 1, "near": 1, "far": 3}
    text = as_latex(found)
    lines = {line.split(" & ")[0]: line for line in text.splitlines() if " & " in line}
    assert "dag" not in lines["best"]
    assert r"\textbf{94.0 $\pm$ 5.0} \#1-2" in lines["best"]
    assert r"93.7 $\pm$ 2.9\textsuperscript{\dag} \#1-2" in lines["near"]
    assert "dag" not in lines["far"]
    assert r"\textsuperscript{\dag}: shares rank 1 with it" in text


def test_wide_and_long_boards_are_broken_and_lose_nothing():
    one = board(*(cells(f"m{i:03}", 0.5 + i / 1000, 0.5 + i / 999) for i in range(TALL + 5)))
    block = one.blocks[0]
    columns = tuple(
        dataclasses.replace(block.columns[0], metric=f"metric{i}") for i in range(WIDE + 2)
    )
    wide = tuple(dataclasses.replace(r, scores=r.scores * (WIDE + 2)) for r in block.rows)
    found = dataclasses.replace(
        one, blocks=(dataclasses.replace(block, columns=columns, rows=wide),)
    )
    text = as_latex(found)
    check_structure(text)
    tables = re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", text, re.DOTALL)
    assert len(tables) == 4
    for i in range(TALL + 5):
        assert sum(f"m{i:03} &" in table for table in tables) == 2
    for i in range(WIDE + 2):
        assert sum(f"metric{i}" in table for table in tables) == 2
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(set(labels)) == 4
    assert text.count("half of the 95") == 1  # the others say that they go on


def test_a_board_without_cells_says_so():
    assert "No cells." in as_latex(board())


@pytest.mark.parametrize(
    "text", [*HOSTILE, SPECIAL, "*x", r"\input{/etc/passwd}\write18{ls}", "%\\end{table}"]
)
def test_no_name_or_message_becomes_a_command(text):
    found, plain = as_latex(hostile(text)), as_latex(hostile("word"))
    check_structure(found)
    heads = r"\multicolumn"  # a long protocol has more lines of head, without a command in them
    ours = [c for c in commands(found) if c not in (heads, "\\\\")]
    assert ours == [c for c in commands(plain) if c not in (heads, "\\\\")]
    for line in found.partition("providecommand")[2].splitlines():
        if line.startswith("%"):  # what is not printed is on one line and of words alone
            assert line.startswith("% ")
            assert line.isprintable()


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a_b%c#d&e$f", r"a\_b\%c\#d\&e\$f"),
        ("{x}", r"\{x\}"),
        ("\\x", r"\textbackslash{}x"),
        ("~^", r"\textasciitilde{}\textasciicircum{}"),
        ('<|>"', r"\textless{}\textbar{}\textgreater{}\textquotedblright{}"),
        ("[k=5]*", "{[}k=5{]}{*}"),
        ("---", "-{}-{}-"),
        ("a-b, c's", "a-b, c's"),
        ("''`", r"'{}'\textasciigrave{}"),
        ("naïve café Škoda Ørsted", r"na\"{i}ve caf\'{e} \v{S}koda \O{}rsted"),
        ("95 ± 6 · λ", r"95 $\pm$ 6 $\cdot$ $\lambda$"),
        ("漢\U0001f600", "{[}U+6F22{]}{[}U+1F600{]}"),
        ("a\nb", "a b"),
    ],
)
def test_each_character_is_written_as_itself(text, written):
    assert escaped(text) == written
