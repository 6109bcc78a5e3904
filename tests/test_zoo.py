"""A zoo of hostile plugins: each is contained or caught by the kit, in a sentence that is pinned."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from sslbench.cli.app import program
from sslbench.plugins import Registry, registry
from sslbench.store import Store
from sslbench.testing import conformance, open_kit

pytestmark = pytest.mark.usefixtures("forks")
ZOO = Path(__file__).parent / "zoo"
ANIMALS = {path.stem: path for path in sorted(ZOO.glob("*.py"))}
SOUND = """
from torch import nn

from sslbench import hookimpl

SSLBENCH_API = (1, 0)


def colours(backbone, data):
    '''The mean colours of an image.'''
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


@hookimpl
def methods():
    return {"colours": colours}
"""
SUITE = """
summary: One encoder that is never trained
datasets: ["digits[test=30,train=100]"]
backbones: [test_resnet]
methods: [colours]
baselines: [untrained]
evaluators: [knn]
seeds: [0]
"""
NAME = "a name has at most 64 lower-case letters, digits, hyphens and underscores"
TARGET = "it must be given as the object or as 'module:attribute', not"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLBENCH_PLUGIN_SECONDS", "1")


@pytest.fixture(scope="module")
def zoo() -> Registry:
    torch.manual_seed(5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSLBENCH_PLUGIN_SECONDS", "1")
        return registry(installed=False, files=list(ANIMALS.values()))


def said(found: Registry, animal: str) -> tuple[str | None, tuple[str, ...]]:
    (one,) = [plugin for plugin in found.plugins if plugin.dist == f"file:{animal}"]
    return one.error, one.notes


# ---- contained -------------------------------------------------------------------------------

ERRORS = {
    "raises_at_import": "it cannot be loaded: RuntimeError: cable cut \x1b[31mred\x1b[0m "
    "<script>alert(1)</script> (raises_at_import.py:3)",
    "quits_at_import": "it cannot be loaded: it calls sys.exit(3) (quits_at_import.py:5)",
    "loops_in_a_hook": "hook 'datasets': it took longer than 1 s (loops_in_a_hook.py:10)",
    "wrong_api": "it needs API 9.0 and this sslbench 0.1.0 has API 1.2: upgrade sslbench",
    "typo_in_a_hook": "hook 'metods': there is no such hook; did you mean 'methods'?",
    "duplicate_names": "method 'twice' is provided twice by file:duplicate_names",
    "wrong_types": f"hook 'backbones': 'nothing': {TARGET} None; "
    f"hook 'datasets': 'three': {TARGET} 'a:b:c'; "
    "hook 'methods': it must return a mapping from names, and returned ['moco']; "
    "hook 'suites': 'seven': a suite is a pathlib.Path or 'package:file.yaml', not 7",
    "hostile_names": "; ".join(
        f"hook 'methods': {name}: {NAME}"
        for name in (
            "'<script>alert(1)</script>'",
            "'\\x1b[2Jcleared'",
            "'../../etc/passwd'",
            f"'{'n' * 37}...{'n' * 38}'",
            "'a\\nb'",
        )
    ),
}
NOTES = {
    "shadows_a_built_in": "method 'untrained' is also provided by sslbench: say "
    "file:shadows_a_built_in/untrained",
    "patches_torch": "importing it changed torch.manual_seed, torch.rand, random's generator, "
    "numpy's generator, torch's generator and 1 more: put back",
}


@pytest.mark.parametrize("animal", ERRORS)
def test_a_fault_is_listed_with_the_plugin_alone(zoo: Registry, animal: str) -> None:
    assert said(zoo, animal)[0] == ERRORS[animal]


def test_an_import_without_end_is_ended(zoo: Registry) -> None:
    error = said(zoo, "loops_at_import")[0]
    pattern = r"it cannot be loaded: it took longer than 1 s to import \(loops_at_import.py:\d\)"
    assert re.fullmatch(pattern, str(error))


@pytest.mark.parametrize("animal", NOTES)
def test_what_is_no_fault_is_noted(zoo: Registry, animal: str) -> None:
    assert said(zoo, animal) == (None, (NOTES[animal],))


def test_every_other_animal_loads_without_a_word(zoo: Registry) -> None:
    silent = ANIMALS.keys() - ERRORS.keys() - NOTES.keys() - {"loops_at_import"}
    assert silent
    assert {animal: said(zoo, animal) for animal in silent} == dict.fromkeys(silent, (None, ()))


def test_the_other_hooks_of_a_hostile_plugin_still_count(zoo: Registry) -> None:
    for kind, name in (("methods", "beside-a-loop"), ("evaluators", "beside-a-typo")):
        assert zoo.find(kind, name)
    assert zoo.find("methods", "untrained").builtin
    assert zoo.find("methods", "twice").summary() == "The first."


def test_functions_switches_and_generators_of_everybody_are_put_back() -> None:
    import random

    import numpy as np

    functions = torch.manual_seed, torch.rand
    before = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    found = registry(installed=False, files=[ANIMALS["patches_torch"]])
    assert (torch.manual_seed, torch.rand) == functions
    assert torch.get_default_dtype() is torch.float32
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]
    assert found.find("methods", "alike")


@pytest.mark.slow
def test_the_same_holds_where_the_plugin_is_the_first_to_import_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from sslbench.plugins import registry\n"
        "(_, one) = registry(installed=False, files=[Path(sys.argv[1])]).plugins\n"
        "import torch; assert torch.initial_seed() != 0  # as it was born: by chance\n"
        "assert torch.rand(3).bool().any() and torch.manual_seed(3) is torch.default_generator\n"
        "assert torch.initial_seed() == 3\n"
        "sys.stdout.write(one.notes[0])"
    )
    line = [sys.executable, "-c", code, str(ANIMALS["patches_torch"])]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout == NOTES["patches_torch"]


def test_numbers_that_an_import_only_draws_are_not_held_against_it(tmp_path: Path) -> None:
    path = tmp_path / "draws.py"
    draws = "import random, torch, numpy\nrandom.random(); torch.rand(3); numpy.random.rand(9)\n"
    path.write_text(draws + SOUND)
    before = torch.get_rng_state()
    assert said(registry(installed=False, files=[path]), "draws") == (None, ())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("after", ["", "while True: pass\n"])
def test_the_clock_waits_for_a_library_that_could_not_be_imported_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    (tmp_path / "shared_and_slow.py").write_text("import time\ntime.sleep(0.5)\nwhole = True\n")
    (tmp_path / "waits.py").write_text(f"import shared_and_slow\n{after}{SOUND}")
    monkeypatch.setenv("SSLBENCH_PLUGIN_SECONDS", "0.3")
    monkeypatch.setattr("sslbench.plugins.contained.SHARED", {"shared_and_slow"})
    monkeypatch.syspath_prepend(tmp_path)
    error = said(registry(installed=False, files=[tmp_path / "waits.py"]), "waits")[0]
    expected = "it cannot be loaded: it took longer than 0.3 s to import (waits.py:2)"
    assert error == (expected if after else None)
    assert sys.modules.pop("shared_and_slow").whole


def test_a_timer_that_was_running_goes_on_and_its_handler_is_back(tmp_path: Path) -> None:
    import signal

    rung: list[int] = []
    handler = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        found = registry(installed=False, files=[ANIMALS["loops_at_import"]])
        assert "longer than 1 s" in str(said(found, "loops_at_import")[0])
        signal.sigtimedwait([], 0.3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert rung == [signal.SIGALRM]


# ---- the command line with the whole zoo plugged in -------------------------------------------


def call(*line: str, code: int = 0) -> Result:
    result = CliRunner().invoke(program, [*line])
    assert result.exit_code == code, (result.exception, result.output, result.stderr)
    return result


def plugged(*more: Path) -> list[str]:
    return [text for path in (*ANIMALS.values(), *more) for text in ("--plugin", str(path))]


MARKS = """
import os
from pathlib import Path

