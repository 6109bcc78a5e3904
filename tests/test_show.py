"""`sslbench show METHOD`, and the page of all methods: each default with where it comes from."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from sslbench.cells.suite import load_suite
from sslbench.cli.app import program
from sslbench.cli.describe import HARNESS, method, page
from sslbench.plugins import registry

ROOT = Path(__file__).parents[1]
FOUND = registry(installed=False)
PLUGIN = '''
from functools import partial

from sslbench import Method, Recipe, hookimpl


class Mine(Method):
    """The idea [bold]itself[/bold].

    Nobody et al., arXiv 1234.56789.
    Departures: all
    of them.
    """

    recipe = Recipe(lr=0.5, batch=32)  # tried; ours

    def __init__(self, backbone, data, *, width: int = 3, depth: int = 4):  # of it; paper
        super().__init__()

    def views(self):
        return None

    def step(self, batch):
        yield


def quiet(backbone, data, *, power=1.0):
    return backbone


@hookimpl
def methods():
    return {"mine": Mine, "wide": partial(Mine, width=30, epochs=7), "quiet": quiet}


@hookimpl
def suites():
    return {"broken": "mine:broken.yaml"}
'''


def call(*args: str) -> str:
    result = CliRunner().invoke(program, list(args))
    assert result.exit_code == 0, result.output
    return result.stdout


def plain(*args: str) -> dict:
    return json.loads(call("show", *args, "--json"))


@functools.cache
def described(name: str) -> dict:
    return method(FOUND.find("methods", name), FOUND)


@functools.cache
def whole_page() -> str:
    return page(FOUND)


def table(text: str, title: str) -> dict[str, dict[str, str]]:
    """The rows of a printed table, by its heads."""
    _, _, rest = text.partition(f"\n{title}\n")
    heads, *lines = rest.partition("\n\n")[0].splitlines()
    starts = [m.start() for m in re.finditer(r"(?<!\S \S)(?<!\S)\S+(?: \S+)*", heads)]
    ends = [*starts[1:], None]
    names = [heads[a:b].strip() for a, b in zip(starts, ends, strict=True)]
    rows = [
        [line[a:b].strip() for a, b in zip(starts, ends, strict=True)]
        for line in lines
        if line[0] != " "
    ]
    return {row[0]: dict(zip(names, row, strict=True)) for row in rows}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(PLUGIN)
    return ("--plugin", "mine.py")


@pytest.mark.parametrize("name", FOUND.names("methods"))
def test_every_default_of_a_built_in_method_has_a_source(name: str) -> None:
    found = described(name)
    recipes = {"": found.get("recipe", {})}
    recipes |= {f"{s}.": stage["recipe"] for s, stage in found.get("stages", {}).items()}
    rows = {**found["hyperparameters"]}
    rows |= {f"{at}{k}": row for at, fields in recipes.items() for k, row in fields.items()}
    lacking = [k for k, row in rows.items() if row["source"] == "unknown"]
    assert not lacking, f"no `# what it is; source` behind {', '.join(lacking)} of {name}"
    for row in rows.values():
        assert row["source"] == HARNESS or re.match(r"(paper|code|ours)\b", row["source"])


@pytest.mark.parametrize("name", FOUND.names("methods"))
def test_every_built_in_method_is_shown_with_its_idea_and_all_settings(name: str) -> None:
    found, text = described(name), call("show", name)
    assert found["idea"]
    assert " ".join(found["idea"].split()) in " ".join(text.split())
    for title in ("hyperparameters", "recipe"):
        if found.get(title):
            assert list(table(text, title)) == list(found[title])
    if "recipe" in found:
        assert re.search(r"arXiv \S*\d|doi 10\.\d", found["citation"])
        assert found["departures"]


def test_paper_and_suites_stand_side_by_side() -> None:
    text = call("show", "scan")
    rows = table(text, "recipe")
    assert rows["lr"]["default"] == "0.0001"
    quick = load_suite("quick", FOUND)
    assert rows["lr"]["quick"] == str(quick.set["scan.lr"])
    assert rows["lr"]["fashion-tuned"] == "tuned"
    assert rows["epochs"]["quick"] == str(quick.epochs)
    assert rows["betas"]["source"] == HARNESS
    of_stage = table(text, "recipe of stage agree")
    assert of_stage["lr"]["quick"] == str(quick.set["scan.agree.lr"])
    assert of_stage["epochs"]["quick"] == str(quick.epochs)
    assert table(text, "hyperparameters")["pretext"]["default"] == "simclr"
    assert plain("scan")["suites"]["quick"]["agree.lr"] == quick.set["scan.agree.lr"]


def test_a_suite_that_sets_nothing_of_a_method_has_no_column() -> None:
    assert "cifar" not in plain("moco-v1")["suites"]
    assert "cifar" in plain("moco")["suites"]
    assert plain("pixels")["suites"] == {}


def test_a_variant_names_what_it_sets_and_whose_variant_it_is() -> None:
    found = plain("moco-v1")
    assert found["variant_of"] == "moco"
    assert "temperature" in found["sets"]
    assert found["hyperparameters"]["temperature"]["default"] == 0.07
    assert found["idea"].endswith("(v1: linear head).")
    assert found["citation"] == plain("moco")["citation"]
    assert "moco with another temperature, " in call("show", "moco-v1")


@pytest.mark.slow
def test_a_variant_may_set_the_recipe_of_a_stage() -> None:
    found = plain("scan-imagenet")
    assert found["stages"]["agree"]["recipe"]["lr"]["default"] == 5.0
    assert found["stages"]["agree"]["recipe"]["lr"]["source"] == "paper"
    assert (
        found["stages"]["agree"]["recipe"]["schedule"]
        == (plain("scan")["stages"]["agree"]["recipe"]["schedule"])
    )
    assert "| `agree.lr` | `5.0` |" in whole_page()


def test_a_method_of_a_file_has_the_sources_that_its_comments_give(mine) -> None:
    found = plain(*mine, "mine")["hyperparameters"]
    assert found["width"] == {
        "default": 3,
        "what": "of it",
        "range": "an integer",
        "source": "paper",
    }
    recipe = plain(*mine, "mine")["recipe"]
    assert recipe["lr"] == {"default": 0.5, "what": "tried", "source": "ours"}
    assert recipe["epochs"]["source"] == HARNESS
    text = call(*mine, "show", "mine")
    assert "The idea [bold]itself[/bold]." in text
    assert "Departures: all of them." in text


def test_a_source_that_nobody_gave_is_unknown(mine) -> None:
    found = plain(*mine, "wide")
    assert found["hyperparameters"]["width"]["source"] == "unknown"  # the class's is of its own 3
    assert found["hyperparameters"]["width"]["what"] == "of it"
    assert found["hyperparameters"]["depth"]["source"] == "paper"
    assert found["recipe"]["epochs"]["source"] == "unknown"
    assert plain(*mine, "quiet")["hyperparameters"]["power"]["source"] == "unknown"
    assert re.search(r"^power +1.0 +unknown ", call(*mine, "show", "quiet"), re.MULTILINE)


def test_long_values_stand_below_their_table(mine) -> None:
    Path("mine.py").write_text(PLUGIN.replace("width: int = 3", f"width: str = '{'x' * 60}'"))
    text = call(*mine, "show", "mine")
    assert re.search(r"^width +\.\.\. ", text, re.MULTILINE)
    assert f"  width (default): {'x' * 60}" in text


def test_the_page_of_methods_is_fresh(request: pytest.FixtureRequest) -> None:
    path = ROOT / "docs" / "methods.md"
    text = whole_page()
    if request.config.getoption("--regold"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text, "`pytest tests/test_show.py --regold`, if that is meant"


def test_the_page_has_a_section_for_each_method_that_its_contents_link_to() -> None:
    text = whole_page()
    for name in FOUND.names("methods"):
        assert text.count(f"\n### {name}\n") == 1
        assert f"[{name}](#{name})" in text
    assert "[arXiv 1911.05722](https://arxiv.org/abs/1911.05722)" in text
