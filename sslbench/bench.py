"""Plans the cells of a suite and runs what is missing."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .api import Backbone, Method, Place
from .errors import EmptySelection, UserError
from .events import CellDone, Listener
from .identity import (
    PRECISIONS,
    Cell,
    Judge,
    Setting,
    Settings,
    anatomy,
    check_settings,
    is_adopted,
    judged_identity,
    resolve,
    resolve_judge,
)
from .names import Name
from .names import parse as parse_name
from .plugins import Registry
from .records import Record, digest
from .store import Store, newest
from .suite import Suite, Tuning, load_suite
from .tuning import choice, trials, verdict

if TYPE_CHECKING:
    from .data import Data
    from .execute import Workbench
    from .leaderboard.member import Member

# Names that stand for several judges.
SETS = {"full": ("knn", "linear", "clustering")}


@dataclass
class Options:
    """What the command line asks for."""

    suite: str = "quick"
    methods: tuple[str, ...] | None = None  # None: the suite's; (): its baselines alone
    backbones: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    evaluators: tuple[str, ...] = ()
    transfer_to: tuple[str, ...] = ()  # datasets of the judge `transfer`, asked for with the others
    layers: bool = False  # of the judge `linear`, likewise
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
    train: bool = True  # False: what is not trained is left alone
    only: tuple[str, ...] = ()  # methods; (): all. The others are shown and left alone
    plugins: tuple[Path, ...] = ()  # --plugin files, for the processes that work
    block: tuple[str, ...] = ()
    installed: bool = True  # whether installed plugins are looked for

    def __post_init__(self) -> None:
        self.place = dataclasses.replace(self.place, scratch=self.store / "scratch")


@dataclass(frozen=True)
class PlannedJudge:
    judge: Judge
    state: str  # done missing skipped failed
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
    trial: tuple[int, str] | None = None  # one of a tuning: its number, what was drawn
    train: Record | None = None

    @property
    def open(self) -> bool:
        return self.state in ("missing", "stale", "evaluate", "failed")

    @property
    def finished(self) -> bool:
        """Whether it is trained."""
        return self.train is not None and self.train.status == "ok"


@dataclass
class Plan:
    suite: Suite
    suite_id: str
    cells: list[Planned]
    options: Options
    store: Store
    waiting: int = 0  # cells whose settings are not known before the trials among `cells` are done
    notes: tuple[str, ...] = ()  # what a reader of the table must know of the tuning

    @property
    def open(self) -> list[Planned]:
        """What `run` would do."""
        left = ("failed",) if self.options.skip_failed else ()
        return [c for c in self.within if c.open and c.state not in left]

    @property
    def within(self) -> list[Planned]:
        """The cells that `run` may do anything about."""
        only, train = self.options.only, self.options.train
        cells = [c for c in self.cells if not only or c.cell.method in only]
        return [c for c in cells if train or c.finished]


@dataclass
class Outcome:
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    trained: int = 0
    evaluated: int = 0
    interrupted: bool = False


# ---- plans -----------------------------------------------------------------------------------


def make_plan(options: Options, registry: Registry, *, preflight: bool = True) -> Plan:
    """Every cell that the options select, with how it stands in the store. Trains nothing."""
    suite, suite_id = suite_of(options, registry)
    settings = _settings(suite, options)
    methods = suite.methods if options.methods is None else options.methods
    names = [n for n in dict.fromkeys((*suite.baselines, *methods)) if not is_adopted(n)]
    asked = {item.partition(".")[0] for item in options.set}
    check_settings(registry, settings, {*names, *asked})
    for name in sorted(asked - set(names)):  # what was typed is checked, though it concerns no cell
        resolve(name, registry, Setting("", "", "", 0, 0), settings)
    judges = [resolve_judge(name, registry)[0] for name in suite.evaluators]
    once = [resolve_judge(name, registry)[0] for name in suite.once]
    once = [judge for judge in once if judge not in judges]
    store = Store(options.store)
    baselines = set(suite.baselines) - set(options.methods or ())
    planner = _Planner(store, judges, baselines, {suite.seeds[0]: once})
    selection = _Cells(suite, names, registry, settings, options)
    planned, waiting = selection.all(planner)
    if not planned:
        raise EmptySelection("the selection is empty: no method, dataset, backbone or seed is left")
    _check_adopted(methods, planned, suite, store)
    plan = Plan(suite, suite_id, planned, options, store, waiting, tuple(selection.notes))
    if preflight and options.train and plan.open:
        _preflight(plan, registry)
    return plan


def suite_of(options: Options, registry: Registry) -> tuple[Suite, str]:
    """The suite with the options applied, and its id."""
    suite = load_suite(options.suite, registry)
    _check_requirements(suite)
    suite, changed = _overridden(suite, options)
    return suite, suite.name + (f"+{digest(changed)[:8]}" if changed else "")


def _check_adopted(
    methods: Sequence[str], planned: Sequence[Planned], suite: Suite, store: Store
) -> None:
    found = {p.cell.method for p in planned}
    if lacking := [name for name in methods if is_adopted(name) and name not in found]:
        raise UserError(
            f"the store {store.root} has no weights {lacking[0]!r} for {', '.join(suite.datasets)}; "
            f"`sslbench evaluate --encoder FILE --backbone NAME --name "
            f"{parse_name(lacking[0]).argument}` takes them in"
        )


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
    suite = dataclasses.replace(suite, evaluators=_spelt_out(suite.evaluators))
    judges = _judges(suite, options)
    for key in ("backbones", "datasets", "evaluators", "seeds", "epochs", "batch", "precision"):
        value: Any = judges if key == "evaluators" else getattr(options, key)
        if value in (None, ()) or value == getattr(suite, key):
            continue
        changed[key] = list(value) if isinstance(value, tuple) else value
        suite = dataclasses.replace(suite, **{key: value})
        if key == "evaluators":
            suite = dataclasses.replace(suite, once=())
    if suite.precision not in PRECISIONS:
        raise UserError(f"precision {suite.precision!r} is none of {', '.join(PRECISIONS)}")
    if options.set:
        changed["set"] = sorted(options.set)
    return suite, changed


def _spelt_out(judges: Sequence[str]) -> tuple[str, ...]:
    """Without names that stand for several."""
    return tuple(dict.fromkeys(each for name in judges for each in SETS.get(name, (name,))))


def _judges(suite: Suite, options: Options) -> tuple[str, ...]:
    judges = _spelt_out(options.evaluators or suite.evaluators)
    if options.layers:
        judges = _with(judges, "linear", layers=True)
    if options.transfer_to:
        judges = _with(judges, "transfer", to="+".join(options.transfer_to))
    return judges


def _with(judges: Sequence[str], base: str, **params: Any) -> tuple[str, ...]:
    """The judges, every one of that name with these parameters; there is at least one."""
    named = [parse_name(name) for name in judges]
    if base not in (each.base for each in named):
        named.append(Name(base))
    changed = (
        dataclasses.replace(each, params={**each.params, **params}) if each.base == base else each
        for each in named
    )
    return tuple(dict.fromkeys(map(str, changed)))


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


@dataclass
class _Cells:
    """The cells of a selection, in the order in which they are done."""

    suite: Suite
    names: list[str]
    registry: Registry
    settings: Settings
    options: Options
    notes: list[str] = field(default_factory=list)

    def all(self, planner: _Planner) -> tuple[list[Planned], int]:
        """Them, and how many more wait for the trials among them."""
        from .data import open_data

        for backbone in self.suite.backbones:
            self.registry.find("backbones", parse_name(backbone).base)
        for name in self.names:
            self.registry.find("methods", name)
        found: list[Planned] = []
        waiting = 0
        for dataset in self.suite.datasets:
            data = open_data(dataset, self.registry, self.options.place)
            for backbone in self.suite.backbones:
                tuned, chosen = self._tuned(data, backbone, planner)
                found += tuned
                settings = Settings((*self.settings.layers, ({}, chosen or {})))
                for seed in self.suite.seeds:
                    setting = self._setting(data, backbone, seed)
                    cells = [resolve(name, self.registry, setting, settings) for name in self.names]
                    known = [c for c in cells if chosen is not None or not c.trained]
                    unknown = [c for c in cells if c not in known]
                    waiting += len(self._with_pretexts(unknown, data))
                    found += [planner.look(*c) for c in self._with_pretexts(known, data)]
            found += self._adopted(data, planner)
        return list({p.cell.id: p for p in found}.values()), waiting

    def _adopted(self, data: Data, planner: _Planner) -> Iterator[Planned]:
        """Weights from outside that the store has for this data: those named, or all."""
        asked = {*(self.options.methods or ()), *self.options.only}
        backbones = {str(parse_name(name)) for name in self.options.backbones}
        own = {"fingerprint": data.fingerprint, "size": data.size}
        for identity in planner.identities:
            name, dataset = identity["method"]["name"], identity["dataset"]
            if not is_adopted(name):
                continue
            if name not in asked and (
                self.options.methods is not None
                or (backbones and identity["backbone"] not in backbones)
            ):
                continue
            if {**dataset, **own} != dataset or identity["precision"] != self.suite.precision:
                continue
            from .loading import cell_from_identity

            cell = cell_from_identity(identity, self.registry)
            seen = planner.look(dataclasses.replace(cell, dataset=data.name), None)
            if seen.finished:
                yield seen

    def _setting(self, data: Data, backbone: str, seed: int) -> Setting:
        return Setting(
            str(parse_name(backbone)),
            data.name,
            data.fingerprint,
            data.size,
            seed,
            self.suite.precision,
            self.suite.labels,
        )

    def _tuned(
        self, data: Data, backbone: str, planner: _Planner
    ) -> tuple[list[Planned], dict[str, Any] | None]:
        """The trials, and what they chose; None while some are undone."""
        if self.suite.tuning is None:
            return [], {}
        tuning = self._shortened(self.suite.tuning)
        setting = self._setting(data, backbone, tuning.seed)
        bases = [resolve(name, self.registry, setting, self.settings) for name in self.names]
        whole = {c.id: c for base in bases for c in (*_pretexts(base), base) if c.trained}
        tried = trials(whole.values(), self.registry, setting, self.settings, tuning)
        judge = resolve_judge(tuning.judge, self.registry, held_out=True)[0]
        of = {t.cell.id: t for t in tried}
        planned = []
        for cell, needed_by in self._with_pretexts([t.cell for t in tried], data):
            trial = of.get(cell.id)
            seen = planner.look(cell, needed_by, [judge] if trial else [])
            if trial:
                seen = dataclasses.replace(seen, trial=(trial.number, trial.title))
            planned.append(seen)
        found = [(t, verdict(t, judge, planner.store)) for t in tried]
        known = [(t, value) for t, value in found if value is not None]
        if len(known) < len(found):
            return planned, None
        chosen = choice(known)
        self.notes.append(
            f"{data.name} on {backbone}: every trained method was tuned by {tuning.trials} random "
            f"trials of {tuning.epochs} epochs a stage (seed {tuning.seed}, the best by "
            f"{judge.protocol}); chosen: {', '.join(f'{k}={v}' for k, v in chosen.items())}"
        )
        return planned, chosen

    def _shortened(self, tuning: Tuning) -> Tuning:
        """What the command line fixes is not searched, and no trial is longer than its fit."""
        settled = frozenset(item.partition("=")[0].strip() for item in self.options.set)
        epochs = min(tuning.epochs, self.options.epochs or tuning.epochs)
        return dataclasses.replace(tuning, epochs=epochs, settled=settled)

    def _with_pretexts(self, cells: list[Cell], data: Data) -> list[tuple[Cell, str | None]]:
        """Pretexts before those who ask for them; each with the method that alone needs it."""
        found: dict[str, tuple[Cell, str | None]] = {}
        for cell in cells:
            _check_size(cell, data, self.registry)
            for pretext in _pretexts(cell):
                found.setdefault(pretext.id, (pretext, cell.method))
            found[cell.id] = (cell, None)
        return sorted(found.values(), key=lambda c: _depth(c[0]))


def _pretexts(cell: Cell) -> list[Cell]:
    return [c for p in cell.pretexts.values() for c in (*_pretexts(p), p)]


def _depth(cell: Cell) -> int:
    return 1 + max(map(_depth, cell.pretexts.values()), default=-1)


def _check_size(cell: Cell, data: Data, registry: Registry) -> None:
    """A batch that the data can fill, and that is enough for the method's loss and norms."""
    if cell.recipe is None:
        return
    split = data.unlabelled if cell.labels == "none" and data.unlabelled else data.train
    length = len(split.images)
    target = anatomy(registry.find("methods", cell.method)).target
    kinds = {"": target, **target.stages}
    for stage, recipe in {"": cell.recipe, **{s: r for s, (_, r) in cell.stages.items()}}.items():
        where = f"{cell.method}.{stage}".rstrip(".")
        if recipe.batch > length and recipe.epochs:
            raise UserError(
                f"{where}: a batch of {recipe.batch} is larger than the {length} images of "
                f"{data.name}; try --batch N or --set {where}.batch=N with at most {length}"
            )
        if recipe.batch < (least := kinds[stage].least):
            raise UserError(
                f"{where}: a batch of {recipe.batch} is too small for its loss and norms; "
                f"try --batch N or --set {where}.batch=N with at least {least}"
            )


