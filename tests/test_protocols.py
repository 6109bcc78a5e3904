"""The page of protocols is what the code says, and `list` and `show` print the same cards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sslbench.cli.app import program
from sslbench.cli.card import as_markdown, evaluator
from sslbench.plugins import registry

ROOT = Path(__file__).parents[1]
FOUND = registry(installed=False)
NAMES = FOUND.names("evaluators")
HEAD = """# Protocols

Made from the sources by `pytest tests/test_protocols.py --regold`; `sslbench list evaluators -v` prints
the same. A protocol's id is its evaluator, version and whatever parameters are not the defaults, with
the protocol of a borrowed probe in parentheses; it stands in every record and in every column head.
A golden file (`tests/evaluators/golden`) pins each one's numbers on fixed features and images, so that
they cannot move under the same id.

Whatever is chosen is chosen on the held-out tenth of train or, by judges that are given a budget of labels
(`linear[labels=4/class]`), among the labels of the budget alone; labels of test are read last. Features are
computed once for each encoder and split, in float32 on every device, and shared by all evaluators.
"""


def call(*words: str) -> str:
    done = CliRunner().invoke(program, list(words))
    assert done.exit_code == 0, done.output
    return done.stdout


def page() -> str:
    cards = {name: evaluator(FOUND.find("evaluators", name), FOUND) for name in NAMES}
    rows = [f"| [{n}](#{n}) | `{c['protocol']}` | {c['summary']} |" for n, c in cards.items()]
    index = "\n".join(["| evaluator | protocol | what it is |", "| --- | --- | --- |", *rows])
    return "\n".join([HEAD, index, "", *(as_markdown(n, c) for n, c in cards.items())])


def test_the_page_of_protocols_is_fresh(request: pytest.FixtureRequest) -> None:
    path = ROOT / "docs" / "protocols.md"
    if request.config.getoption("--regold"):
        path.write_text(page())
    assert path.read_text() == page(), "`pytest tests/test_protocols.py --regold`, if that is meant"


def test_the_card_of_corruption_says_where_a_rendered_set_leaves_the_published_one() -> None:
    card = evaluator(FOUND.find("evaluators", "corruption"), FOUND)
    said = " ".join(card["traps"].split())
    assert "warpAffine (OpenCV 4.5.5) rounded coordinates to 1/32 pixel" in said
    assert "up to 4 levels" in said


def test_every_protocol_is_listed_with_its_card() -> None:
    text = " ".join(call("list", "evaluators", "-v").split())
    cards = json.loads(call("list", "evaluators", "-v", "--json"))
    assert list(cards) == list(NAMES)
    for name, card in cards.items():
        assert f"{name}: {card['protocol']}" in text
        assert " ".join(f"Chosen: {card['chosen']}".split())[:60] in text
        assert f"### {name}\n" in page()


def test_a_borrowed_probe_stands_in_the_id() -> None:
    card = json.loads(call("show", "tent", "--json"))
    assert card["protocol"] == "tent-1(linear-2)"
    assert card["uses"] == ["linear-2"]


def test_show_prints_one_card() -> None:
    text = call("show", "knn")
    assert "knn: knn-1" in text
    assert "Traps: published kNN numbers differ" in text
    assert "k: fixed, instead of chosen." in text
