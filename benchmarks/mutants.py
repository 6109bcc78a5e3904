"""Mutation testing: makes small mistakes in methods, one at a time, and sees if tests fail.

    python benchmarks/mutants.py [METHOD_FILE ...] [--limit N] [--jobs N] [--only OPERATOR] [--list]

Every function of sslbench/methods/<file>.py is changed at one place: a `.detach()` dropped, a sign
flipped, a mean made a sum, an EMA skipped, two views exchanged ... Each change runs in a process of
its own, under the method's tests, the checks of its losses, and the promises of its entries, until
the first failure. Golden losses are left out: they notice any change, and tell right from wrong in
none. One line per mutant says which test caught it, or MISSED; the last lines sum up. Exit status 5:
a mutant was missed; 4: tests fail without any mutant.
"""

from __future__ import annotations

import argparse
import ast
import copy
import gc
import importlib.abc
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"

ROOT = Path(__file__).parents[1]
METHODS = ROOT / "sslbench" / "methods"
TESTS = ROOT / "tests" / "methods"
PACKAGE = "sslbench.methods"
LONGEST = 120  # seconds a mutant may run: some never end
MISSED, BROKEN = 5, 4  # exit status

# Mutants that change no number anywhere: (file, operator, source) -> why.
FROZEN = "the target's parameters are frozen, and images take no gradient"
KEPT = "autocast keeps the precision of sums and softmax by itself"
RANGE = "one range of seeds is as good as another"
ROOM = "one more empty row of counts"
UNIT = "the rows are normalised"
MIRROR = "its loss does not tell the two views apart"
EITHER = "it chooses the faster of two ways to the same numbers"
EQUIVALENT: dict[tuple[str, str, str], str] = {
    ("moco", "no_grad", "torch.no_grad()"): FROZEN,
    ("swav", "no_grad", "@torch.no_grad() code"): "sinkhorn itself takes no gradient",
    ("swav", "full_precision", "full_precision(scores[0])"): KEPT,
    ("deepcluster", "constant", "2 ** 31"): RANGE,
    ("deepcluster", "constant", "1 / size[self.cluster]"): "weights of a draw are relative",
    ("deepcluster", "constant", "int(a.max()) + 1"): ROOM,
    ("deepcluster", "constant", "int(b.max()) + 1"): ROOM,
    ("scan", "full_precision", "full_precision(anchor)"): KEPT,
    ("scan", "full_precision", "full_precision(logits)"): KEPT,
    ("scan", "no_grad", "torch.no_grad()"): "a label and a comparison have no gradient",
    ("byol", "no_grad", "torch.no_grad()"): FROZEN,
    ("moco_v3", "no_grad", "torch.no_grad()"): FROZEN,
    ("dino", "no_grad", "torch.no_grad()"): FROZEN,
    ("deepcluster_v2", "constant", "2 ** 31"): RANGE,
    ("npid", "constant", "1 / math.sqrt(dim / 3)"): UNIT,
    ("npid", "multiply", "1 / math.sqrt(dim / 3)"): UNIT,
    ("npid", "constant", "dim / 3"): UNIT,
    ("npid", "multiply", "dim / 3"): UNIT,
    ("npid", "compare", "len(bank) <= 8 * rows.shape[1]"): EITHER,
    ("npid", "constant", "8 * rows.shape[1]"): EITHER,
    ("npid", "multiply", "8 * rows.shape[1]"): EITHER,
    ("npid", "index", "rows.shape[1]"): EITHER,
    ("ruc", "full_precision", "full_precision(logits)"): KEPT,
    ("ruc", "constant", "(mine[0] + mine[1] + peers[1] + peers[2]) / 4"): "sharpened, it sums to 1",
    ("ruc", "multiply", "(mine[0] + mine[1] + peers[1] + peers[2]) / 4"): "sharpened, it sums to 1",
    ("dann", "full_precision", "full_precision(says)"): KEPT,
    ("simclr_v2_distil", "full_precision", "full_precision(logits)"): KEPT,
    (
        "simclr_v2_finetune",
        "exchange",
        "own, found = ({key: tensor.shape for key, tensor in net.state_dict().items()} for net in "
        "(self.backbone, encoder))",
    ): "either is compared with the other",
    ("mme", "full_precision", "full_precision(logits)"): KEPT,
    ("cpc", "no_grad", "@torch.no_grad() check"): "what is computed there is thrown away",
    ("byol", "full_precision", "full_precision(q)"): KEPT,
    ("simsiam", "full_precision", "full_precision(p)"): KEPT,
    ("npid", "full_precision", "full_precision(log_p)"): KEPT,
    (
        "simsiam",
        "exchange",
        "z1, z2 = (self.projector(self.backbone(view)) for view in batch.views)",
    ): MIRROR,
    (
        "barlow_twins",
        "exchange",
        "z1, z2 = (self.head(self.backbone(view)) for view in batch.views)",
    ): MIRROR,
    (
        "vicreg",
        "exchange",
        "z1, z2 = (self.head(self.backbone(view)) for view in batch.views)",
    ): MIRROR,
    ("ruc", "constant", "int(label.max()) + 1"): ROOM,
    ("ruc", "index", "self.heads[0]"): "both heads are as wide",
    ("ruc", "index", "mine[0]"): "both guesses are as wide",
}


