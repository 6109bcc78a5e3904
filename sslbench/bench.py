"""Plans the cells of a suite and runs what is missing."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .api import Place
from .errors import EmptySelection, UserError, suggestion
from .events import CellDone, Listener
from .identity import (
    PRECISIONS,
    Cell,
    Judge,
    Setting,
    Settings,
    check_settings,
    resolve,
    resolve_judge,
)
from .names import parse as parse_name
from .plugins import Registry
from .records import Record, digest
from .store import Store, newest

if TYPE_CHECKING:
    from .leaderboard.table import Member


@dataclass(frozen=True)
class Suite:
    """A named protocol."""

    name: str
    summary: str
    datasets: tuple[str, ...]
    backbones: tuple[str, ...]
    methods: tuple[str, ...]  # unless others are asked for
    baselines: tuple[str, ...]
    evaluators: tuple[str, ...]
    seeds: tuple[int, ...]
    epochs: int | None = None  # a stage, for all methods; None: each recipe's own
    batch: int | None = None
    precision: str = "fp32"
    labels: int | None = None  # the budget of methods that may see some
    floor: str | None = None  # the baseline that a trained method should beat
    requires: tuple[str, ...] = ()  # distributions
    set: Mapping[str, Any] = field(default_factory=dict)  # METHOD.PARAM -> value


@dataclass
class Options:
    """What the command line asks for."""

    suite: str = "quick"
    methods: tuple[str, ...] | None = None  # None: the suite's; (): its baselines alone
    backbones: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    evaluators: tuple[str, ...] = ()
    seeds: tuple[int, ...] | None = None
    epochs: int | None = None
    batch: int | None = None
    precision: str | None = None
    set: tuple[str, ...] = ()  # "moco.lr=0.3"
    store: Path = Path("sslbench-store")
    place: Place = field(default_factory=Place)
    device: str = "auto"
    jobs: int = 0  # 0: one a GPU, one in all without
    watch: str | None = None  # "knn:5"
    compile: bool = False
    checkpoint_seconds: float = 60.0
    skip_failed: bool = False
    plugins: tuple[Path, ...] = ()  # --plugin files, for the processes that work
    block: tuple[str, ...] = ()
    installed: bool = True  # whether installed plugins are looked for

    def __post_init__(self) -> None:
        self.place = dataclasses.replace(self.place, scratch=self.store / "scratch")


@dataclass(frozen=True)
class PlannedJudge:
    judge: Judge
    state: str  # done missing failed
    record: Record | None = None


@dataclass(frozen=True)
class Planned:
    """One cell of a plan and how it stands in the store."""

    cell: Cell
    state: str  # done missing stale evaluate failed unsupported
    why: str
    judges: tuple[PlannedJudge, ...]
    baseline: bool = False
    needed_by: str | None = None  # only there for this method's sake
    train: Record | None = None

    @property
    def open(self) -> bool:
        return self.state in ("missing", "stale", "evaluate", "failed")


@dataclass
class Plan:
    suite: Suite
    suite_id: str
    cells: list[Planned]
    options: Options
    store: Store

    @property
    def open(self) -> list[Planned]:
        """What `run` would do."""
        left = ("failed",) if self.options.skip_failed else ()
        return [c for c in self.cells if c.open and c.state not in left]


@dataclass
class Outcome:
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    trained: int = 0
    evaluated: int = 0
    interrupted: bool = False


# ---- suites ----------------------------------------------------------------------------------


def load_suite(name: str, registry: Registry) -> Suite:
    """A suite by name, or from a YAML file's path."""
    by_path = name.endswith((".yaml", ".yml"))
    path = Path(name) if by_path else Path(str(registry.find("suites", name).load()))
    if not path.is_file():
        raise UserError(f"no suite file {path}")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise UserError(f"the suite {path} is no readable YAML: {error}") from error
    return _suite(path.stem if by_path else name, content, path)


