"""Plugins: what a broken one may not break, and who owns which name.

The zoo is made of real small distributions on sys.path; importlib.metadata finds them as pip's.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from click.testing import CliRunner

import sslbench.api
from sslbench import hookspecs, plugins
from sslbench.cli.app import program
from sslbench.errors import UnknownName, UserError
from sslbench.names import parse
from sslbench.plugins import KINDS, Entry, PluginInfo, Registry, registry

GOOD = """
from sslbench import hookimpl

SSLBENCH_API = (1, 0)

@hookimpl
def methods():
    return {"NAME": thing}

def thing(backbone, data):
    '''A thing that learns.'''
"""


@pytest.fixture(autouse=True)
def forget_modules(tmp_path: Path) -> Iterator[None]:
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Lays a distribution down and puts its folder first on sys.path."""

    def lay(dist: str, source: str | None, *, folder: str = "", points: str = "") -> Path:
        module = dist.replace("-", "_")
        home = tmp_path / (folder or dist)
        info = home / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[sslbench]\n{points or f'main = {module}'}\n")
        if source is not None:
            (home / f"{module}.py").write_text(dedent(source))
        monkeypatch.syspath_prepend(home)
        return home

    return lay


def info(found: Registry, dist: str) -> PluginInfo:
    (one,) = [plugin for plugin in found.plugins if plugin.dist == dist]
    return one


def table(found: Registry) -> dict[str, list[tuple[str, str]]]:
    return {kind: [(n, e.qualified) for n, e in found.entries(kind).items()] for kind in KINDS}


def hook(returned: str, *, api: str = "(1, 0)") -> str:
    return f"""
    from sslbench import hookimpl

    SSLBENCH_API = {api}

    @hookimpl
    def methods():
        return {returned}

    @hookimpl
    def evaluators():
        return {{"sound": len}}
    """


ZOO = {
    "raises": ("raise RuntimeError('cable\\ncut')", "RuntimeError: cable cut (raises.py:1)"),
    "quits": ("import sys\nsys.exit(3)", "it calls sys.exit(3) (quits.py:2)"),
    "unparsed": ("def broken(:", "SyntaxError: invalid syntax (unparsed.py, line 1)"),
    "gone": (None, "ModuleNotFoundError: No module named 'gone'"),
    "hook-raises": (hook("1 / 0"), "hook 'methods': ZeroDivisionError: division by zero"),
    "hook-quits": (hook("exit(0)"), "hook 'methods': it calls sys.exit(0)"),
    "lists": (hook("['moco']"), "it must return a mapping from names, and returned ['moco']"),
    "names-badly": (
        hook("{'ok': len, '../up': len, 'a b': len, 'Up': len, 'x' * 65: len, 7: len, 'a.b': len}"),
        "'../up': a name has at most 64 lower-case letters",
    ),
    "targets-badly": (hook("{'n': None, 'w': 'no colon', 's': 'a:b:c'}"), "not 'no colon'"),
    "typo": (
        hook("{}").replace("def methods", "def metods"),
        "hook 'metods': there is no such hook; did you mean 'methods'?",
    ),
    "argues": (hook("{}").replace("methods()", "methods(pm)"), "'pm'"),
    "wraps": (
        hook("(yield)").replace("@hookimpl\n    def m", "@hookimpl(wrapper=True)\n    def m"),
        "cannot wrap",
    ),
    "newer": (hook("{}", api="(1, 7)"), "it needs API 1.7 and this sslbench 0.1.0 has API 1.2"),
    "newest": (
        "SSLBENCH_API = (2, 0)\nfrom sslbench import NotYetThere",
        "it needs API 2.0 and this sslbench 0.1.0 has API 1.2: upgrade sslbench",
    ),
    "older": (hook("{}", api="(0, 3)"), "has API 1.2: upgrade the plugin"),
    "misdeclares": (
        hook("{}", api="'1.0'"),
        "must be a pair of integers such as (1, 0), and is '1.0'",
    ),
}
REFUSED = {"raises", "quits", "unparsed", "gone", "newer", "newest", "older", "misdeclares"}


