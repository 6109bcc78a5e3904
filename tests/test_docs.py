"""The pages say what is so: code runs, commands parse, tables are whole, links lead somewhere."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import sslbench
from sslbench import records
from sslbench.cells.suite import Suite, Tuning, load_suite
from sslbench.cli.app import program
from sslbench.plugins import registry

pytestmark = pytest.mark.usefixtures("forks")
ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "leaderboards" / "README.md",
    *DOCS,
    *sorted((ROOT / "plugins").glob("*/README.md")),
]
README = PAGES[0].read_text()


def blocks_of(page: Path) -> list[tuple[str, str]]:
    return re.findall(r"^ *```(\w+)\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands_of(page: Path) -> Iterator[str]:
    """Lines that call sslbench, without their comments."""
    for kind, text in blocks_of(page):
        for line in text.replace("\\\n", " ").splitlines() if kind == "sh" else ():
            words = shlex.split(line, comments=True)
            if "sslbench" in words:
                yield shlex.join(words[words.index("sslbench") :])


BLOCKS = blocks_of(PAGES[0])
LINES = list(commands_of(PAGES[0]))
# docs/plugins.md is followed to the letter by test_plugin_docs.py
KNOWN = [(page, line) for page in PAGES if page.name != "plugins.md" for line in commands_of(page)]


def test_the_method_of_the_readme_runs_by_the_readmes_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [code] = [text for kind, text in BLOCKS if kind == "python"]
    Path("mine.py").write_text(code)
    [line] = [line for line in LINES if "mine.py" in line]
    small = "--seeds 0 --epochs 1 --batch 32 --evaluators knn --set moco.queue=64"
    small += " --datasets digits[train=100,test=30]"
    done = CliRunner().invoke(program, [*shlex.split(line)[1:], *small.split()])
    assert done.exit_code == 0, done.output
    assert re.search(r"^file:mine/mine +1 ", done.output, re.MULTILINE)


@pytest.mark.parametrize(
    "line",
    [pytest.param(line, id=f"{page.parent.name}/{page.name}: {line}") for page, line in KNOWN],
)
def test_the_commands_of_the_pages_are_known(line):
    words = shlex.split(line)
    done = CliRunner().invoke(program, [*words[1:], "--help"])
    assert done.exit_code == 0, done.output
    for option in (word for word in words if word.startswith("--")):
        assert option in done.output or option == "--plugin"


@pytest.mark.parametrize("kind", ["methods", "datasets", "evaluators"])
def test_what_is_built_in_is_named_somewhere_a_newcomer_reads(kind):
    pages = [*(ROOT / "sslbench" / "suites").glob("*.yaml"), *(ROOT / "docs").glob("*.md")]
    text = README + "".join(path.read_text() for path in pages)
    assert [name for name in registry(installed=False).names(kind) if name not in text] == []


def test_every_suite_loads_and_every_setting_of_it_is_known():
    from sslbench.cells.settings import Settings, check_settings

    found = registry(installed=False)
    for name in found.names("suites"):
        suite = load_suite(name, found)
        names = {key.partition(".")[0] for key in suite.set}
        check_settings(found, Settings((({}, suite.set),)), names)
        for method in (*suite.methods, *suite.baselines):
            found.find("methods", method)


def test_no_path_of_one_machine_stands_in_what_is_published():
    for path in (ROOT / "leaderboards").rglob("*.*"):
        if path.is_file() and path.suffix != ".npz":  # arrays of integers
            assert not re.search(r"(^|[^\w.])/(tmp|root|home|work)/", path.read_text()), path


# ---- pages -----------------------------------------------------------------------------------


def headings(page: Path) -> set[str]:
    """Anchors, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_page_is_in_the_index():
    linked = set(re.findall(r"\]\(([^)#]+)\)", (ROOT / "docs" / "index.md").read_text()))
    assert [page.name for page in DOCS if page.name not in linked] == ["index.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        assert not anchor or anchor in headings(found), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_are_there(page):
    """A path in backticks, from the top or from the package; capitals and `my_` are made up."""
    for name in re.findall(r"`([a-z_/0-9.]+/[a-z_0-9.]+\.(?:py|md|yaml))`", page.read_text()):
        made_up = "my_" in name or name.startswith(("sslbench_", "sslbench-", "tests/test_against"))
        places = (ROOT / name, ROOT / "sslbench" / name, page.parent / name)
        assert made_up or any(place.exists() for place in places), name


def test_the_picture_of_the_page_is_small():
    assert (ROOT / "docs" / "page.png").stat().st_size < 300_000


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert cited["version"] == sslbench.__version__
    assert cited["authors"] == [{"name": "The sslbench authors"}]
    assert cited["message"]
    assert cited["title"]


def test_the_import_paths_that_stay_are_there():
    import importlib

    text = (ROOT / "docs" / "python.md").read_text()
    for name in re.findall(r"^\| `(sslbench\.\w+)` \|", text, re.MULTILINE):
        assert importlib.import_module(name).__doc__


def test_the_estimate_of_cifar_is_its_arithmetic():
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    said = " ".join(README.split())
    suite = load_suite("cifar", registry(installed=False))
    create = registry(installed=False).find("backbones", "resnet18-small").load()
    backbone = create("resnet18-small", size=32)
    with FlopCounterMode(display=False) as counter:
        backbone(torch.rand(1, 3, 32, 32))
    forward = counter.get_total_flops()
    assert f"{forward / 1e9:.2f} x 10^9" in said
    # forwards a step and image; a backward pass is worth two of them
    passes = {"simclr": 6, "moco": 4, "swav": 6, "deepcluster": 4, "scan": 10, "supervised": 3}
    assert {*passes} == {*suite.methods, "supervised"}
    assert f"come to {sum(passes.values())} times" in said
    assert f"{suite.epochs} epochs" in said
    whole = forward * sum(passes.values()) * 50_000 * suite.epochs * len(suite.seeds)
    assert f"{whole / 1e18:.1f} x 10^18" in said
    for speed, hours in re.findall(r"\| (\d+) x 10\^12, [^|]*\| (\d+) hours \|", said):
        assert round(whole / float(speed) / 1e12 / 3600) == int(hours)


# ---- tables of fields ------------------------------------------------------------------------


def rows_of(page: str, head: str) -> list[list[str]]:
    """The rows of the first table below `head`."""
    text = (ROOT / "docs" / page).read_text().partition(head)[2]
    table = re.search(r"^\|(?:.*\n\|)+.*", text, re.MULTILINE)
    assert table, head
    lines = table[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def fields_of(kind: type) -> dict[str, object]:
    """Field -> its default, `...` where it has none; of a dataclass, or of pydantic's."""
    if dataclasses.is_dataclass(kind):
        return {
            f.name: f.default
            if f.default is not dataclasses.MISSING
            else ...
            if f.default_factory is dataclasses.MISSING
            else f.default_factory()
            for f in dataclasses.fields(kind)
        }
    found = kind.model_fields  # type: ignore[attr-defined]
    return {
        k: ... if f.is_required() else f.get_default(call_default_factory=True)
        for k, f in found.items()
    }


@pytest.mark.parametrize(("kind", "section"), [(Suite, "## Fields"), (Tuning, "## Tuning")])
def test_every_field_of_a_suite_is_described_with_its_default(kind, section):
    shown = {names_in(row[0])[0]: row for row in rows_of("suites.md", section)}
    fields = fields_of(kind)
    assert list(shown) == list(fields)
    written = {
        "none": None,
        "the suite's name": "",
        "`[]`": (),
        "`{}`": {},
        "each recipe's own": None,
        "`fp32`": "fp32",
    }
    for name, default in fields.items():
        said = shown[name][2]
        if name == "name":
            assert said == "the file's name"
        elif default is ...:
            assert said == "needed", name
        else:
            assert written[said] == (tuple(default) if isinstance(default, frozenset) else default)


def test_the_examples_of_fields_are_taken(tmp_path):
    """All of them at once make a suite that loads."""
    examples = {}
    for section in ("## Fields", "## Tuning"):
        rows = [row for row in rows_of("suites.md", section) if row[-1]]
        examples[section] = {
            names_in(row[0])[0]: yaml.safe_load(row[-1].strip("`")) for row in rows
        }
    suite = {**examples["## Fields"], "tuning": examples["## Tuning"]}
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(suite))
    found = load_suite(str(path), registry(installed=False))
    assert found.tuning is not None
    assert found.name == "mine"


def test_every_field_of_a_record_is_described():
    shown = [
        name for row in rows_of("store.md", "## What a record holds") for name in names_in(row[0])
    ]
    assert sorted(shown) == sorted(records.Record.model_fields)
    assert len(set(shown)) == len(shown)


def test_every_field_of_a_records_parts_is_described():
    shown: dict[str, list[str]] = {}
    for part, names, *_ in rows_of("store.md", "The parts have fields"):
        shown.setdefault(names_in(part)[0], []).extend(names_in(names))
    kinds = {
        "metrics": records.MetricValue,
        "labels": records.Shown,
        "costs": records.Costs,
        "warnings": records.Warned,
        "error": records.Failure,
    }
    assert shown == {name: list(kind.model_fields) for name, kind in kinds.items()}


@pytest.mark.xdist_group("pages")
@pytest.mark.slow
def test_the_files_of_a_cell_are_described(reader):
    [layout] = [block for kind, block in blocks_of(ROOT / "docs" / "store.md") if kind == "text"]
    for path in (reader / "sslbench-store").rglob("*"):
        if path.is_file() and path.parent.name != "records":
            kind = re.match(r"\.?[a-z]+", path.name)
            assert kind, path
            assert kind[0] in layout, f"{path.name} is not in docs/store.md"


# ---- what the pages do -----------------------------------------------------------------------

FOLLOWED = ("suites.md", "python.md", "store.md")  # in one folder, in this order


@pytest.fixture(scope="module")
def reader(forks, tmp_path_factory):
    """The folder of someone who did what FOLLOWED say."""
    home = tmp_path_factory.mktemp("reader")
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.delenv("SSLBENCH_STORE", raising=False)
        for page in FOLLOWED:
            for kind, text in blocks_of(ROOT / "docs" / page):
                follow(kind, text, names)
    return home


def follow(kind: str, text: str, names: dict[str, object]) -> None:
    if kind == "yaml":
        Path(text.partition("\n")[0].removeprefix("# ")).write_text(text)
    elif kind == "python":
        exec(compile(text, "docs", "exec"), names)
    elif kind == "sh":
        for line in text.splitlines():
            words = shlex.split(line)
            if words[0] == "sslbench":
                done = CliRunner().invoke(program, words[1:])
                assert done.exit_code == 0, f"{line}\n{done.output}"
            elif shutil.which("jq"):
                assert subprocess.run(line, shell=True, check=True, capture_output=True).stdout


@pytest.mark.xdist_group("pages")
@pytest.mark.slow
def test_what_the_pages_do_can_be_done(reader):
    assert (reader / "board" / "leaderboard.json").is_file()
    assert load_suite(str(reader / "longer.yaml"), registry(installed=False)).epochs == 50