def _suite(name: str, content: Any, path: Path) -> Suite:
    if not isinstance(content, Mapping):
        raise UserError(f"the suite {path} must be a mapping of fields")
    known = {f.name: f for f in dataclasses.fields(Suite) if f.name != "name"}
    for key in content:
        if key not in known:
            raise UserError(f"the suite {path} has no field {key!r}{suggestion(str(key), known)}")
    needed = ("summary", "datasets", "backbones", "methods", "baselines", "evaluators", "seeds")
    if lacking := [key for key in needed if key not in content]:
        raise UserError(f"the suite {path} lacks {', '.join(lacking)}")
    values: dict[str, Any] = {}
    for key, value in content.items():
        if str(known[key].type).startswith("tuple"):
            if not isinstance(value, list):
                raise UserError(f"{key} of the suite {path} must be a list, not {value!r}")
            value = tuple(value if key == "seeds" else map(str, value))
        values[key] = value
    if not all(isinstance(s, int) and s >= 0 for s in values["seeds"]):
        raise UserError(f"seeds of the suite {path} must be whole numbers, not {values['seeds']}")
    if not isinstance(values.get("set", {}), Mapping):
        raise UserError(f"set of the suite {path} must map METHOD.PARAMETER to values")
    return Suite(name=name, **values)


# ---- plans -----------------------------------------------------------------------------------


def make_plan(options: Options, registry: Registry, *, preflight: bool = True) -> Plan:
    """Every cell that the options select, with how it stands in the store. Trains nothing."""
    suite = load_suite(options.suite, registry)
    _check_requirements(suite)
    suite, changed = _overridden(suite, options)
    settings = _settings(suite, options)
    suite_id = suite.name + (f"+{digest(changed)[:8]}" if changed else "")
    methods = suite.methods if options.methods is None else options.methods
    names = list(dict.fromkeys((*suite.baselines, *methods)))
    asked = {item.partition(".")[0] for item in options.set}
    check_settings(registry, settings, {*names, *asked})
    for name in sorted(asked - set(names)):  # what was typed is checked, though it concerns no cell
        resolve(name, registry, Setting("", "", "", 0, 0), settings)
    judges = [resolve_judge(name, registry)[0] for name in suite.evaluators]
    cells = _cells(suite, names, registry, settings, options)
    if not cells:
        raise EmptySelection("the selection is empty: no method, dataset, backbone or seed is left")
    store = Store(options.store)
    planner = _Planner(store, judges, set(suite.baselines) - set(options.methods or ()))
    planned = [planner.look(cell, needed_by) for cell, needed_by in cells]
    plan = Plan(suite, suite_id, planned, options, store)
    if preflight and plan.open:
        _preflight(plan, registry)
    return plan


def _check_requirements(suite: Suite) -> None:
    from importlib import metadata

    from packaging.requirements import Requirement

    for text in suite.requires:
        wanted = Requirement(text)
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            version = None
        if version is None or version not in wanted.specifier:
            found = f"found {version}" if version else "not installed"
            raise UserError(f"suite {suite.name} requires {text} ({found}): pip install '{text}'")


def _overridden(suite: Suite, options: Options) -> tuple[Suite, dict[str, Any]]:
    """The suite with the options applied, and those of them that change its protocol."""
    changed: dict[str, Any] = {}
    for key in ("backbones", "datasets", "evaluators", "seeds", "epochs", "batch", "precision"):
        value = getattr(options, key)
        if value in (None, ()) or value == getattr(suite, key):
            continue
        changed[key] = list(value) if isinstance(value, tuple) else value
        suite = dataclasses.replace(suite, **{key: value})
    if suite.precision not in PRECISIONS:
        raise UserError(f"precision {suite.precision!r} is none of {', '.join(PRECISIONS)}")
    if options.set:
        changed["set"] = sorted(options.set)
    return suite, changed


def _settings(suite: Suite, options: Options) -> Settings:
    """The suite's settings, then the command line's."""
    asked: dict[str, Any] = {}
    for item in options.set:
        key, sign, value = item.partition("=")
        if not sign or not key:
            raise UserError(f"--set {item!r} is not METHOD.PARAMETER=VALUE")
        asked[key.strip()] = value
    from_options = {"epochs": options.epochs, "batch": options.batch}
    from_suite = {"epochs": suite.epochs, "batch": suite.batch}

    def given(values: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in values.items() if v is not None}

    return Settings(((given(from_suite), suite.set), (given(from_options), asked)))