_STATES = {"ok": "done", "skipped": "skipped"}  # of a judge, by its record's status


class _Planner:
    """Holds cells against the store."""

    def __init__(
        self, store: Store, judges: list[Judge], baselines: set[str], more: dict[int, list[Judge]]
    ) -> None:
        """`judges` judge every cell, and `more` those of a seed."""
        self.store, self.judges, self.baselines, self.more = store, judges, baselines, more

    @functools.cached_property
    def identities(self) -> list[dict[str, Any]]:
        """Of all cells in the store."""
        return [i for c in self.store.cells() if (i := c.identity())]

    def look(
        self, cell: Cell, needed_by: str | None, judged_by: Sequence[Judge] | None = None
    ) -> Planned:
        folder = self.store.cell(cell.id)
        records = folder.records()
        train = newest(records, "train", cell.identity())
        judges = []
        asked = judged_by
        if asked is None:
            asked = [*self.judges, *self.more.get(cell.seed, ())]
        for judge in asked if needed_by is None else ():
            record = newest(records, "evaluation", judged_identity(cell, judge))
            state = _STATES.get(record.status, "failed") if record else "missing"
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
        own = cell.identity()
        alike = [
            i
            for i in self.identities
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
                module, _ = bench.build(planned.cell)
                _check_queues(planned.cell, module)
                _check_pretexts(planned.cell, module, bench)
                seen[key] = None
            except Unsupported as error:
                seen[key] = str(error)
            except ValueError as error:
                raise UserError(f"{planned.cell.method}: {error}") from error
        if sentence := seen[key]:
            plan.cells[i] = dataclasses.replace(planned, state="unsupported", why=sentence)


def _check_queues(cell: Cell, module: Any) -> None:
    for name in getattr(module, "queues", ()):
        rows, batch = getattr(module, name).shape[-2], cell.recipe.batch if cell.recipe else 1
        if rows % batch:
            raise ValueError(
                f"its {name} of {rows} is no multiple of the batch of {batch}: keys would be "
                f"split; set one of {rows - rows % batch or batch}, or another batch"
            )


def _check_pretexts(cell: Cell, module: Any, bench: Workbench) -> None:
    """That the methods which this one starts from have what it asks of them."""
    for name, asked in getattr(module, "asks", {}).items():
        pretext = cell.pretexts[cell.hyperparameters[name]]
        other, _ = bench.build(pretext)
        if not isinstance(other, Method):
            raise ValueError(f"its {name} {pretext.method} is never trained; choose another")
        if "predict" in asked and type(other).predict is Method.predict:
            raise ValueError(
                f"its {name} {pretext.method} predicts no class of an image; choose a method that "
                f"sorts images into the classes"
            )
        if "backbone" in asked and not isinstance(other.encoder(), Backbone):
            raise ValueError(
                f"the encoder of its {name} {pretext.method} is no bare backbone, its weights fit "
                f"nowhere else; choose a method whose encoder is its backbone"
            )


# ---- running ---------------------------------------------------------------------------------


def run(
    plan: Plan,
    registry: Registry,
    listener: Listener = lambda event: None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Does what is missing, trials before the cells whose settings they choose.

    A failed cell never ends the run.
    """
    stop = stop or threading.Event()
    outcome = Outcome()
    _do(plan, registry, outcome, listener, stop)
    if plan.waiting and plan.options.train:
        chosen = make_plan(plan.options, registry)
        plan.cells, plan.waiting, plan.notes = chosen.cells, chosen.waiting, chosen.notes
        if not plan.waiting and not outcome.interrupted:
            _do(plan, registry, outcome, listener, stop)
    outcome.skipped += sum(p.state == "unsupported" for p in plan.cells)
    return outcome


def _do(
    plan: Plan, registry: Registry, outcome: Outcome, listener: Listener, stop: threading.Event
) -> None:
    """What is open in the plan, which then says how its cells stand."""
    from .executors.local import LocalProcesses

    todo = plan.open
    before = {p.cell.id: sum(j.state == "done" for j in p.judges) for p in plan.cells}
    if todo:
        plan.store.create()
        with LocalProcesses(plan, listener) as processes:
            for done in processes.work(todo, stop):
                _count(outcome, done)
    outcome.interrupted |= stop.is_set()
    outcome.failed += sum(p.state == "failed" for p in plan.cells if plan.options.skip_failed)
    after = make_plan(plan.options, registry, preflight=False)
    known = {p.cell.id: p for p in after.cells}
    unsupported = {p.cell.id: p for p in plan.cells if p.state == "unsupported"}
    plan.cells = [unsupported.get(p.cell.id) or known.get(p.cell.id, p) for p in plan.cells]
    for planned in plan.cells:
        done_now = sum(j.state == "done" for j in planned.judges)
        outcome.evaluated += max(0, done_now - before[planned.cell.id])


def _count(outcome: Outcome, done: CellDone) -> None:
    if done.status == "interrupted":
        outcome.interrupted = True
        return
    setattr(outcome, done.status, getattr(outcome, done.status) + 1)
    outcome.trained += done.trained and done.status == "ok"


def members(plan: Plan) -> list[Member]:
    """The plan's cells as the leaderboard takes them: from records alone."""
    from .leaderboard.member import Member

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
            trials=plan.suite.tuning.trials if plan.suite.tuning and p.cell.trained else 0,
        )
        for p in plan.cells
        if p.needed_by is None and p.trial is None
    ]