@pytest.fixture
def zoo(install: Callable[..., Path]) -> None:
    for dist, (source, _) in ZOO.items():
        install(dist, source)
    install("healthy", GOOD.replace("NAME", "healthy"))


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize("dist", ZOO)
def test_a_bad_plugin_is_listed_with_its_error(dist: str) -> None:
    error = info(registry(), dist).error
    assert error is not None
    assert ZOO[dist][1] in error
    assert "\n" not in error


@pytest.mark.usefixtures("zoo")
def test_everything_else_works_beside_the_whole_zoo() -> None:
    alone, among = registry(installed=False), registry()
    for kind in KINDS:
        for name in alone.names(kind):
            assert among.find(kind, name) == alone.find(kind, name)
    assert info(among, "healthy").error is None
    assert among.find("methods", "healthy").summary() == "A thing that learns."
    assert among.find("methods", "names-badly/ok").load() is len


@pytest.mark.usefixtures("zoo")
def test_the_other_hooks_of_a_bad_plugin_still_count() -> None:
    found = registry()
    for dist in ZOO:
        provided = info(found, dist).provides.get("evaluators")
        assert provided == (None if dist in REFUSED else ["sound"]), dist


@pytest.mark.usefixtures("zoo")
def test_an_unknown_name_tells_of_what_could_not_be_loaded() -> None:
    with pytest.raises(
        UnknownName, match=r"did you mean 'moco'.*raises \(it cannot be loaded: Run"
    ):
        registry().find("methods", "mocco")