def _cells(
    suite: Suite, names: list[str], registry: Registry, settings: Settings, options: Options
) -> list[tuple[Cell, str | None]]:
    """Cells in the order in which they are done: pretexts before those who ask for them."""
    from .data import open_data

    found: dict[str, tuple[Cell, str | None]] = {}
    for backbone in suite.backbones:
        registry.find("backbones", parse_name(backbone).base)
    for name in names:
        registry.find("methods", name)
    for dataset in suite.datasets:
        data = open_data(dataset, registry, options.place)
        for backbone in suite.backbones:
            for seed in suite.seeds:
                setting = Setting(
                    str(parse_name(backbone)),
                    data.name,
                    data.fingerprint,
                    data.size,
                    seed,
                    suite.precision,
                    suite.labels,
                )
                cells = [resolve(name, registry, setting, settings) for name in names]
                for cell in cells:
                    _check_size(cell, data)
                    for pretext in _pretexts(cell):
                        found.setdefault(pretext.id, (pretext, cell.method))
                    found[cell.id] = (cell, None)
    return _in_order(list(found.values()))


def _pretexts(cell: Cell) -> list[Cell]:
    return [c for p in cell.pretexts.values() for c in (*_pretexts(p), p)]


def _in_order(cells: list[tuple[Cell, str | None]]) -> list[tuple[Cell, str | None]]:
    depth: Callable[[Cell], int] = lambda c: 1 + max(map(depth, c.pretexts.values()), default=-1)  # noqa: E731 - recursive
    groups: dict[tuple[str, str, int], int] = {}
    for cell, _ in cells:
        groups.setdefault((cell.dataset, cell.backbone, cell.seed), len(groups))
    return sorted(
        cells, key=lambda c: (groups[c[0].dataset, c[0].backbone, c[0].seed], depth(c[0]))
    )


def _check_size(cell: Cell, data: Any) -> None:
    split = data.unlabelled if cell.labels == "none" and data.unlabelled else data.train
    length = len(split.images)
    if cell.recipe is None:
        return
    for stage, recipe in [("", cell.recipe), *((s, r) for s, (_, r) in cell.stages.items())]:
        if recipe.batch > length and recipe.epochs:
            where = f"{cell.method}{'.' + stage if stage else ''}"
            raise UserError(
                f"{where}: a batch of {recipe.batch} is larger than the {length} images of "
                f"{data.name}; try --batch N or --set {where}.batch=N with at most {length}"
            )


class _Planner:
    """Holds cells against the store."""

    def __init__(self, store: Store, judges: list[Judge], baselines: set[str]) -> None:
        self.store, self.judges, self.baselines = store, judges, baselines
        self._others: list[dict[str, Any]] | None = None

    def look(self, cell: Cell, needed_by: str | None) -> Planned:
        from .execute import judged_identity

        folder = self.store.cell(cell.id)
        records = folder.records()
        train = newest(records, "train", cell.identity())
        judges = []
        for judge in self.judges if needed_by is None else ():
            record = newest(records, "evaluation", judged_identity(cell, judge))
            state = "missing" if record is None else "done" if record.status == "ok" else "failed"
            judges.append(PlannedJudge(judge, state, record))
        state, why = self._state(cell, train, judges)
        return Planned(
            cell=cell,
            state=state,
            why=why,
            judges=tuple(judges),
            baseline=cell.method in self.baselines,
            needed_by=needed_by,
            train=train,
        )

    def _state(
        self, cell: Cell, train: Record | None, judges: Sequence[PlannedJudge]
    ) -> tuple[str, str]:
        if train is None:
            differs = self._stale(cell)
            return ("stale", differs) if differs else ("missing", "")
        if train.status == "skipped":
            return "unsupported", train.sentence
        if train.status == "failed":
            return "failed", train.sentence
        if train.status != "ok":
            return "missing", "interrupted, goes on from its checkpoint"
        if failed := [j for j in judges if j.state == "failed"]:
            return "failed", "; ".join(
                f"{j.judge.protocol}: {j.record.sentence}" for j in failed if j.record
            )
        if missing := [j.judge.protocol for j in judges if j.state == "missing"]:
            return "evaluate", f"to judge: {', '.join(missing)}"
        return "done", ""

    def _stale(self, cell: Cell) -> str:
        """Which field differs from the nearest cell of the same method, backbone, dataset, seed."""
        if self._others is None:
            self._others = [i for c in self.store.cells() if (i := c.identity())]
        own = cell.identity()
        alike = [
            i
            for i in self._others
            if i["method"]["name"] == cell.method
            and i["backbone"] == cell.backbone
            and i["dataset"]["name"] == own["dataset"]["name"]
            and i["seed"] == cell.seed
        ]
        differences = sorted((_differences(other, own) for other in alike), key=len)
        if not differences:
            return ""
        shown = differences[0][:3]
        more = f" and {len(differences[0]) - 3} more" if len(differences[0]) > 3 else ""
        return "; ".join(shown) + more