# ---- mutants -------------------------------------------------------------------------------------


class Place(NamedTuple):
    """A change that one operator can make at one node."""

    operator: str
    node: ast.AST
    change: Callable[[], ast.AST | list[ast.stmt] | None]  # what stands there instead
    source: str  # of what is changed


@dataclass
class Mutant:
    file: str
    line: int
    operator: str
    source: str
    instead: str
    tree: ast.Module

    @property
    def title(self) -> str:
        shown = f"{self.source} -> {self.instead}" if self.instead else self.source
        shown = " ".join(shown.split())
        return f"{self.file}.py:{self.line} {self.operator}: {shown[:100]}"


ARITHMETIC = {
    ast.Add: ("add", ast.Sub),
    ast.Sub: ("add", ast.Add),
    ast.Mult: ("multiply", ast.Div),
    ast.Div: ("multiply", ast.Mult),
}
COMPARISON = {
    ast.Gt: ast.Lt,
    ast.Lt: ast.Gt,
    ast.GtE: ast.LtE,
    ast.LtE: ast.GtE,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
REDUCTION = {"mean": "sum", "sum": "mean"}
ALIKE = ("len", "full_precision")  # of what these ask, length and device, two views have the same
BUILDING = ("__init__", "register_buffer")  # calls without which nothing runs at all


def places(function: ast.AST) -> Iterator[Place]:
    """All places that can be changed inside a function; its `raise` statements are left alone."""
    for node in inside(function):
        for operator in (statements, blocks, calls, operations, others):
            yield from operator(node)


def inside(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Raise | ast.JoinedStr | ast.arguments | ast.ClassDef):
            continue
        if isinstance(child, ast.Call) and called(child) in ALIKE:
            continue
        yield child
        yield from inside(child)


def place(operator: str, node: ast.AST, instead: Any, source: str = "") -> Place:
    return Place(operator, node, lambda: instead, source or ast.unparse(node))


def statements(node: ast.AST) -> Iterator[Place]:
    """Mutations that drop a statement: a call made for its effect, a write to part of a tensor."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        if called(node.value) not in BUILDING:
            yield place("drop", node, ast.Pass())
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
        yield place("drop", node, ast.Pass())
    elif isinstance(node, ast.AugAssign) and (made := ARITHMETIC.get(type(node.op))):
        other = copy.copy(node)
        other.op = made[1]()
        yield place(made[0], node, other)


def blocks(node: ast.AST) -> Iterator[Place]:
    """Mutations that take code out of a `with` block of `no_grad` or of full precision."""
    if isinstance(node, ast.With) and len(node.items) == 1:
        context = node.items[0].context_expr
        name = called(context) if isinstance(context, ast.Call) else ""
        if name in ("no_grad", "inference_mode", "full_precision"):
            operator = "no_grad" if name != "full_precision" else name
            yield place(operator, node, node.body, ast.unparse(context))
    if isinstance(node, ast.FunctionDef):
        yield from decorators(node)


def decorators(node: ast.FunctionDef) -> Iterator[Place]:
    for each in node.decorator_list:
        if isinstance(each, ast.Call) and called(each) in ("no_grad", "inference_mode"):
            other = copy.copy(node)
            other.decorator_list = [d for d in node.decorator_list if d is not each]
            yield place("no_grad", node, other, f"@{ast.unparse(each)} {node.name}")


def calls(node: ast.AST) -> Iterator[Place]:
    if not isinstance(node, ast.Call):
        return
    name, method = called(node), isinstance(node.func, ast.Attribute)
    if name == "detach" and method:
        yield place("detach", node, node.func.value)
    elif name == "requires_grad_" and method:
        yield place("freeze", node, node.func.value)
    elif name in ("normalize", "normalised") and node.args:
        yield place("normalise", node, node.args[0])
    elif name == "copy_frozen":
        yield place("freeze", node, expression("__import__('copy').deepcopy(X)", node.args[0]))
    elif name == "sinkhorn" and node.args:
        yield place("sinkhorn", node, expression("(X).float().softmax(1)", node.args[0]))
    elif name in REDUCTION and method:
        other = copy.copy(node)
        other.func = copy.copy(node.func)
        other.func.attr = REDUCTION[name]
        yield place("reduce", node, other)


def operations(node: ast.AST) -> Iterator[Place]:
    if isinstance(node, ast.BinOp):
        if made := ARITHMETIC.get(type(node.op)):
            other = copy.copy(node)
            other.op = made[1]()
            yield place(made[0], node, other)
        for side in ("left", "right"):
            number = getattr(node, side)
            if isinstance(number, ast.Constant) and type(number.value) in (int, float):
                other = copy.copy(node)
                setattr(other, side, ast.Constant(number.value + 1))
                yield place("constant", node, other)
    elif isinstance(node, ast.Compare) and (flipped := COMPARISON.get(type(node.ops[0]))):
        other = copy.copy(node)
        other.ops = [flipped(), *node.ops[1:]]
        yield place("compare", node, other)
    elif (
        isinstance(node, ast.UnaryOp)
        and isinstance(node.op, ast.USub)
        and not isinstance(node.operand, ast.Constant)  # dim=-1 is no sign
    ):
        yield place("sign", node, node.operand)


def others(node: ast.AST) -> Iterator[Place]:
    """Mutations that take the other of two views, or of two results."""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        if type(node.slice.value) is int and node.slice.value in (0, 1):
            other = copy.copy(node)
            other.slice = ast.Constant(1 - node.slice.value)
            yield place("index", node, other)
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
        names = node.targets[0].elts
        several = not isinstance(node.value, ast.Tuple)  # `a, b = x, y` only abbreviates
        if len(names) == 2 and several and all(isinstance(each, ast.Name) for each in names):
            other = copy.copy(node)
            other.targets = [ast.Tuple(names[::-1], ast.Store())]
            yield place("exchange", node, other)


def called(node: ast.Call) -> str:
    """The last part of a called function's name."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def expression(text: str, hole: ast.expr) -> ast.expr:
    """Parses an expression and puts a given one in place of X."""

    class Fill(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return hole if node.id == "X" else node

    return Fill().visit(ast.parse(text, mode="eval").body)


class Change(ast.NodeTransformer):
    """Replaces the n-th node of a walk."""

    def __init__(self, node: ast.AST, instead: Any) -> None:
        self.node, self.instead = node, instead

    def visit(self, node: ast.AST) -> Any:
        if node is not self.node:
            return self.generic_visit(node)
        made = self.instead if isinstance(self.instead, list) else [self.instead]
        for each in made:
            ast.copy_location(each, node)
        return self.instead


def mutants(file: str) -> list[Mutant]:
    """All mutants of a file of methods, in the order of its lines."""
    tree = ast.parse((METHODS / f"{file}.py").read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    nested = {id(n) for f in functions for n in inside(f) if isinstance(n, ast.FunctionDef)}
    found = []
    for function in functions:
        if id(function) in nested:
            continue
        for operator, node, change, source in [*decorated(function), *places(function)]:
            # The walk's nodes are the tree's own: changed in it, copied, and changed back.
            changed = replaced(tree, node, change())
            instead = change()
            shown = "" if isinstance(instead, list | ast.Pass | ast.FunctionDef) else instead
            text = ast.unparse(ast.fix_missing_locations(shown)) if shown else ""
            line = getattr(node, "lineno", 0)
            found.append(Mutant(file, line, operator, source, text, changed))
    return sorted(found, key=lambda m: (m.line, m.operator))


def decorated(function: ast.FunctionDef) -> list[Place]:
    return [*decorators(function)]


def replaced(tree: ast.Module, node: ast.AST, instead: Any) -> ast.Module:
    """A copy of the tree with one node changed."""
    memo: dict[int, Any] = {}
    whole = copy.deepcopy(tree, memo)
    there, made = memo[id(node)], copy.deepcopy(instead)
    return ast.fix_missing_locations(Change(there, made).visit(whole))


# ---- a run of the tests --------------------------------------------------------------------------


class Fault(NamedTuple):
    """The result of a run of the tests."""

    caught: str | None  # by which test; None: by none
    seconds: float
    times: dict[str, float]  # of each test


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """An import finder that gives a method's module the mutant's code."""

    def __init__(self, mutant: Mutant) -> None:
        self.name, self.tree = f"{PACKAGE}.{mutant.file}", mutant.tree
        self.path = METHODS / f"{mutant.file}.py"

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self.name:
            return None
        return importlib.util.spec_from_loader(name, self, origin=str(self.path))

    def exec_module(self, module: Any) -> None:
        module.__file__ = str(self.path)  # where sources are read from
        exec(compile(self.tree, str(self.path), "exec"), module.__dict__)


class Watcher:
    """A pytest plugin: picks the tests of one file, quick ones first, and keeps their results."""

    def __init__(self, file: str, times: dict[str, float]) -> None:
        self.entries, self.known = entries(file), times
        self.names = {each.stem.removeprefix("test_") for each in test_files(file)}
        self.caught: str | None = None
        self.times: dict[str, float] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if self.concerns(item)]
        items.sort(key=lambda item: (rank(item), self.known.get(item.nodeid, 0.0)))

    def concerns(self, item: Any) -> bool:
        given = getattr(item, "callspec", None)
        if rank(item) == 1:
            return True
        if given is None or "golden" in item.name:
            return False
        if rank(item) == 0:
            return given.id.partition("-")[0] in self.names
        return given.params.get("name") in self.entries

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.times[report.nodeid] = self.times.get(report.nodeid, 0.0) + report.duration
        if report.failed and self.caught is None:
            self.caught = report.nodeid.rpartition("/")[2]

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and self.caught is None:
            self.caught = f"{report.nodeid.rpartition('/')[2]} (could not be read)"


def rank(item: Any) -> int:
    return {"test_losses.py": 0, "test_promises.py": 2}.get(item.path.name, 1)


def entries(file: str) -> list[str]:
    """The registered names of the classes of a file."""
    from methods.helpers import METHODS as ENTRIES

    from sslbench.cells.parameters import anatomy

    module = f"{PACKAGE}.{file}"
    return [name for name, e in ENTRIES.items() if anatomy(e).target.__module__ == module]


def test_files(file: str) -> list[Path]:
    names = {file, *(name.replace("-", "_") for name in entries(file))}
    found = [TESTS / f"test_{name}.py" for name in sorted(names)]
    return [path for path in found if path.exists()]


def tested(file: str, mutant: Mutant, times: dict[str, float]) -> Fault:
    """Runs the tests of a file under a mutant, in this process; stops at the first failure."""
    import pytest

    files = test_files(file)
    watcher, began = Watcher(file, times), time.monotonic()
    forgotten = [f"methods.{path.stem}" for path in files] + ["methods.test_losses"]
    for name in [*forgotten, "methods.test_promises"]:
        sys.modules.pop(name, None)
    sys.modules.pop(f"{PACKAGE}.{file}", None)
    vars(sys.modules[PACKAGE]).pop(file, None)  # where `from sslbench.methods import` looks
    sys.meta_path.insert(0, Mutated(mutant))
    folder = tempfile.mkdtemp(prefix="mutant-")
    shared = [TESTS / "test_losses.py", TESTS / "test_promises.py"]
    # Plain asserts: what they say is not read here, and to rewrite them takes longer than to run.
    plain = ["-q", "-x", "--tb=no", "--assert=plain", "-o", "addopts=", f"--rootdir={ROOT}"]
    plain += ["-p", "no:cacheprovider", "-p", "no:unraisableexception"]
    plain += ["-W", "ignore::pytest.PytestUnknownMarkWarning", f"--basetemp={folder}/tmp"]
    try:
        status = pytest.main([*plain, *map(str, [*files, *shared])], plugins=[watcher])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if status not in (0, 1) and watcher.caught is None:
        watcher.caught = f"pytest ended with {int(status)}"
    return Fault(watcher.caught, time.monotonic() - began, watcher.times)


def start(file: str, mutant: Mutant, times: dict[str, float], folder: Path) -> int:
    """Starts a process that tests a mutant and writes down the result; returns its id."""
    process = os.fork()
    if process:
        return process
    signal.alarm(LONGEST)
    output = os.open(folder / f"{os.getpid()}.txt", os.O_CREAT | os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    status = 1
    try:
        fault = tested(file, mutant, times)
        (folder / f"{os.getpid()}.json").write_text(json.dumps(fault))
        status = 0
    finally:
        os._exit(status)  # a fork must not go on with the parent's work; the parent sees the status


def finish(folder: Path) -> tuple[int, Fault]:
    """Waits for a process and returns its result."""
    process, status = os.wait()
    written = folder / f"{process}.json"
    if written.exists():
        return process, Fault(*json.loads(written.read_text()))
    ended = "time ran out" if os.WIFSIGNALED(status) else "the tests' process died"
    return process, Fault(ended, float(LONGEST), {})


def runs(file: str, each: Sequence[Mutant], times: dict[str, float], jobs: int) -> Iterator[Any]:
    """Tests mutants in processes; yields each with its result, as they end."""
    waiting, running = list(each), {}
    with tempfile.TemporaryDirectory() as name:
        while waiting or running:
            while waiting and len(running) < jobs:
                mutant = waiting.pop(0)
                running[start(file, mutant, times, Path(name))] = mutant
            process, fault = finish(Path(name))
            yield running.pop(process), fault


def sound(file: str) -> Fault:
    """Runs the tests with nothing changed."""
    tree = ast.parse((METHODS / f"{file}.py").read_text())
    return next(runs(file, [Mutant(file, 0, "", "", "", tree)], {}, 1))[1]


# ---- the command ---------------------------------------------------------------------------------


def report(file: str, each: Sequence[Mutant], jobs: int) -> tuple[int, int, int]:
    """Prints one line per mutant; returns how many were caught, missed and equivalent."""
    began = time.monotonic()
    base = sound(file)
    if base.caught:
        print(f"{file}: its tests fail without any mutant: {base.caught}", flush=True)
        return 0, 0, -1
    live = [m for m in each if (m.file, m.operator, m.source) not in EQUIVALENT]
    missed = 0
    for mutant, fault in runs(file, live, base.times, jobs):
        missed += fault.caught is None
        end = f"caught by {fault.caught}" if fault.caught else "MISSED"
        print(f"{mutant.title}  [{fault.seconds:.1f} s] {end}", flush=True)
    spent, same = time.monotonic() - began, len(each) - len(live)
    print(
        f"== {file}: {len(live) - missed} of {len(live)} caught, {missed} missed, {same} change "
        f"nothing; {len(base.times)} tests take {base.seconds:.0f} s; {spent:.0f} s in all",
        flush=True,
    )
    return len(live) - missed, missed, same


def warm() -> None:
    """Imports every method and what is slow to import, once for all processes."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import timm  # noqa: F401
    from methods import helpers

    for name in helpers.METHODS:
        helpers.files_of(name)
    gc.freeze()  # all this outlives every process


def trained_files() -> list[str]:
    from methods import helpers

    from sslbench.cells.parameters import anatomy

    targets = [anatomy(helpers.METHODS[name]).target for name in helpers.TRAINED]
    return list(dict.fromkeys(target.__module__.rpartition(".")[2] for target in targets))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="METHOD_FILE", help="moco, swav ...; else all")
    parser.add_argument("--limit", type=int, help="the first N mutants of each file")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--only", help="one operator: detach, drop, sign, reduce ...")
    parser.add_argument("--list", action="store_true", help="say what the mutants are, run none")
    asked = parser.parse_args()
    warm()
    known = trained_files()
    if wrong := [file for file in asked.files if file not in known]:
        parser.error(f"no methods in {wrong[0]!r}; there are {', '.join(known)}")
    totals = []
    for file in asked.files or known:
        each = [m for m in mutants(file) if asked.only in (None, m.operator)][: asked.limit]
        if asked.list:
            print("\n".join(m.title for m in each))
            continue
        totals.append(report(file, each, asked.jobs))
    gc.unfreeze()  # or bindings complain, at the end, of what they find left over
    if totals:
        caught, missed = (sum(t[i] for t in totals) for i in (0, 1))
        print(f"{caught + missed} mutants: {caught} caught, {missed} missed")
    if any(same < 0 for _, _, same in totals):
        sys.exit(BROKEN)
    sys.exit(MISSED if any(missed for _, missed, _ in totals) else 0)


if __name__ == "__main__":
    main()
