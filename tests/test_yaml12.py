"""YAML as every file and every --set is read: the core schema of 1.2, bounded, nothing twice."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import yaml

from sslbench.cells.yaml12 import BYTES, LEVELS, NODES, dump, load, read, value, written
from sslbench.errors import UserError
from sslbench.names import parse, scalar

SCALARS = {
    "": None,
    "~": None,
    "null": None,
    "true": True,
    "FALSE": False,
    "yes": "yes",
    "no": "no",
    "on": "on",
    "Off": "Off",
    "y": "y",
    "3": 3,
    "+3": 3,
    "0100": 100,
    "010": 10,
    "-010": -10,
    "0o17": 15,
    "0xff": 255,
    "0xFF": 255,
    "0b11": "0b11",
    "-0x1": "-0x1",
    "0o8": "0o8",
    "1_28": "1_28",
    "1:30": "1:30",
    "1e1": 10.0,
    "1e-3": 0.001,
    ".5": 0.5,
    "5.": 5.0,
    "1.5E+3": 1500.0,
    ".": ".",
    "1e": "1e",
    ".inf": math.inf,
    "+.Inf": math.inf,
    "-.INF": -math.inf,
    "2026-01-01": "2026-01-01",
    "2026-01-01 10:00:00": "2026-01-01 10:00:00",
    "none": "none",
    "'64'": "64",
    '"1e3"': "1e3",
    "'it''s'": "it's",
    '"\\ud83d\\ude00"': "\N{GRINNING FACE}",
}


@pytest.mark.parametrize("text", SCALARS)
def test_a_scalar_is_one_thing_wherever_it_stands(text: str) -> None:
    wanted = SCALARS[text]
    found = [scalar(text), value(text, "x"), load(f"v: {text}", "x")["v"]]
    if text:  # a bracket has no empty values
        found.append(parse(f"x[v={text}]").params["v"])
    if text:  # nor has a list
        found.append(load(f"[{text}]", "x")[0])
    for each in found:
        assert (type(each), each) == (type(wanted), wanted)


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_not_a_number_is_a_number(text: str) -> None:
    assert math.isnan(scalar(text))
    assert math.isnan(value(text, "x"))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", None),
        ("# nothing\n", None),
        ("\ufeffa: 1\r\nb: [2,\r\n  3]\r\n", {"a": 1, "b": [2, 3]}),
        ("--- {a: 1}\n...\n", {"a": 1}),
        ("%YAML 1.1\n---\na: yes\n", {"a": "yes"}),
        ("a: |\n  3\nb: >\n  x\n  y\n", {"a": "3\n", "b": "x y\n"}),
        ("a: &a [1]\nb: *a\n", {"a": [1], "b": [1]}),
        (
            "a: !!str 3\nb: !!float 3\nc: ! 3\nd: !!int '3'\n",
            {"a": "3", "b": 3.0, "c": "3", "d": 3},
        ),
        ("'3': x\n'<<': y\n", {"3": "x", "<<": "y"}),
        ("{}", {}),
    ],
)
def test_a_document(text: str, wanted: object, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(text.encode())
    assert read(path, "it") == wanted


def bomb(levels: int) -> str:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


REFUSED = {
    "a: 1\nb: 2\na: 3": "line 3: 'a' stands here and in line 1; keep one of the two",
    "s:\n  a: 1\n  'a': 2": "line 3: 'a' stands here and in line 2; keep one of the two",
    "3: x": "line 1: a key must be text, not a number; write '3' in quotes",
    "true: x": "line 1: a key must be text, not true or false; write 'true' in quotes",
    "~: x": "line 1: a key must be text, not nothing; write '~' in quotes",
    "? [a]\n: b": "line 1: a key must be text, not a list; write a text",
    "a: &a {b: 1}\nc: {<<: *a}": (
        "line 2: the merge key << is not of YAML 1.2; write the fields themselves"
    ),
    "a: 1\n---\nb: 2": "line 2: a second document begins; keep one",
    "a: !!python/object/apply:os.system [x]": (
        "line 1: the tag !!python/object/apply:os.system is not read here; "
        "write the value without it"
    ),
    "a: !mine 3": "line 1: the tag !mine is not read here; write the value without it",
    "a: !!set {b}": "line 1: the tag !!set is not read here; write the value without it",
    "a: !!int x": "line 1: 'x' is not of the tag !!int; drop the tag",
    "a: &a [*a]": "line 1: *a contains itself; write it out",
    "a: *b": "line 1: there is no &b above *b; a text that begins with * stands in quotes",
    bomb(9): f"line 5: more than {NODES:,} values, with those that aliases repeat; shorten it",
    f"[{'x,' * NODES}]": (
        f"line 1: more than {NODES:,} values, with those that aliases repeat; shorten it"
    ),
    "[" * 17 + "]" * 17: f"line 1: more than {LEVELS} levels of lists and mappings; use fewer",
    "[" * 100_000: f"line 1: more than {LEVELS} levels of lists and mappings; use fewer",
    "a: &a [[[[[[[[[]]]]]]]]]\nb: [[[[[[[*a]]]]]]]": (
        f"line 2: more than {LEVELS} levels of lists and mappings; use fewer"
    ),
    f"a: {'9' * 5000}": (
        "line 1: a number of 5,000 characters is longer than the 400 that are read; "
        "write it in quotes if it is text"
    ),
    "a: 1\nb: \x01": "line 2: the character U+0001 is not allowed in YAML; remove it",
    "a: [b[c]]": (
        "line 1: expected ',' or ']', but got '['; a name with a bracket stands in quotes"
    ),
    "a: [1\n": "line 2: expected ',' or ']', but got the end; close the bracket or the quote",
    "a: 'x": "line 1: found unexpected end of stream; close the bracket or the quote",
    'a: "C:\\me"': (
        "line 1: found unknown escape character 'm'; in double quotes a backslash starts an "
        "escape, in single quotes it is itself"
    ),
    "\ta: 1": "line 1: found character '\\t' that cannot start any token; indent with spaces",
    "a: @x": (
        "line 1: found character '@' that cannot start any token; "
        "a text that begins with a sign of YAML stands in quotes"
    ),
    "a: b: c": (
        "line 1: mapping values are not allowed here; "
        "a text with a colon and a space stands in quotes"
    ),
    "a: 1\n- b": (
        "line 2: it does not go on from the lines above; indent alike what belongs together"
    ),
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:30]))
def test_what_is_refused_says_where_and_what_would_work(text: str) -> None:
    with pytest.raises(UserError) as caught:
        load(text, "the suite x.yaml")
    assert str(caught.value) == f"the suite x.yaml, {REFUSED[text]}"


def test_a_document_at_the_bounds_is_read() -> None:
    assert len(load(f"[{'x,' * (NODES - 1)}]", "x")) == NODES - 1
    assert load("[" * LEVELS + "]" * LEVELS, "x") == load("[" * LEVELS + "]" * LEVELS, "y")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"# " + b"x" * BYTES, "it is longer than the 1,000,000 bytes that are read; shorten it"),
        (b"a: 1\nb: \xe9t\xe9\n", "it, line 2: the byte 0xe9 is not UTF-8; save the file as UTF-8"),
        ("a: 1".encode("utf-16"), "it, line 1: the byte 0xff is not UTF-8; save the file as UTF-8"),
    ],
)
def test_a_file_is_bounded_and_utf_8(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(path, "it")
    assert str(caught.value) == sentence


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it cannot be read: No such file or directory"):
        read(tmp_path / "gone.yaml", "it")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[0.1,0.2]", [0.1, 0.2]),
        ("[0.1, 0.2]", [0.1, 0.2]),
        ("{head: {lr: 2}}", {"head": {"lr": 2}}),
        ("[]", []),
        ("a,b", "a,b"),
        ("C:\\x", "C:\\x"),
        ("a # said", "a"),
        (" 3 ", 3),
    ],
)
def test_a_value_of_set_is_what_a_file_says(text: str, wanted: object) -> None:
    assert value(text, "x") == load(f"v: {text}", "x")["v"] == wanted


@pytest.mark.parametrize("text", ["a: b", "- a", "[a", "@x", "*x", "a\nb: c", "'a", "{a: 1, a: 2}"])
def test_what_a_file_may_not_say_set_may_not(text: str) -> None:
    with pytest.raises(UserError, match=r"^--set m\.x=.* cannot be read: ") as caught:
        value(text, "--set m.x=...")
    assert "line" not in str(caught.value).replace("several lines", "").replace("in line 1", "")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (0.3, "0.3"),
        (1e-3, "0.001"),
        (256, "256"),
        (True, "true"),
        (None, "null"),
        ("adamw", "adamw"),
        ("yes", "yes"),
        ("1e3", '"1e3"'),
        ("", '""'),
        ([2, 0], "[2,0]"),
        ((0.1, 0.2), "[0.1,0.2]"),
        (["a,b", "c"], '["a,b",c]'),
        ({"head": {"lr": 2}}, "{head: {lr: 2}}"),
        (math.inf, ".inf"),
    ],
)
def test_a_value_has_one_spelling(given: object, text: str) -> None:
    assert written(given) == text


def some(draw: random.Random, depth: int = 2) -> object:
    alphabet = "ab01.-+eEo_x ,[]{}=\"'\\:#&*!|>%@`~/?\n\té😀\x00\x7f\ufeff\x85"
    kind = draw.randrange(7 if depth else 5)
    if kind == 0:
        return draw.uniform(-1, 1) * 10.0 ** draw.randrange(-30, 30)
    if kind == 1:
        return draw.choice([None, True, False, draw.randrange(-99, 99), math.inf, -math.inf])
    if kind == 2:
        return draw.choice(list(SCALARS))
    if kind in (3, 4):
        return "".join(draw.choice(alphabet) for _ in range(draw.randrange(7)))
    parts = [some(draw, depth - 1) for _ in range(draw.randrange(3))]
    return parts if kind == 5 else {str(some(draw, 0)): part for part in parts}


def test_any_value_survives_being_written_and_read() -> None:
    draw = random.Random(0)
    for _ in range(1500):
        given = some(draw)
        assert value(written(given), "x") == given, written(given)
        assert load(dump({"v": given, "w": [given]}), "x") == {"v": given, "w": [given]}


def test_a_written_file_says_the_same_to_readers_of_1_1() -> None:
    for text in SCALARS:
        assert yaml.safe_load(dump([text])) == [text]
        assert load(dump([text]), "x") == [text]
    numbers = [1e-05, 3, 0.1, 1e22, True, None, math.inf]
    assert yaml.safe_load(dump(numbers)) == numbers == load(dump(numbers), "x")
