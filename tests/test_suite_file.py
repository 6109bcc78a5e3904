"""The suite that a leaderboard's folder has asks for the very cells that are in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from made_up import train

from sslbench.cells.suite import load_suite
from sslbench.cli.app import program
from sslbench.cli.options import settings
from sslbench.errors import UserError
from sslbench.leaderboard.board.planned import material_of
from sslbench.leaderboard.folder.folder import add, read
from sslbench.plan.planning import make_plan
from sslbench.plan.selection import Selection, suite_of
from sslbench.plugins import registry
from sslbench.records import digest

MINE = """
from sslbench import hookimpl
from sslbench.methods.simclr import SimCLR

SSLBENCH_API = (1, 0)


@hookimpl
def methods():
    return {"mine": SimCLR}
"""
TUNED = """
extends: quick
summary: each method tuned by two trials
methods: [moco, mine]
tuning:
  trials: 2
  epochs: 8
  judge: knn
  seed: 100
  space:
    "*.lr": {times: [0.5, 2]}
    mine.temperature: [0.1, 0.2]
"""


def cells_of(options: Selection) -> set[str]:
    found = registry(installed=False, files=[Path("mine.py")])
    return {planned.cell.id for planned in make_plan(options, found, preflight=False).cells}


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"epochs": 3, "batch": 64},
        {"batch": 128},  # the suite's own, and above what it sets for one method
        {"set": {"moco.temperature": 0.5, "moco.queue": 256, "moco.lr": 1e-3}, "seeds": (0, 1)},
        {"methods": ("mine", "simclr"), "set": {"mine.temperature": 0.7}, "evaluators": ("knn",)},
        {"suite": "tuned.yaml"},
        {"suite": "tuned.yaml", "epochs": 3, "set": {"mine.lr": 0.1}},
    ],
    ids=lambda asked: " ".join(asked) or "as it is",
)
def test_the_written_suite_asks_for_the_same_cells(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    Path("tuned.yaml").write_text(TUNED)
    options = Selection(**asked)
    found = registry(installed=False, files=[Path("mine.py")])
    suite = material_of(make_plan(options, found, preflight=False), found).suite
    add(Path("board"), suite, [train("moco", 0)])
    assert read(Path("board")).suite == suite
    assert cells_of(Selection(suite="board/suite.yaml")) == cells_of(options)


def test_what_stands_above_a_methods_own_setting_is_another_protocol():
    found = registry(installed=False)
    plain = make_plan(Selection(), found, preflight=False)
    above = make_plan(Selection(batch=plain.suite.batch), found, preflight=False)
    own = [key for key in plain.suite.set if key.endswith(".batch")]
    assert (above.suite_id != plain.suite_id) == bool(own)
    ids = [{p.cell.id for p in plan.cells} for plan in (plain, above)]
    assert (ids[0] != ids[1]) <= (above.suite_id != plain.suite_id)


# ---- awkward files ---------------------------------------------------------------------------

BASE = """summary: a test
datasets: [digits]
backbones: [test_resnet]
methods: [moco]
baselines: [untrained]
evaluators: [knn]
seeds: [0]
epochs: 1
batch: 128
"""
TUNING = "tuning: {trials: 2, epochs: 8, judge: knn, seed: 100, space: {moco.lr: [0.1]}}\n"
BOMB = """a: &a [x,x,x,x,x,x,x,x,x]
b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]
c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]
d: &d [*c,*c,*c,*c,*c,*c,*c]
"""
FIELDS = (
    "authors, backbones, baselines, batch, datasets, epochs, evaluators, floor, labels, methods, name, "
    "normaliser, notes, once, precision, requires, seeds, set, summary, title, ..."
)


def with_(old: str, new: str) -> str:
    assert old in BASE
    return BASE.replace(old, new)


READ: dict[str, tuple[str | bytes, dict[str, object]]] = {
    "plain": (BASE, {"epochs": 1, "batch": 128, "seeds": (0,), "set": {}}),
    "BOM CRLF": (
        b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode(),
        {"epochs": 1, "batch": 128, "seeds": (0,), "summary": "a test"},
    ),
    "1e-3": (
        BASE + "set: {moco.lr: 1e-3, moco.temperature: 1e-1, moco.queue: 1e3}\n",
        {"set": {"moco.lr": 0.001, "moco.temperature": 0.1, "moco.queue": 1000}},
    ),
    "epochs 1e1": (with_("epochs: 1", "epochs: 1e1"), {"epochs": 10}),
    "seed 010": (with_("[0]", "[0, 010]"), {"seeds": (0, 10)}),
    "seed hex": (with_("[0]", "[0x10, 0o17]"), {"seeds": (16, 15)}),
    "evaluators no": (with_("[knn]", "[no]"), {"evaluators": ("no",)}),
    "methods date": (with_("[moco]", "[2026-01-01]"), {"methods": ("2026-01-01",)}),
    "summary date": (with_("a test", "2026-01-01"), {"summary": "2026-01-01"}),
    "datasets quoted br": (
        with_("[digits]", '["digits[size=64]"]'),
        {"datasets": ("digits[size=64]",)},
    ),
    "folder single quotes": (
        with_("[digits]", "['folder:C:\\Users\\me\\pics']"),
        {"datasets": ("folder:C:\\Users\\me\\pics",)},
    ),
    "null epochs": (with_("epochs: 1", "epochs:"), {"epochs": None}),
    "name override": (BASE + "name: '../../etc'\n", {"name": "../../etc"}),
    "empty methods": (with_("[moco]", "[]"), {"methods": ()}),
    "moco twice": (with_("[moco]", "[moco, moco]"), {"methods": ("moco", "moco")}),
    "datasets twice": (with_("[digits]", "[digits, digits]"), {"datasets": ("digits", "digits")}),
    "no tuning": (BASE + "tuning:\n", {"tuning": None}),
}
REFUSED: dict[str, tuple[str | bytes, str]] = {
    "UTF-16": (
        BASE.encode("utf-16"),
        "the suite x.yaml, line 1: the byte 0xff is not UTF-8; save the file as UTF-8",
    ),
    "latin1 comment": (
        ("# \xe9t\xe9\n" + BASE).encode("latin-1"),
        "the suite x.yaml, line 1: the byte 0xe9 is not UTF-8; save the file as UTF-8",
    ),
    "dup key": (
        BASE + "epochs: 7\n",
        "the suite x.yaml, line 10: 'epochs' stands here and in line 8; keep one of the two",
    ),
    "dup set": (
        BASE + "set:\n  moco.lr: 0.5\n  moco.lr: 0.06\n",
        "the suite x.yaml, line 12: 'moco.lr' stands here and in line 11; keep one of the two",
    ),
    "batch 1_28": (
        with_("128", "1_28"),
        "batch of the suite x.yaml must be a whole number, not '1_28'",
    ),
    "batch 1:30": (
        with_("128", "1:30"),
        "batch of the suite x.yaml must be a whole number, not '1:30'",
    ),
    "epochs yes": (
        with_("epochs: 1", "epochs: yes"),
        "epochs of the suite x.yaml must be a whole number, not 'yes'",
    ),
    "epochs true": (
        with_("epochs: 1", "epochs: true"),
        "epochs of the suite x.yaml must be a whole number, not true",
    ),
    "epochs 1.5": (
        with_("epochs: 1", "epochs: 1.5"),
        "epochs of the suite x.yaml must be a whole number, not 1.5",
    ),
    "epochs -1": (
        with_("epochs: 1", "epochs: -1"),
        "epochs of the suite x.yaml must be 0 or more, not -1",
    ),
    "batch 0": (with_("128", "0"), "batch of the suite x.yaml must be 1 or more, not 0"),
    "summary number": (
        with_("a test", "2026"),
        "summary of the suite x.yaml must be text, not 2026; write '2026' in quotes",
    ),
    "methods number": (
        with_("[moco]", "[moco, 2026]"),
        "methods of the suite x.yaml must be a list of texts, not of 2026; write '2026' in quotes",
    ),
    "datasets str": (
        with_("[digits]", "digits"),
        "datasets of the suite x.yaml must be a list, not 'digits'",
    ),
    "datasets bracket": (
        with_("[digits]", "[digits[size=64]]"),
        "the suite x.yaml, line 2: expected ',' or ']', but got '['; "
        "a name with a bracket stands in quotes",
    ),
    "datasets comma br": (
        with_("[digits]", "[fashion-mnist[train=100,size=28]]"),
        "the suite x.yaml, line 2: expected ',' or ']', but got '['; "
        "a name with a bracket stands in quotes",
    ),
    "folder win path": (
        with_("[digits]", '["folder:C:\\Users\\me\\pics"]'),
        "the suite x.yaml, line 2: expected escape sequence of 8 hexadecimal numbers, but found "
        "'s'; in double quotes a backslash starts an escape, in single quotes it is itself",
    ),
    "folder colon space": (
        with_("[digits]", "[folder: /data/x]"),
        "datasets of the suite x.yaml must be a list of texts, not of {folder: /data/x}; "
        "write 'folder:/data/x' in quotes",
    ),
    "methods null": (
        with_("[moco]", ""),
        "methods of the suite x.yaml must be a list, not null",
    ),
    "anchor merge": (
        "x: &a {moco.lr: 0.5}\n" + BASE + "set: {<<: *a}\n",
        "the suite x.yaml, line 11: the merge key << is not of YAML 1.2; "
        "write the fields themselves",
    ),
    "two docs": (
        BASE + "---\n" + BASE,
        "the suite x.yaml, line 10: a second document begins; keep one",
    ),
    "bad python tag": (
        BASE + "set: {moco.lr: !!python/object/apply:os.system [echo pwned]}\n",
        "the suite x.yaml, line 10: the tag !!python/object/apply:os.system is not read here; "
        "write the value without it",
    ),
    "tab": (
        BASE + "\tset: {}\n",
        "the suite x.yaml, line 10: found character '\\t' that cannot start any token; "
        "indent with spaces",
    ),
    "empty": ("", "the suite x.yaml must be a mapping of fields, such as summary: TEXT"),
    "list": ("- a\n", "the suite x.yaml must be a mapping of fields, such as summary: TEXT"),
    "bomb of four": (BOMB + BASE, f"the suite x.yaml has no field 'a'; there are {FIELDS}"),
    "extends dup": (
        "extends: quick\nextends: fashion\n",
        "the suite x.yaml, line 2: 'extends' stands here and in line 1; keep one of the two",
    ),
    "unknown field": (
        BASE + "epoch: 1\n",
        "the suite x.yaml has no field 'epoch'; did you mean 'epochs'?",
    ),
    "lacking": (with_("seeds: [0]\n", ""), "the suite x.yaml lacks seeds"),
    "seeds twice": (
        with_("[0]", "[0, 0]"),
        "seeds of the suite x.yaml must be whole numbers, each once, not [0, 0]",
    ),
    "seed text": (with_("[0]", "[x]"), "seeds of the suite x.yaml must be a whole number, not 'x'"),
    "seed long": (
        with_("[0]", f"[{'9' * 5000}]"),
        "the suite x.yaml, line 7: a number of 5,000 characters is longer than the 400 that are "
        "read; write it in quotes if it is text",
    ),
    "seed large": (
        with_("[0]", f"[{2**63}]"),
        "seeds of the suite x.yaml must be 9223372036854775807 or less, not 9223372036854775808",
    ),
    "set list": (
        BASE + "set: [a]\n",
        "set of the suite x.yaml must be a mapping of METHOD.PARAMETER to values, not [a]",
    ),
    "tuning number": (
        BASE + "tuning: 3\n",
        "tuning of the suite x.yaml must be a mapping of fields, not 3",
    ),
    "tuning judge": (
        BASE + TUNING.replace("knn", "3"),
        "tuning.judge of the suite x.yaml must be text, not 3; write '3' in quotes",
    ),
    "tuning trials": (
        BASE + TUNING.replace("trials: 2", "trials: true"),
        "tuning.trials of the suite x.yaml must be a whole number, not true",
    ),
    "tuning trails": (
        BASE + TUNING.replace("trials", "trails"),
        "the suite x.yaml has no field 'tuning.trails'; did you mean 'trials'?",
    ),
    "tuning space key": (
        BASE + TUNING.replace("moco.lr", "3"),
        "the suite x.yaml, line 10: a key must be text, not a number; write '3' in quotes",
    ),
    "tuning space": (
        BASE + TUNING.replace("[0.1]", "{times: [2, 1]}"),
        "tuning.space of the suite x.yaml: moco.lr must be a list of values, or "
        "{times: [low, high]} with 0 < low < high, not {times: [2,1]}",
    ),
}


@pytest.mark.parametrize("case", READ)
def test_an_awkward_file_means_what_it_says(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, wanted = READ[case]
    Path("x.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    suite = load_suite("x.yaml", registry(installed=False))
    assert {key: getattr(suite, key) for key in wanted} == wanted
    Path("again.yaml").write_text(suite.as_yaml(), encoding="utf-8")
    assert load_suite("again.yaml", registry(installed=False)) == suite


@pytest.mark.parametrize("case", REFUSED)
def test_an_awkward_file_is_refused_in_a_sentence(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, sentence = REFUSED[case]
    Path("x.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        load_suite("x.yaml", registry(installed=False))
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my süite [v2].yaml", "my süite [v2]"),
        ("e.YAML", "e"),
        ("e.Yml", "e"),
        ("e.yml", "e"),
    ],
)
def test_a_path_is_told_by_its_ending(file, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(file).write_text(BASE)
    assert load_suite(file, registry(installed=False)).name == name


def test_another_ending_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("e.json").write_text(BASE)
    with pytest.raises(UserError, match=r"a suite's file ends in \.yaml, e\.json does not$"):
        load_suite("e.json", registry(installed=False))


def test_a_file_of_a_built_in_suites_name_extends_that_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("quick.yaml").write_text("extends: quick\nset: {moco.lr: 1e-2}\n")
    found = load_suite("quick.yaml", registry(installed=False))
    assert (found.name, found.set["moco.lr"], found.set["moco.queue"]) == ("quick", 0.01, 512)


# ---- what a suite says, --set says with the same words ---------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("moco.queue=0100", 100),
        ("moco.queue=0x80", 128),
        ("moco.queue=1e2", 100),
        ("moco.lr=1e-2", 0.01),
        ("moco.lr=1", 1.0),
        ("moco.nesterov=true", True),
        ("moco.clip=null", None),
        ("moco.betas=[0.5, 0.6]", (0.5, 0.6)),
        ("moco.per={head: {lr: 2}}", {"head": {"lr": 2}}),
        ("moco.nesterov=yes", "moco.nesterov expects true or false, got 'yes'"),
        ("moco.queue='64'", "moco.queue expects an integer from 1, got '64'"),
        ("moco.lr=1_0", "moco.lr expects a number, got '1_0'"),
        ("moco.queue=1:30", "moco.queue expects an integer from 1, got '1:30'"),
        ("moco.optimizer=3", "moco.optimizer expects text, got 3; write '3' in quotes"),
    ],
)
def test_the_command_line_and_a_file_agree(text, found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key, _, written = text.partition("=")
    Path("plain.yaml").write_text(BASE)
    Path("set.yaml").write_text(f"{BASE}set:\n  {key}: {written}\n")
    typed = settings(None, None, (text,))
    said, ids = [], []
    for options in (Selection(suite="plain.yaml", set=typed), Selection(suite="set.yaml")):
        try:
            plan = make_plan(options, registry(installed=False), preflight=False)
        except UserError as error:
            said.append(str(error).partition("; write 64")[0])
            continue
        (cell,) = (p.cell for p in plan.cells if p.cell.method == "moco")
        name = key.partition(".")[2]
        said.append({**vars(cell.recipe), **cell.hyperparameters}[name])
        ids.append(cell.id)
    assert said == [found, found]
    assert len(set(ids)) <= 1


def test_the_id_of_a_suite_is_of_what_was_typed():
    found = registry(installed=False)
    typed = ["moco.queue=256", "moco.lr=0.3", "swav.crops=[2,1]", "moco.optimizer=sgd"]
    _, name = suite_of(Selection(set=settings(None, None, typed)), found)
    assert name == f"quick+{digest({'set': sorted(typed)})[:8]}"
    for other in ("moco.lr=.3", "moco.lr=3e-1", "moco.lr= 0.3 "):
        again = settings(None, None, [typed[0], other, *typed[2:]])
        assert suite_of(Selection(set=again), found)[1] == name


@pytest.mark.slow
def test_a_board_says_what_was_typed_and_validates(tmp_path, monkeypatch):
    """R2: --set moco.queue=0100 trained with 64 and wrote 100."""
    monkeypatch.chdir(tmp_path)
    small = BASE.replace("[digits]", '["digits[train=100,test=30]"]').replace("128", "50")
    Path("small.yaml").write_text(small)
    typed = ("--set", "moco.queue=0100", "--set", "moco.lr=1e-3", "--set", "moco.hidden=3.2e1")
    for line in (
        ("run", "-q", "--suite", "small.yaml", *typed),
        ("leaderboard", "build", "small.yaml", "--out", "board", *typed),
        ("leaderboard", "validate", "board"),
    ):
        done = CliRunner().invoke(program, list(line))
        assert done.exit_code == 0, done.output
    suite = read(Path("board")).suite
    assert suite.set == {"moco.queue": 100, "moco.lr": 0.001, "moco.hidden": 32}
