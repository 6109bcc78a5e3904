"""The page of a leaderboard: what it holds, that nothing in a record becomes markup, its size."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html.parser
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from boards import COLUMNS, board_of

from sslbench.leaderboard.board.board import Board
from sslbench.leaderboard.output.page import as_html, assembly
from sslbench.leaderboard.output.page.markup import Markup, is_web, join, tag
from sslbench.leaderboard.output.page.payload import payload
from sslbench.leaderboard.output.page.pool import Pool

EVIL = (
    """ "><script>window.__pwn=1</script><img src=x onerror="window.__pwn=1">'</script>"""
    "</noscript></textarea></title><!-- <!-- tables --> {{x}} ${x} &lt;b&gt; \u2028 javascript:alert(1)"
)


class Page(html.parser.HTMLParser):
    """Elements in order, and the text of those that hold one."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.texts = []  # (name, attributes, text) of scripts, styles and leaves
        self.open = []
        self.feed(text)
        self.close()

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in ("meta", "link", "br"):
            self.open.append((name, dict(attributes), []))

    def handle_data(self, data):
        for _, _, parts in self.open:
            parts.append(data)

    def handle_endtag(self, name):
        opened, attributes, parts = self.open.pop()
        assert opened == name, f"<{opened}> was closed by </{name}>"
        self.texts.append((name, attributes, "".join(parts)))

    def named(self, name):
        return [attributes for other, attributes in self.elements if other == name]

    def said(self, name):
        return [text for other, _, text in self.texts if other == name]

    def by_id(self, key):
        return next(text for _, attributes, text in self.texts if attributes.get("id") == key)


@pytest.fixture(scope="module")
def board():
    return board_of()


@pytest.fixture(scope="module")
def page(board):
    return Page(as_html(board))


def test_the_page_is_a_document_with_landmarks_headings_and_captions(board, page):
    assert page.named("html") == [{"lang": "en"}]
    assert [len(page.named(name)) for name in ("main", "nav", "h1", "title")] == [1, 1, 1, 1]
    assert page.said("h1") == ["made-up"]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for section in page.named("section"):
        assert section["aria-labelledby"] in ids
    tables = page.named("table")
    assert len(tables) == len(page.said("caption")) == len(board.blocks) + 1  # one of references
    assert {head.get("scope") for head in page.named("th")} <= {
        "col", "colgroup", "row", "rowgroup"
    }  # fmt: skip
    assert not page.open


def test_without_scripts_every_table_is_there_and_says_what_failed_and_which_ranks(board, page):
    text = " ".join(page.said("table"))
    for block in board.blocks:
        assert block.setting.dataset in " ".join(page.said("caption"))
    for words in ("failed (nan)", "(n=1)", "empty-clusters", "#1", "baselines", "not ranked"):
        assert words in text
    row = next(r for r in board.blocks[0].rows if r.scores[0].interval)
    assert f"{100 * row.scores[0].mean:.1f} ± " in text
    assert len(page.said("noscript")) == 1, "the tables after the first"
    best = [s for block in board.blocks for row in block.rows for s in row.scores if s.best]
    narrow = sum(
        block.columns[i].narrow and row.scores[i].best
        for block in board.blocks
        for row in block.rows
        for i in range(len(block.columns))
    )
    assert len(page.said("b")) == narrow < len(best)


def test_the_statistics_are_stated_with_the_level_of_the_board(board):
    words = Page(as_html(dataclasses.replace(board, level=0.9))).by_id("statistics")
    assert "90 % t interval" in words
    for term in ("Tukey", "Dunnett", "n=1", "six data sets", "bootstrap", "Kendall"):
        assert term in words


def test_what_was_left_out_is_said_with_its_reason_and_its_records(page):
    text = page.by_id("left-out")
    assert "1 record: judged by an older version" in text
    assert "ab" * 12 in text
    assert "a note" in text
    empty = Page(as_html(Board("empty", 0.95, (), ())))
    assert "No cells." in empty.by_id("tables")
    assert "Every record is on a table." in empty.by_id("left-out")


def test_published_numbers_are_greyed_and_linked_only_to_the_web(page):
    links = [attributes["href"] for attributes in page.named("a")]
    assert links == ["#ranking", "https://example.org/"]
    assert page.named("a")[1]["rel"] == "noopener noreferrer nofollow"
    greyed = [text for _, attributes, text in page.texts if attributes.get("class") == "ref"]
    heading = "published, not ranked: Somebody 2020 · 2026-01-02 · linear, 800 epochs · resnet50"
    assert greyed[0] == f"{heading} · a notePaper76.6 % top1, 93.25 % top5"
    assert "bad address" in greyed[1], "its source is said where its address is none"
    assert "Published numbers on elsewhere" in " ".join(page.said("caption"))


@pytest.mark.parametrize(
    ("url", "web"),
    [
        ("https://arxiv.org/abs/2002.05709", True),
        ("http://example.org", True),
        ("javascript:alert(1)", False),
        (" https://example.org", False),
        ("data:text/html,x", False),
        ("https:///path", False),
        ("https://example.org/a b", False),
        ("HTTPS://example.org", True),
    ],
)
def test_only_http_addresses_become_links(url, web):
    assert is_web(url) == web


# ---- hostile text ----------------------------------------------------------------------------


def test_no_text_of_a_record_becomes_an_element_or_an_attribute():
    def shape(text):
        page = Page(as_html(board_of(text=text)))
        return [
            (name, sorted((k, v) for k, v in attributes.items() if k not in ("aria-label", "content")))
            for name, attributes in page.elements
        ], page  # fmt: skip

    plain, _ = shape(" harmless")
    evil, page = shape(EVIL)
    assert evil == plain
    assert page.said("h1") == [f"made-up{EVIL}"]
    data = json.loads(page.by_id("data"))
    assert data["blocks"][0]["dataset"] == f"data0{EVIL}", "and none of it is lost"
    assert not re.search(r"[<>&\u2028]", page.by_id("data"))


def test_markup_is_escaped_unless_it_was_made_here():
    made = tag("p", "<b>", tag("i", "&"), title='"x" <y>', hidden=True, id=None)
    assert made == '<p title="&quot;x&quot; &lt;y&gt;" hidden>&lt;b&gt;<i>&amp;</i></p>'
    assert isinstance(join("<"), Markup)
    assert join(join("<"), "<") == "&lt;&lt;"
    with pytest.raises(ValueError, match="is not the name of an attribute"):
        tag("p", **{"on x=": "1"})


def test_the_policy_allows_the_pages_own_scripts_and_style_and_nothing_else(page):
    (policy,) = [m["content"] for m in page.named("meta") if "http-equiv" in m]
    scripts = [text for name, a, text in page.texts if name == "script" and "type" not in a]
    sums = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in (*scripts, *page.said("style"))
    ]
    assert len(sums) == 3
    assert policy == (
        f"default-src 'none'; script-src {sums[0]} {sums[1]}; style-src {sums[2]}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    for name, attributes in page.elements:
        assert not {"src", "style", "srcset", "action"} & attributes.keys(), name
        assert not [key for key in attributes if key.startswith("on")], name
    assert [a["href"] for a in page.named("link")] == ["data:,"]
    # what stands before the policy is not held to it
    assert [name for name, _ in page.elements[:4]] == ["html", "head", "meta", "meta"]


def test_the_pages_own_scripts_parse_no_markup_and_evaluate_no_text():
    names = {path.name for path in assembly.ASSETS.iterdir()}
    assert names == {*assembly.SCRIPTS, *assembly.STYLES, assembly.VEGA, "page.html"}
    for name in assembly.SCRIPTS:
        text = (assembly.ASSETS / name).read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(",
                     "Function(", "fetch(", "XMLHttp", "import("):  # fmt: skip
            assert word not in text, name


# ---- the data --------------------------------------------------------------------------------


def unpacked(text, code):
    data = base64.b64decode(text)
    return struct.unpack(f"<{len(data) // struct.calcsize(code)}{code}", data)


def test_values_and_means_are_kept_to_the_last_bit_and_gaps_are_no_numbers(board):
    for block, plain in zip(board.blocks, payload(board)["blocks"], strict=True):
        scores = [row.scores[i] for i in range(len(block.columns)) for row in block.rows]
        values = iter(unpacked(plain["values"], "d"))
        means = unpacked(plain["means"], "d")
        halves = unpacked(plain["halves"], "f")
        for score, mean, half in zip(scores, means, halves, strict=True):
            for seed in plain["seeds"]:
                value = next(values)
                assert value == score.values[seed] if seed in score.values else value != value
            assert mean == score.mean if score.n else mean != mean
            if score.interval:
                assert mean + half == pytest.approx(score.interval[1], rel=1e-6)
            else:
                assert half != half
        assert next(values, None) is None
        failed = sum(1 for score in scores for gap in score.gaps.values())
        assert {state: len(places) for state, places in plain["gaps"].items()} == {
            "failed (nan)": failed
        }
        pairs = unpacked(plain["behind"], "f")
        first = board.blocks[0].rows[0].scores[0].behind
        if block is board.blocks[0] and first:
            assert pairs[0] == pytest.approx(first.mean)


def test_curves_are_thinned_to_their_share_and_keep_their_ends(board):
    row = next(r for r in board.blocks[0].rows if r.details and r.details.curves)
    long = tuple((float(e), 5.0 / (e + 1)) for e in range(1000))
    curves = {"loss": {0: long, 1: long[:3], 2: (*long[:2], (2.0, float("nan")))}}
    details = dataclasses.replace(row.details, curves=curves)
    block = dataclasses.replace(board.blocks[0], rows=(dataclasses.replace(row, details=details),))
    plain = payload(dataclasses.replace(board, blocks=(block,)))
    (seeds, epochs, low, high, packed), (others, *_, short) = plain["blocks"][0]["rows"]["curves"][
        0
    ]["loss"]
    levels = unpacked(packed, "H")
    assert (seeds, others) == ([0], [1, 2])
    assert plain["pool"][epochs[0]][:2] == [0, 10]
    assert (plain["pool"][epochs[0]][-1], len(levels)) == (999, 100)
    assert (low, high, levels[0], levels[-1]) == (0.005, 5.0, 65534, 0)
    middle = low + levels[50] / 65534 * (high - low)
    assert middle == pytest.approx(5 / (plain["pool"][epochs[0]][50] + 1), abs=1e-4)
    assert unpacked(short, "H")[-1] == 65535, "no number"


def test_the_pool_stores_what_is_alike_once_and_tells_one_from_true():
    pool = Pool()
    one = pool.add({"a": [1, 2], "b": {"x": None}})
    assert pool.add({"a": [1, 2], "b": {"x": None}}) == one
    assert pool.add([{"x": None}, [1, 2]]) != one
    assert len(pool.parts) == 4
    assert len({tuple(pool.add([value])) for value in (1, 1.0, True, "1", None)}) == 5
    assert pool.parts[pool.add([float("nan"), 2.5])[0]] == ["nan", 2.5]
    assert pool.add({"x": 1, "y": 2}) != pool.add({"y": 2, "x": 1})


# ---- size and bytes --------------------------------------------------------------------------


def test_two_hundred_methods_ten_data_sets_and_five_seeds_are_under_five_megabytes():
    small = board_of(methods=200, datasets=1, seeds=5, columns=COLUMNS, points=100)
    (block,) = small.blocks
    blocks = tuple(
        dataclasses.replace(block, setting=dataclasses.replace(block.setting, dataset=f"data{d}"))
        for d in range(10)
    )
    text = as_html(dataclasses.replace(small, blocks=blocks))
    assert len(text.encode()) < 5_000_000
    assert text.count("<tr>") > 2000, "all tables are there without scripts too"


def test_the_same_board_gives_the_same_bytes_in_another_process(board):
    code = (
        "import hashlib; from boards import board_of; from sslbench.leaderboard.output.page import as_html;"
        "print(hashlib.sha256(as_html(board_of()).encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parent)}
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == hashlib.sha256(as_html(board).encode()).hexdigest()


def test_the_vendored_library_is_the_one_that_was_made_and_carries_its_licences():
    content = (assembly.ASSETS / assembly.VEGA).read_bytes()
    assert hashlib.sha256(content).hexdigest() == assembly.VEGA_SHA256
    head = content.partition(b"*/")[0].decode()
    assert "University of Washington Interactive Data Lab" in head
    assert "Mike Bostock" in head
    assert b"\r" not in content
    assert b"</script" not in content.lower()
    assert b"<!--" not in content


# ---- colours ---------------------------------------------------------------------------------


def palettes():
    text = (assembly.ASSETS / "colours.css").read_text()
    found = [dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in text.split("{")]
    return [palette for palette in found if "ink" in palette]


def contrast(one, other):
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_can_be_read_in_both_themes():
    light, dark, chosen = palettes()
    assert dark == chosen, "by the system's wish and by the button"
    assert light.keys() == dark.keys()
    for palette in (light, dark):
        for ground in ("paper", "raised", "tint"):
            for ink in ("ink", "muted", "faint", "accent", "bad"):
                assert contrast(palette[ink], palette[ground]) > 4.5, (ink, ground)
        for step in range(9):
            one = palette["on-strong" if step > 4 else "on-weak"]
            two = palette["on-strong" if step < 2 or step > 6 else "on-weak"]
            assert contrast(one, palette[f"q{step}"]) > 4.5, step
            assert contrast(two, palette[f"d{step}"]) > 4.5, step
        assert contrast(palette["focus"], palette["paper"]) > 3