with (Path(__file__).parent / "marks").open("a") as file:
    file.write("imported\\n")
"""


@pytest.fixture(scope="module")
def ran(forks: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A run beside the whole zoo, of a method that passed the kit before; a plugin is left out."""
    home = tmp_path_factory.mktemp("ran")
    (home / "sound.py").write_text(SOUND)
    (home / "alone.yaml").write_text(SUITE)
    info = home / "loud-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sslbench]\nloud = loud\n")
    (home / "loud.py").write_text(MARKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("SSLBENCH_PLUGIN_SECONDS", "1")
        patch.syspath_prepend(home)
        out = ("--no-plugin", "loud")
        call("plugins", "check", "sound.py", *out, "--store", "store")
        line = ("run", "--suite", "alone.yaml", "--store", "store", "--seeds", "0")
        result = call(*line, *out, *plugged(home / "sound.py"))
    return home, result


@pytest.mark.slow
def test_a_run_that_names_no_animal_is_as_without_them(ran: tuple[Path, Result]) -> None:
    home, result = ran
    assert "colours" in result.stdout
    records = [r for cell in Store(home / "store").cells() for r in cell.records()]
    assert sorted(r.kind for r in records) == ["evaluation", "evaluation", "train", "train"]
    assert {r.status for r in records} == {"ok"}


def test_a_pass_is_stamped_on_the_records_of_that_very_source(ran: tuple[Path, Result]) -> None:
    home, _ = ran
    for cell in Store(home / "store").cells():
        for record in cell.records():
            stamps = {k: v.get("conformance") for k, v in record.components.items()}
            mine = record.method.endswith("colours")
            expected = {"method": 1 if mine else None, "backbone": None, "dataset": None}
            more = {"evaluator": None} if record.evaluator else {}
            assert stamps == {**expected, **more}


def test_a_plugin_that_is_left_out_is_left_out_of_the_processes_that_work(
    ran: tuple[Path, Result],
) -> None:
    assert not (ran[0] / "marks").exists()


def test_a_pass_is_listed_until_the_source_changes(
    ran: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home, _ = ran
    monkeypatch.chdir(home)
    line = ("plugins", "list", "--no-plugins", "--plugin", "sound.py", "--json")
    kits = [p["conformance"] for p in json.loads(call(*line, "--store", "store").stdout)]
    assert kits == ["built in", "kit 1"]
    assert json.loads(call(*line, "--store", "other").stdout)[1]["conformance"] == ""
    (tmp_path / "sound.py").write_text(f"{SOUND}\n")
    moved = ("plugins", "list", "--no-plugins", "--plugin", str(tmp_path / "sound.py"), "--json")
    assert json.loads(call(*moved, "--store", "store").stdout)[1]["conformance"] == ""
    (note,) = (home / "store" / "conformance").glob("*.json")
    assert re.fullmatch(r"file_sound-[0-9a-f]{12}\.json", note.name)
    text = note.read_text()
    for damaged in (
        "{",
        "[]",
        '{"kit": "1", "entries": {}}',
        text.replace('"kit": 1', '"kit": {}'),
    ):
        note.write_text(damaged)
        assert json.loads(call(*line, "--store", "store").stdout)[1]["conformance"] == ""
    note.write_text(text)


@pytest.mark.slow
def test_help_and_lists_work_beside_the_whole_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLBENCH_PLUGIN_SECONDS", "0.5")  # each command waits for the endless ones
    zoo = ["--no-plugins", *plugged()]
    text = call("--help", *zoo).stdout
    assert "Commands:" in text
    assert "zoo-other" in text
    listed = call("list", "methods", *zoo).stdout
    assert "moco-v3" in listed
    assert "file:shadows_a_built_in/untrained" in listed
    plugins = call("plugins", "list", *zoo).stdout
    assert max(map(len, plugins.splitlines())) <= 100
    for each in (text, listed, plugins):
        assert "\x1b" not in each
    assert "\n  ERROR: it needs API 9.0 and this sslbench 0.1.0 has API 1.2" in plugins


# ---- caught by the kit -----------------------------------------------------------------------

CAUGHT = [
    ("prints_at_import", "plugin", "imports_in_silence", "importing it prints 'Welcome!'"),
    ("patches_torch", "plugin", "imports_without_traces", NOTES["patches_torch"]),
    ("wrong_api", "plugin", "loads_without_fault", ERRORS["wrong_api"]),
    (
        "peeks_at_labels",
        "method opens-data",
        "sees_no_hidden_label",
        "it opens the dataset itself, which gives it every label",
    ),
    (
        "peeks_at_labels",
        "method climbs-the-stack",
        "sees_no_hidden_label",
        r"~with another test split and other hidden labels, it took another course: loss 0 is .*",
    ),
    (
        "peeks_at_labels",
        "method takes-test",
        "sees_no_hidden_label",
        r"~with another test split and other hidden labels, it took another course: loss 0 is .*",
    ),
    (
        "misbehaves_in_use",
        "method quits",
        "trains_all_it_has",
        "it did not train: SystemExit: enough",
    ),
    (
        "misbehaves_in_use",
        "method reseeds",
        "seeds_nothing",
        "its step seeds the global generator of torch: it stood where it had before, at 5 of 6 "
        "steps",
    ),
    (
        "misbehaves_in_use",
        "method patches",
        "encodes_each_image_alone",
        "it left torch.rand changed for everybody",
    ),
    (
        "trains_on_test",
        "evaluator trains-on-test",
        "learns_nothing_from_test",
        "its top1 is 1 on random labels, and 1 on honest ones: it learns from the labels of test, "
        "or does not use the features",
    ),
    (
        "trains_on_test",
        "evaluator chooses-on-test",
        "chooses_nothing_on_test",
        "with other labels of test it chose {'class': 35}, and before {'class': 60}",
    ),
    (
        "trains_on_test",
        "evaluator tidies",
        "repeats_itself_and_changes_nothing",
        "it changed the features of test",
    ),
    (
        "trains_on_test",
        "evaluator percent",
        "gives_what_it_declares",
        "top1 is 73.5, not a fraction: give a unit in its Metric ('1' for none)",
    ),
    (
        "trains_on_test",
        "evaluator drawn",
        "repeats_itself_and_changes_nothing",
        r"~judging again gave other numbers: luck is \S+, and was \S+",
    ),
    (
        "wrong_types",
        "evaluator a-word",
        "can_be_checked",
        "evaluator 'a-word' of file:wrong_types is <class 'str'>, not an Evaluator",
    ),
    (
        "bad_backbones",
        "backbone zoo-remembers",
        "sees_each_image_alone",
        "the same images gave other features the second time",
    ),
    (
        "bad_backbones",
        "backbone zoo-mixes",
        "sees_each_image_alone",
        r"~alone an image has other features than in a batch, by \S+",
    ),
    (
        "bad_backbones",
        "backbone zoo-writes",
        "sees_each_image_alone",
        "it writes on the images it is given",
    ),
    (
        "bad_backbones",
        "backbone zoo-raw",
        "normalises_inside",
        "its first layer is fed RGB in [0, 1] as it came: normalise in `forward`",
    ),
    (
        "bad_backbones",
        "backbone zoo-seeds",
        "builds_alike_from_a_seed",
        "another seed gave the same weights: it seeds itself",
    ),
    (
        "bad_backbones",
        "backbone zoo-narrow",
        "has_a_name_and_a_width",
        "4 images gave [4, 8], where [4, 16] is promised",
    ),
    (
        "bad_backbones",
        "backbone zoo-shares",
        "anew_is_its_like",
        "`anew` shares ['net.0.weight', 'net.0.bias'] with the one it was made of",
    ),
    (
        "bad_backbones",
        "backbone zoo-of-*",
        "can_be_checked",
        "it is a family: name one of it to be checked with --example NAME, such as zoo-of-NAME",
    ),
    (
        "bad_datasets",
        "dataset zoo-timed",
        "is_the_same_again",
        r"~its fingerprint was [0-9a-f]{16}, and now is [0-9a-f]{16}",
    ),
    (
        "bad_datasets",
        "dataset zoo-hashed",
        "is_the_same_elsewhere",
        r"~its fingerprint is [0-9a-f]{16}, in another process [0-9a-f]{16}",
    ),
    (
        "bad_datasets",
        "dataset zoo-drawn",
        "is_the_same_again",
        "train has other bytes when loaded again, under the same fingerprint",
    ),
    (
        "bad_datasets",
        "dataset zoo-seeding",
        "is_the_same_again",
        "loading it seeds the global generator of random",
    ),
    ("bad_datasets", "dataset zoo-boasting", "has_a_whole_card", "its card has no licence"),
    (
        "bad_datasets",
        "dataset zoo-boasting",
        "loads_what_its_card_says",
        "its card declares 60000 for train, 40 loaded",
    ),
    (
        "bad_datasets",
        "dataset zoo-floating",
        "has_a_whole_card",
        "dataset 'zoo-floating' cannot be used: its train split is torch.float32 [40, 3, 8, 8], "
        "where uint8 [N, 3, H, W] is wanted",
    ),
    (
        "bad_datasets",
        "dataset zoo-at",
        "can_be_checked",
        "it wants a path: name one with --example NAME, such as zoo-at:PATH",
    ),
    (
        "bad_suites_and_commands",
        "suite zoo-suite",
        "names_what_there_is",
        "unknown method 'mocco'; did you mean 'moco' or 'moco-v3' or 'moco-v1'?",
    ),
    (
        "bad_suites_and_commands",
        "command zoo-help",
        "explains_itself",
        "--help exits 1: internal error: RuntimeError: no help",
    ),
    (
        "bad_suites_and_commands",
        "tracker zoo-tracker",
        "follows_a_run",
        "OSError: disk full (bad_suites_and_commands.py:22)",
    ),
]


@pytest.fixture(scope="module")
def kit_of(tmp_path_factory: pytest.TempPathFactory):
    """The kit of an animal, with its checks by thing and name."""

    @cache
    def get(animal: str):
        found = registry(installed=False, files=[ANIMALS[animal]])
        kit = open_kit(str(ANIMALS[animal]), tmp_path_factory.mktemp("kit"), found=found)
        return kit, {(check.of, check.name): check for check in kit.checks()}

    return get


ELSEWHERE = {"imports_without_traces", "is_the_same_elsewhere", "explains_itself"}
CASES = [
    pytest.param(*case, id=f"{of}-{check}", marks=[pytest.mark.slow] * (check in ELSEWHERE))
    for case in CAUGHT
    for _, of, check, _ in [case]
]  # what takes another process is for the patient


@pytest.mark.parametrize(("animal", "of", "check", "sentence"), CASES)
def test_the_kit_catches_it(kit_of, animal: str, of: str, check: str, sentence: str) -> None:
    kit, checks = kit_of(animal)
    found = kit.run(checks[of, check]).sentence
    if sentence.startswith("~"):
        assert re.fullmatch(sentence[1:], found), found
    else:
        assert found == sentence


@pytest.mark.parametrize(
    ("animal", "of"),
    [("bad_backbones", "backbone zoo-small"), ("bad_datasets", "dataset zoo-sound")],
)
def test_what_is_sound_among_them_passes(kit_of, animal: str, of: str) -> None:
    kit, checks = kit_of(animal)
    found = {name: kit.run(check).sentence for (each, name), check in checks.items() if each == of}
    assert found == dict.fromkeys(found, "")
    assert len(found) >= 7


def test_images_that_are_in_both_splits_are_counted_and_no_fault(kit_of) -> None:
    kit, checks = kit_of("bad_datasets")
    result = kit.run(checks["dataset zoo-overlapping", "keeps_its_splits_apart"])
    assert (result.sentence, result.note) == ("", "20 images of test are also in train")


def test_a_family_and_a_path_are_checked_as_examples(tmp_path: Path) -> None:
    for animal, example in (("bad_backbones", "zoo-of-x"), ("bad_datasets", "zoo-at:/some/where")):
        found = registry(installed=False, files=[ANIMALS[animal]])
        kit = open_kit(str(ANIMALS[animal]), tmp_path, found=found, examples=[example])
        assert "can_be_checked" not in {check.name for check in kit.checks()}


def test_the_command_exits_5_and_says_each_fault(tmp_path: Path) -> None:
    line = ("plugins", "check", str(ANIMALS["wrong_types"]), "--no-plugins", "--store")
    result = call(*line, str(tmp_path / "store"), code=5)
    head = r"^FAILED  plugin: loads_without_fault: hook 'backbones': 'nothing': it must"
    assert re.search(head, result.stdout, re.MULTILINE)
    assert re.search(r"error: 4 of 8 checks of file:wrong_types \w+ failed in", result.stderr)
    assert not (tmp_path / "store").exists()
    found = json.loads(call(*line, str(tmp_path / "store"), "--json", code=5).stdout)
    assert (found["passed"], found["distribution"]) == (False, "file:wrong_types")
    assert sum(not each["passed"] for each in found["checks"]) == 4


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["sslbnch"], "unknown plugin 'sslbnch'; there is none"),
        (["sslbench"], "the built-in plugin is checked by sslbench's own tests; name another"),
        (["gone.py"], "which is not a Python file; name one that is"),
        (
            ["file:sond", "--plugin", "SOUND"],
            "unknown plugin 'file:sond'; did you mean 'file:sound'?",
        ),
        (
            ["sound", "--no-plugin", "sound", "--plugin", "SOUND"],
            "unknown plugin 'sound'; did you mean 'file:sound'?",
        ),
        (
            ["file:sound", "--no-plugin", "sound", "--plugin", "SOUND"],
            "file:sound cannot be checked, since --no-plugin leaves it out",
        ),
    ],
)
def test_what_cannot_be_checked_exits_2(tmp_path: Path, line: list[str], sentence: str) -> None:
    (tmp_path / "sound.py").write_text(SOUND)
    asked = [str(tmp_path / "sound.py") if text == "SOUND" else text for text in line]
    result = call("plugins", "check", *asked, "--no-plugins", "--store", str(tmp_path), code=2)
    assert sentence in result.stderr