def _differences(old: Any, new: Any, at: str = "") -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = sorted({*old, *new})
        return [
            d for k in keys for d in _differences(old.get(k), new.get(k), f"{at}.{k}" if at else k)
        ]
    if old == new:
        return []

    def short(value: Any) -> str:
        return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)

    return [f"{at}: {short(old)} -> {short(new)}"]


def _preflight(plan: Plan, registry: Registry) -> None:
    """Builds each open combination once: what cannot serve is known before anything trains."""
    from .execute import Options as Doing
    from .execute import Unsupported, Workbench
    from .feed import pick_device

    bench = Workbench(registry, plan.store, plan.options.place, Doing(device=pick_device("cpu")))
    seen: dict[str, str | None] = {}
    for i, planned in enumerate(plan.cells):
        if not planned.open or planned.state == "evaluate":
            continue
        key = digest({**planned.cell.identity(), "seed": 0})
        if key not in seen:
            try:
                bench.build(planned.cell)
                seen[key] = None
            except Unsupported as error:
                seen[key] = str(error)
            except ValueError as error:
                raise UserError(f"{planned.cell.method}: {error}") from error
        if sentence := seen[key]:
            plan.cells[i] = dataclasses.replace(planned, state="unsupported", why=sentence)


# ---- running ---------------------------------------------------------------------------------


def run(
    plan: Plan,
    registry: Registry,
    listener: Listener = lambda event: None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Does what is missing; a failed cell never ends the run."""
    from .executors.local import LocalProcesses

    outcome = Outcome()
    todo = plan.open
    before = {p.cell.id: sum(j.state == "done" for j in p.judges) for p in todo}
    if todo:
        plan.store.create()
        with LocalProcesses(plan, listener) as processes:
            for done in processes.work(todo, stop or threading.Event()):
                _count(outcome, done)
    outcome.skipped += sum(p.state == "unsupported" for p in plan.cells)
    outcome.interrupted |= bool(stop and stop.is_set())
    outcome.failed += sum(p.state == "failed" for p in plan.cells if plan.options.skip_failed)
    after = make_plan(plan.options, registry, preflight=False)
    for planned in after.cells:
        if planned.cell.id in before:
            done_now = sum(j.state == "done" for j in planned.judges)
            outcome.evaluated += max(0, done_now - before[planned.cell.id])
    unsupported = {p.cell.id: p for p in plan.cells if p.state == "unsupported"}
    plan.cells = [unsupported.get(p.cell.id, p) for p in after.cells]
    return outcome


def _count(outcome: Outcome, done: CellDone) -> None:
    if done.status == "interrupted":
        outcome.interrupted = True
        return
    setattr(outcome, done.status, getattr(outcome, done.status) + 1)
    outcome.trained += done.trained and done.status == "ok"


def members(plan: Plan) -> list[Member]:
    """The plan's cells as the leaderboard takes them: from records alone."""
    from .leaderboard.table import Member

    return [
        Member(
            method=p.cell.method,
            backbone=p.cell.backbone,
            dataset=p.cell.dataset,
            seed=p.cell.seed,
            baseline=p.baseline,
            anchor=p.cell.method if p.cell.method == plan.suite.floor else None,
            cell_id=p.cell.id,
            identity=p.cell.identity(),
            train=p.train,
            evaluations={j.judge.name: j.record for j in p.judges},
            state=p.state,
            sentence=p.why,
        )
        for p in plan.cells
        if p.needed_by is None
    ]
