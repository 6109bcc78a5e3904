"""What a source says of itself, read without importing it."""

from __future__ import annotations

from textwrap import dedent

import pytest

from sslbench.plugins.sources import Remark, above, headings, remarks

SOURCE = '''
"""A module that cannot be imported."""
from nowhere import Method, Recipe, partial
raise SystemExit

class Mine(Method):
    """Idea."""

    plain: int = 3  # of the class; code
    recipe = Recipe(
        epochs=200,  # paper
        batch=256,
        lr=0.03,  # at 256; with a rest; paper v2
        per={
            "head.*": {"momentum": 0.0},  # code: train.py
        },
    )

    def __init__(
        self,
        backbone,
        data,
        *,
        temperature: float = 0.2,  # of the softmax; paper
        queue: int = 65536,  # keys
        hidden: int = 2048,  # paperback
        # heads; ours
        dim: int = 128,
        sizes: tuple[int, ...] = (
            1,
            2,
        ),  # ours, they fit
    ):
        pass

    class Inner:
        depth: int = 1  # paper


Other = partial(
    Mine,
    temperature=0.07,  # paper v1
    queue=16,
    batch=3,  # ours; not so
    **{
        "first.lr": 2,  # of a stage; paper
        "first.per": {
            "x": 1,
        },  # code
    },
)
"""Another idea."""
Third = partial(Other, hidden=0)  # none; code
One = Recipe(lr=1, batch=2)  # both; paper
late = early = 1


def bare(backbone, data, *, largest=32, tag=""):  # pixels; ours
    return 1  # not this; paper
'''


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("sources") / "mine.py"
    path.write_text(SOURCE)
    return path


def test_the_last_clause_of_a_comment_is_its_source(source):
    found = remarks(source, "Mine")
    assert found["temperature"] == Remark("of the softmax", "paper")
    assert found["epochs"] == Remark("", "paper")
    assert found["lr"] == Remark("at 256; with a rest", "paper v2")
    assert found["plain"] == Remark("of the class", "code")


def test_a_source_begins_with_one_of_three_words(source):
    found = remarks(source, "Mine")
    assert found["queue"] == Remark("keys", "")
    assert found["hidden"] == Remark("paperback", "")
    assert remarks(source, "Other")["batch"] == Remark("ours; not so", "")


def test_a_default_without_a_comment_is_there_and_takes_no_neighbours(source):
    found = remarks(source, "Mine")
    assert found["batch"] == found["dim"] == Remark("", "")


def test_a_default_of_several_lines_may_have_its_comment_on_any(source):
    found = remarks(source, "Mine")
    assert found["sizes"] == Remark("", "ours, they fit")
    assert found["per"] == Remark("", "code: train.py")


def test_what_a_partial_sets_has_the_partials_source_and_the_classs_meaning(source):
    found = remarks(source, "Other")
    assert found["temperature"] == Remark("of the softmax", "paper v1")
    assert found["queue"] == Remark("keys", "")
    assert found["lr"].source == "paper v2"
    assert found["first.lr"] == Remark("of a stage", "paper")
    assert found["first.per"] == Remark("", "code")
    assert remarks(source, "Third") == found | {"hidden": Remark("none", "code")}


def test_functions_inner_classes_and_calls_on_one_line_are_read_too(source):
    largest = Remark("pixels", "ours")
    assert remarks(source, "bare") == {"largest": largest, "tag": largest}
    assert remarks(source, "Mine.Inner") == {"depth": Remark("", "paper")}
    assert remarks(source, "One") == dict.fromkeys(("lr", "batch"), Remark("both", "paper"))
    for nothing in ("late", "early", "unknown", "Mine.unknown"):
        assert remarks(source, nothing) == {}


def test_a_remark_above_another_keeps_what_it_is_but_never_its_source():
    below = {"a": Remark("is a", "paper"), "b": Remark("is b", "code")}
    assert above(below, {"a": Remark("", "")}) == {**below, "a": Remark("is a", "")}
    assert above(below, {"a": Remark("new", "ours")})["a"] == Remark("new", "ours")


def test_headings_are_the_comment_lines_above_keys(tmp_path):
    path = tmp_path / "table.py"
    path.write_text(
        dedent(
            '''
            def before():
                return {"x": 1}

            def methods():
                """Says "y": nothing."""
                return {
                    "none": "a:b",
                    # first family
                    "one": "c:d",  # no heading
                    "two": "e:f",
                    #  second
                    "three": "g:h",
                }

            def after():
                return {"z": 1}
            '''
        )
    )
    expected = {"none": "", "one": "first family", "two": "first family", "three": "second"}
    assert headings(path, "methods") == expected
    assert headings(path, "elsewhere") == {}