def test_a_test_file_of_one_line_runs_every_check(tmp_path: Path) -> None:
    (tmp_path / "sound.py").write_text(SOUND)
    test = conformance(str(tmp_path / "sound.py"))
    (mark,) = test.pytestmark
    checks, names = mark.args[1], mark.kwargs["ids"]
    assert names[0] == "plugin-loads_without_fault"
    assert names[-1] == "method-colours-encodes_each_image_alone"
    test(checks[-1])
    broken = conformance(str(ANIMALS["wrong_types"]))
    with pytest.raises(pytest.fail.Exception, match=r"^evaluator a-word: evaluator 'a-word' of"):
        broken(next(c for c in broken.pytestmark[0].args[1] if c.of == "evaluator a-word"))


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan"])
def test_a_limit_that_is_none_is_a_sentence(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLBENCH_PLUGIN_SECONDS", text)
    found = registry(installed=False, files=[ANIMALS["prints_at_import"]])
    assert f"SSLBENCH_PLUGIN_SECONDS is {text!r}, and must be the seconds" in str(
        said(found, "prints_at_import")[0]
    )


SAME = '''
from torch import nn
from sslbench.api import Method, Recipe
from sslbench.hookspecs import hookimpl
from sslbench.views import plain

SSLBENCH_API = (1, 2)


class Bad(Method):
    """Multiplies what does not fit. Nobody, arXiv 0000.00000. Departures: none known."""

    recipe = Recipe(epochs=1, batch=32, lr=0.05)

    def __init__(self, backbone, data):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.dim + 1, 8)
        self.view = plain

    def step(self, batch):
        yield self.head(self.backbone(batch.views)).square().mean()


@hookimpl
def methods():
    return {"bad": Bad}
'''


def test_what_fails_for_one_cause_is_told_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.py").write_text(SAME)
    asked = ["--no-plugins", "plugins", "check", "bad.py", "--store", "store"]
    result = CliRunner().invoke(program, asked)
    assert result.exit_code == 5
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    told = [line for line in failed if "cannot be multiplied" in line]
    assert len(told) == 1
    assert len(failed) > 5
    assert all(
        line.endswith(": as encodes_each_image_alone") for line in failed if line not in told
    )
    assert re.search(
        r"\d+ of \d+ checks of file:bad \w+ failed in .*, all for one cause", result.stderr
    )