def test_a_plugin_that_interrupts_is_the_user_interrupting(install: Callable[..., Path]) -> None:
    install("ctrl-c", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        registry()


def test_what_a_plugin_prints_does_not_reach_stdout(
    install: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    install(
        "chatty", "print('hello')\n" + GOOD.replace("    return", "    print('again')\n    return")
    )
    registry()
    assert capsys.readouterr() == ("", "hello\nagain\n")


def test_a_damaged_distribution_that_is_no_plugin_is_nobodys_business(
    install: Callable[..., Path],
) -> None:
    install("fine", GOOD)
    stranger = install("stranger", "")
    (stranger / "stranger-1.0.dist-info" / "entry_points.txt").write_text("[console\nno equals\n")
    nameless = install("nameless", GOOD.replace("NAME", "kept"))
    (nameless / "nameless-1.0.dist-info" / "METADATA").unlink()
    found = registry()
    assert "stranger" not in {plugin.dist for plugin in found.plugins}
    assert found.find("methods", "kept").dist == "unnamed"


# ---- names -----------------------------------------------------------------------------------


def test_a_built_in_name_cannot_be_taken(install: Callable[..., Path]) -> None:
    install("greedy", GOOD.replace("NAME", "moco"))
    found = registry()
    assert found.find("methods", "moco").builtin
    assert found.find("methods", "sslbench/moco").builtin
    assert found.find("methods", "greedy/moco").dist == "greedy"
    assert found.entries("methods")["greedy/moco"].version == "1.0"
    assert info(found, "greedy").error is None
    assert (
        "method 'moco' is also provided by sslbench: say greedy/moco" in info(found, "greedy").notes
    )


def test_nobody_speaks_in_the_name_of_sslbench(install: Callable[..., Path]) -> None:
    install("sslbench", None, points="aaa = impostor")
    assert [plugin.name for plugin in registry().plugins if plugin.dist == "sslbench"] == [
        "builtin"
    ]


def test_two_owners_of_a_name_are_told_apart(install: Callable[..., Path]) -> None:
    install("lab-a", GOOD.replace("NAME", "same"))
    install("Lab.B", GOOD.replace("NAME", "same"), points="main = Lab.B")
    install("lab-c", GOOD.replace("NAME", "other"))
    found = registry()
    assert info(found, "lab-b").error is not None  # Lab.B is not a module: it cannot own anything
    assert found.find("methods", "same").dist == "lab-a"
    install("lab-d", GOOD.replace("NAME", "same"))
    found = registry()
    with pytest.raises(UserError) as caught:
        found.find("methods", "same")
    assert str(caught.value) == (
        "method 'same' is provided by lab-a 1.0 and lab-d 1.0; say lab-a/same or lab-d/same"
    )
    assert found.find("methods", "lab-a/same").dist == "lab-a"
    assert found.find("methods", "LAB_D/same").dist == "lab-d"
    assert found.find("methods", "other").dist == "lab-c"
    assert {"lab-a/same", "lab-d/same", "other"} <= set(found.names("methods"))
    assert "same" not in found.names("methods")
    with pytest.raises(UnknownName):
        found.find("methods", "lab-c/same")


def test_the_table_is_the_same_for_every_load_order(
    install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = [
        str(install("one", GOOD.replace("NAME", "same"))),
        str(install("two", GOOD.replace("NAME", "same"))),
        str(install("three", GOOD.replace("NAME", "moco"))),
        str(install("four", hook("1 / 0"))),
    ]
    rest = [path for path in sys.path if path not in homes]
    tables, listings = [], []
    for order in itertools.permutations(homes):
        monkeypatch.setattr(sys, "path", [*order, *rest])
        found = registry()
        tables.append(table(found))
        listings.append(found.plugins)
    assert all(each == tables[0] for each in tables)
    assert all(each == listings[0] for each in listings)
    assert len(tables) == 24


def test_equal_entry_point_names_of_two_distributions_both_load(
    install: Callable[..., Path],
) -> None:
    install("left", GOOD.replace("NAME", "from-left"), points="plugin = left")
    install("right", GOOD.replace("NAME", "from-right"), points="plugin = right")
    assert {"from-left", "from-right"} <= set(registry().names("methods"))


def test_a_distribution_seen_twice_loads_once_and_the_first_wins(
    install: Callable[..., Path],
) -> None:
    install("twice", GOOD.replace("NAME", "old"), folder="second")
    install("twice", GOOD.replace("NAME", "new"), folder="first")
    found = registry()
    assert info(found, "twice").provides == {"methods": ["new"]}
    assert "old" not in found.names("methods")


def test_a_newer_release_without_hooks_hides_an_older_one_with_them(
    install: Callable[..., Path],
) -> None:
    install("moved", GOOD.replace("NAME", "old"), folder="older")
    newer = install("moved", "", folder="newer")
    (newer / "moved-1.0.dist-info" / "entry_points.txt").unlink()
    assert "moved" not in {plugin.dist for plugin in registry().plugins}


def test_a_distribution_that_provides_a_name_twice_keeps_the_first(
    install: Callable[..., Path],
) -> None:
    home = install("double", GOOD.replace("NAME", "d"), points="b = double\na = double_a")
    (home / "double_a.py").write_text(GOOD.replace("NAME", "d"))
    first, second = [plugin for plugin in registry().plugins if plugin.dist == "double"]
    assert (first.name, first.error) == ("a", None)
    assert (second.name, second.error) == ("b", "method 'd' is provided twice by double")


def test_a_plugin_without_a_version_of_the_contract_is_read_as_the_first(
    install: Callable[..., Path],
) -> None:
    install("silent", GOOD.replace("SSLBENCH_API = (1, 0)", "").replace("NAME", "quiet"))
    plugin = info(registry(), "silent")
    assert (plugin.api, plugin.error) == ((1, 0), None)
    assert plugin.notes == ("declares no SSLBENCH_API, read as (1, 0)",)


def test_an_object_can_be_the_plugin(install: Callable[..., Path]) -> None:
    source = """
    from sslbench import hookimpl

    SSLBENCH_API = (1, 0)

    class Plugin:
        @hookimpl
        def methods(self):
            return {"held": len}

    plugin = Plugin()
    """
    install("holder", source, points="main = holder:plugin")
    plugin = info(registry(), "holder")
    assert (plugin.error, plugin.notes, plugin.provides) == (None, (), {"methods": ["held"]})


def test_families_answer_for_names_that_nobody_lists(install: Callable[..., Path]) -> None:
    install(
        "hub", hook("{}").replace("def methods", "def backbones").replace("{}", "{'hub_*': len}")
    )
    found = registry()
    assert found.find("backbones", parse("resnet18[depth=3]")).builtin
    assert found.find("backbones", "hub_resnet.v1").dist == "hub"
    assert found.find("backbones", "sslbench/hub_resnet").builtin
    assert info(found, "hub").provides["backbones"] == ["hub_*"]
    with pytest.raises(UnknownName, match="unknown method 'hub_x'"):
        found.find("methods", "hub_x")


def test_a_registry_does_not_depend_on_the_order_of_its_entries() -> None:
    entries = [Entry("methods", "m", len, "p", dist, "1") for dist in ("zeta", "sslbench", "alpha")]
    tables = [table(Registry([], order)) for order in itertools.permutations(entries)]
    assert all(each == tables[0] for each in tables)
    assert list(tables[0]["methods"]) == [
        ("m", "sslbench/m"),
        ("alpha/m", "alpha/m"),
        ("zeta/m", "zeta/m"),
    ]


def test_a_longer_pattern_wins_and_an_exact_name_wins_over_all() -> None:
    def entry(name: str) -> Entry:
        return Entry("datasets", name, len, "p", "d", "1")

    found = Registry([], map(entry, ["tiny", "tiny-*", "t*"]))
    assert found.find("datasets", "tiny").name == "tiny"
    assert found.find("datasets", "tiny-x").name == "tiny-*"
    assert found.find("datasets", "toy").name == "t*"


@pytest.mark.parametrize(
    "name", ["../moco", "moco/", "/moco", "sslbench/../moco", "", "*", "mo co"]
)
def test_a_name_that_climbs_is_unknown(name: str) -> None:
    with pytest.raises(UserError):
        registry(installed=False).find("methods", name)


# ---- files, blocking -------------------------------------------------------------------------


def test_a_file_is_a_plugin_whose_names_are_bare(tmp_path: Path) -> None:
    path = tmp_path / "my_method.py"
    path.write_text(GOOD.replace("NAME", "mine"))
    found = registry(installed=False, files=[path, path])
    entry = found.find("methods", "mine")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (entry.dist, entry.file, entry.source_sha256()) == ("file:my_method", path, digest)
    assert entry.version == digest[:12]
    assert found.find("methods", parse("file:my_method/mine[k=3]")) is entry
    assert entry.summary() == "A thing that learns."
    assert info(found, "file:my_method").file == path


def test_a_file_is_read_anew_and_leaves_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "mine.py"
    for value in range(3):  # same length, same second: cached bytecode would be stale
        path.write_text(GOOD.replace("NAME", "mine") + f"\nthing.value = {value}\n")
        entry = registry(installed=False, files=[path]).find("methods", "mine")
        assert entry.load().value == value
        assert entry.source_sha256() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [each.name for each in tmp_path.iterdir()] == ["mine.py"]


def test_type_hints_of_a_file_can_be_resolved(tmp_path: Path) -> None:
    path = tmp_path / "typed.py"
    path.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Held:\n    part: Part\nclass Part: ...\n"
        + GOOD.replace("thing}", "Held}").replace("NAME", "held")
    )
    held = registry(installed=False, files=[path]).find("methods", "held").load()
    assert typing.get_type_hints(held)["part"].__name__ == "Part"


def test_a_broken_file_is_listed_and_named_when_it_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("import nothing_of_this_name")
    found = registry(installed=False, files=[path])
    assert "No module named 'nothing_of_this_name' (mine.py:1)" in str(
        info(found, "file:mine").error
    )
    with pytest.raises(UnknownName, match=r"file:mine \(it cannot be loaded: ModuleNotFoundError"):
        found.find("methods", "mine")


def test_a_file_without_hooks_is_told_how(tmp_path: Path) -> None:
    path = tmp_path / "plain.py"
    path.write_text(GOOD.replace("@hookimpl", ""))
    assert (
        "marked @sslbench.hookimpl"
        in info(registry(installed=False, files=[path]), "file:plain").notes[0]
    )


def test_files_that_cannot_be_plugins_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for path in (tmp_path / "x.py", tmp_path / "a" / "x.py", tmp_path / "notes.txt"):
        path.write_text("")
    for files in (["nowhere.py"], ["notes.txt"], ["a"], ["x.py", "a/x.py"]):
        with pytest.raises(UserError):
            registry(installed=False, files=[tmp_path / file for file in files])


@pytest.mark.parametrize("handle", ["loud", "LOUD", "loud:main"])
def test_a_blocked_plugin_is_not_even_imported(install: Callable[..., Path], handle: str) -> None:
    install("loud", "raise SystemExit('imported')")
    plugin = info(registry(block=[handle]), "loud")
    assert (plugin.error, plugin.notes, plugin.provides) == (None, ("blocked",), {})


def test_blocking_what_is_not_there_is_a_mistake(install: Callable[..., Path]) -> None:
    install("loud", GOOD.replace("NAME", "loud"))
    with pytest.raises(UnknownName, match=r"unknown plugin 'lound'; did you mean 'loud'\?"):
        registry(block=["lound"])


# ---- what a suite requires -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("sslbench-lab>=0.3", "(found 0.2): pip install 'sslbench-lab>=0.3'"),
        ("sslbench-gone>=0.3", "(not installed): pip install 'sslbench-gone>=0.3'"),
        ("SSLBench.Lab>=0.1,<1", ""),
    ],
)
def test_a_suite_whose_plugin_is_not_there_or_too_old_exits_2_with_the_pip_line(
    install: Callable[..., Path], tmp_path: Path, wanted: str, sentence: str
) -> None:
    home = install("sslbench-lab", GOOD.replace("NAME", "lab"))
    meta = home / "sslbench_lab-1.0.dist-info" / "METADATA"
    meta.write_text(meta.read_text().replace("Version: 1.0", "Version: 0.2"))
    (tmp_path / "mine.yaml").write_text(f'extends: quick\nrequires: ["{wanted}"]\n')
    line = ["plan", "--suite", str(tmp_path / "mine.yaml"), "--store", str(tmp_path / "store")]
    result = CliRunner().invoke(program, [*line, "--seeds", "0", "--methods", "untrained"])
    if sentence:
        assert result.exit_code == 2
        assert result.stderr == f"error: suite mine requires {wanted} {sentence}\n"
    else:
        assert result.exit_code == 0, result.stderr


# ---- entries ---------------------------------------------------------------------------------


def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that must not be imported to be read."""
    home = tmp_path / "heavy_pack"
    (home / "deep").mkdir(parents=True)
    (home / "__init__.py").write_text(
        "raise SystemExit('imported')\nfrom .deep.thing import Thing as Re"
    )
    (home / "deep" / "thing.py").write_text(
        dedent(
            '''
            from functools import partial
            class Thing:
                """

                First line.

                Second paragraph.
                """
                def make(self):
                    """Makes one."""
            Other = partial(Thing, k=1)
            """Another first line.

            More.
            """
            Bare = partial(Thing, k=2)
            Bare.note = 1
            Typed: object = 3
            "Typed line."
            class Silent: ...
            '''
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "heavy_pack"


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("deep.thing:Thing", "First line."),
        ("deep.thing:Thing.make", "Makes one."),
        ("deep.thing:Other", "Another first line."),
        ("deep.thing:Typed", "Typed line."),
        ("deep.thing:Bare", ""),
        ("deep.thing:Silent", ""),
        ("deep.thing:Absent", ""),
        ("nowhere.thing:Thing", ""),
    ],
)
def test_a_summary_is_read_without_importing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, line: str
) -> None:
    top = package(tmp_path, monkeypatch)
    entry = Entry("methods", "x", f"{top}.{target}", "p", "d", "1")
    assert entry.summary() == line
    assert Entry("methods", "x", "no_such_top:X", "p", "d", "1").summary() == ""
    assert not any(name.startswith(top) for name in sys.modules)


def test_a_re_export_is_documented_and_hashed_where_it_is_defined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = package(tmp_path, monkeypatch)
    entry = Entry("methods", "x", f"{top}:Re", "p", "d", "1")
    defined = tmp_path / top / "deep" / "thing.py"
    assert entry.summary() == "First line."
    assert entry.source_sha256() == hashlib.sha256(defined.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "target", ["heavy_pack.deep.thing:Thing", "no_such_top:X", "json:nothing", "json:dumps.nothing"]
)
def test_what_cannot_be_loaded_names_its_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    package(tmp_path, monkeypatch)
    with pytest.raises(UserError, match=r"^method 'x' of lab-a 2\.1 cannot be loaded: "):
        Entry("methods", "x", target, "p", "lab-a", "2.1").load()


def test_objects_and_strings_load() -> None:
    assert Entry("methods", "x", "json:dumps", "p", "d", "1").load() is json.dumps
    assert Entry("methods", "x", json.dumps, "p", "d", "1").load() is json.dumps


def test_a_suite_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = package(tmp_path, monkeypatch)
    path = tmp_path / top / "deep" / "s.yaml"
    path.write_text("name: s\nsummary: 'All of it.'\n")
    for target in (path, f"{top}.deep:s.yaml"):
        entry = Entry("suites", "s", target, "p", "d", "1")
        assert (entry.load(), entry.summary()) == (path, "All of it.")
        assert entry.source_sha256() == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UserError, match="suite 's' of d 1 cannot be loaded: there is no file"):
        Entry("suites", "s", f"{top}.deep:t.yaml", "p", "d", "1").load()


# ---- built in --------------------------------------------------------------------------------


def test_the_hooks_are_the_kinds_and_the_contract_has_one_version() -> None:
    kinds = "methods backbones datasets evaluators suites commands trackers"
    assert " ".join(KINDS) == kinds
    assert all(callable(getattr(hookspecs, kind)) for kind in KINDS)
    assert sslbench.api.API_VERSION == hookspecs.API_VERSION


def test_built_ins_come_through_the_same_hooks_as_strings() -> None:
    found = registry(installed=False)
    (builtin,) = found.plugins
    assert (builtin.error, builtin.notes) == (None, ())
    assert builtin.api is not None
    assert builtin.api <= hookspecs.API_VERSION
    for kind in KINDS:
        for name, entry in found.entries(kind).items():
            assert entry.builtin, name
            assert isinstance(entry.target, str), name


def run_python(code: str) -> Any:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_names_and_summaries_cost_no_heavy_import() -> None:
    loaded = run_python(
        "import json, sys\n"
        "from sslbench.plugins import KINDS, registry\n"
        "found = registry()\n"
        "[entry.summary() for kind in KINDS for entry in found.entries(kind).values()]\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    heavy = {"torch", "torchvision", "timm", "sklearn", "scipy", "numpy", "faiss", "pydantic"}
    assert not heavy & set(loaded)
    assert "pluggy" in loaded


def test_pluggy_is_imported_in_two_places_only() -> None:
    home = Path(plugins.__file__).parents[1]
    users = {
        path.relative_to(home).as_posix()
        for path in home.rglob("*.py")
        if "import pluggy" in (text := path.read_text()) or "from pluggy" in text
    }
    assert users == {"plugins/hooks.py", "hookspecs.py"}
