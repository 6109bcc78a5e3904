"""Makes a plan: finds the cells of a suite, and how each stands in the store."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..api import Weights
from ..cells.budget import labels_in
from ..cells.cell import Cell
from ..cells.identity import Identity, is_adopted
from ..cells.parameters import anatomy
from ..cells.protocol import Judge, judged_identity, resolve_judge
from ..cells.settings import Context, Outline, Settings, check_settings, outline, recorded, resolve
from ..cells.suite import Suite, load_suite
from ..errors import EmptySelection, UserError
from ..names import FORMS, unplaced
from ..names import parse as parse_name
from ..plugins import Registry
from ..records import Record, differences, digest
from ..store import Store
from .plan import Plan, Planned, PlannedJudge
from .preflight import build_each, check_size
from .selection import Selection, settings_of, shortened, suite_of
from .tuning import choice, trials, verdict

if TYPE_CHECKING:
    from ..data import Data


def make_plan(
    options: Selection,
    registry: Registry,
    *,
    preflight: bool = True,
    read_only: bool = False,
) -> Plan:
    """Finds every cell that the options select, and how it stands in the store. Trains nothing.

    `read_only` leaves the store's damaged files where they are.
    """
    suite, suite_id = suite_of(options, registry)
    options = dataclasses.replace(options, only=_recorded(options.only, registry))
    settings = settings_of(suite, options)
    methods = suite.methods if options.methods is None else options.methods
    names = [n for n in dict.fromkeys((*suite.baselines, *methods)) if not is_adopted(n)]
    asked = {key.partition(".")[0] for key in options.set}
    check_settings(registry, settings, {*names, *asked})
    for name in sorted(asked - set(names)):  # settings of methods without a cell are checked too
        resolve(name, registry, Context("", "", "", 0, 0), settings)
    judges = [_judge(name, registry, options) for name in suite.evaluators]
    once = [_judge(name, registry, options) for name in suite.once]
    once = [judge for judge in once if judge not in judges]
    store = Store(options.store, read_only=read_only)
    asked_for = _recorded(options.methods or (), registry)
    baselines = {*_recorded(suite.baselines, registry)} - {*asked_for}
    planner = _Planner(store, judges, baselines, {suite.seeds[0]: once})
    selection = _Cells(suite, names, registry, settings, options, [*judges, *once])
    planned, waiting = selection.all(planner)
    if not planned:
        raise EmptySelection("the selection is empty: no method, dataset, backbone or seed is left")
    _check_adopted(methods, planned, suite, store)
    notes, targets = tuple(selection.notes), frozenset(selection.targets)
    plan = Plan(suite, suite_id, planned, options, store, waiting, notes, targets)
    if preflight and options.how.train and plan.open:
        build_each(plan, registry)
    return plan


def asks_for_labels(outlined: Outline) -> bool:
    """Whether a method, or one of its pretexts, learns from a budget of labels."""
    return outlined.fields["labels"] == "budget" or any(
        asks_for_labels(pretext) for pretext in outlined.pretexts.values()
    )


def _recorded(names: Sequence[str], registry: Registry) -> tuple[str, ...]:
    return tuple(recorded(name, registry) for name in names)


def _judge(name: str, registry: Registry, options: Selection) -> Judge:
    """Resolves an evaluator, with the fingerprints of the other datasets that it uses."""
    from ..data import open_data

    judge, evaluator = resolve_judge(name, registry)
    asked = evaluator.datasets()
    others = {each: open_data(each, registry, options.place).fingerprint for each in asked}
    return dataclasses.replace(judge, others=others)


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


@dataclass
class _Cells:
    """Finds the cells of a selection, in the order in which they run."""

    suite: Suite
    names: list[str]
    registry: Registry
    settings: Settings
    options: Selection
    judges: Sequence[Judge]
    notes: list[str] = field(default_factory=list)
    targets: set[str] = field(default_factory=set)

    def all(self, planner: _Planner) -> tuple[list[Planned], int]:
        """The cells, and the number of further ones that wait for unfinished trials."""
        from ..data import open_data

        for backbone in self.suite.backbones:
            self.registry.find("backbones", parse_name(backbone).base)
        for name in self.names:
            if Weights in anatomy(self.registry.find("methods", name)).hints.values():
                raise UserError(
                    f"{name} stands for weights from outside and cannot be run; `sslbench evaluate "
                    f"--encoder FILE --backbone NAME` takes them in, and they are then {name}:NAME"
                )
        found: list[Planned] = []
        waiting = 0
        for dataset in self.suite.datasets:
            data = open_data(dataset, self.registry, self.options.place)
            if data.has_target:
                self.targets.add(data.name)
            self._check_budgets(data)
            for backbone in self.suite.backbones:
                tuned, chosen = self._tuned(data, backbone, planner)
                found += tuned
                outlines = self._outlines(chosen)
                for seed in self.suite.seeds:
                    setting = self._setting(data, backbone, seed)
                    cells = [each.at(setting) for each in outlines]
                    if seed == self.suite.seeds[0]:  # sizes are the same for all
                        self._check_sizes(cells, data)
                    unknown = [c for c in cells if c.trained and chosen is None]
                    known = [c for c in cells if not (c.trained and chosen is None)]
                    waiting += len(_with_pretexts(unknown))
                    found += [planner.look(*c) for c in _with_pretexts(known)]
            found += self._adopted(data, planner)
        return list({p.cell.id: p for p in found}.values()), waiting

    def _outlines(self, chosen: Mapping[str, Any] | None) -> list[Outline]:
        """Outlines of the methods, under the settings that the trials chose."""
        if not chosen:
            return self._untuned
        settings = Settings((*self.settings.layers, ({}, chosen)))
        return [outline(name, self.registry, settings) for name in self.names]

    @functools.cached_property
    def _untuned(self) -> list[Outline]:
        return [outline(name, self.registry, self.settings) for name in self.names]

    def _adopted(self, data: Data, planner: _Planner) -> Iterator[Planned]:
        """Finds weights from outside that the store has for this data: those named, or all."""
        asked = {*(self.options.methods or ()), *self.options.only}
        backbones = {str(parse_name(name)) for name in self.options.backbones}
        for identity in planner.identities:
            name = identity.method
            if name is None or not identity.adopted:
                continue
            if name not in asked and (
                self.options.methods is not None
                or (backbones and identity.backbone not in backbones)
            ):
                continue
            own = identity.fingerprint, identity.size, identity.precision
            if own != (data.fingerprint, data.size, self.suite.precision):
                continue
            from ..cells.rebuilt import cell_from

            cell = cell_from(identity, self.registry)
            seen = planner.look(dataclasses.replace(cell, dataset=data.name), None)
            if seen.finished:
                yield seen

    def _setting(self, data: Data, backbone: str, seed: int) -> Context:
        return Context(
            str(parse_name(backbone)),
            data.name,
            data.fingerprint,
            data.size,
            seed,
            self.suite.precision,
            self._budget(data),
        )

    def _budget(self, data: Data) -> int | None:
        """How many labels methods of few labels see of this data; None where there is none of them."""
        asking = [each.fields["method"] for each in self._untuned if asks_for_labels(each)]
        if self.options.labels is not None:
            self._check_asked(asking)
        if not asking:
            return None
        if self.suite.labels is None:
            raise UserError(
                f"{asking[0]} learns from a few labels, and none were given; --labels {FORMS} gives some"
                + (" of the target, and 0 none" if data.has_target else "")
            )
        return labels_in(self.suite.labels, data.label_sizes(), data.name, target=data.has_target)

    def _check_budgets(self, data: Data) -> None:
        for judge in self.judges:
            try:
                if judge.budget:
                    labels_in(judge.budget, data.label_sizes(), data.name)
            except UserError as error:
                raise UserError(f"{judge.name}: {error}") from error

    def _check_asked(self, asking: Sequence[str]) -> None:
        """Refuses --labels for methods that would not see them, unless the suite has a budget."""
        named = _recorded(self.options.methods or (), self.registry)
        vain = [name for name in named if name not in asking]
        if not asking or (vain and load_suite(self.options.suite, self.registry).labels is None):
            who = f"{vain[0]} does not take" if vain else "no method here takes"
            raise UserError(
                f"--labels {self.options.labels} was asked for, and {who} a budget of labels; leave it "
                f"out, or ask for methods that do"
            )

    def _tuned(
        self, data: Data, backbone: str, planner: _Planner
    ) -> tuple[list[Planned], dict[str, Any] | None]:
        """The trials, and the settings that they chose; None while some are unfinished."""
        if self.suite.tuning is None:
            return [], {}
        tuning = shortened(self.suite.tuning, self.options)
        setting = self._setting(data, backbone, tuning.seed)
        bases = [each.at(setting) for each in self._untuned]
        whole = {c.id: c for base in bases for c in (*_pretexts(base), base) if c.trained}
        tried = trials(whole.values(), self.registry, setting, self.settings, tuning)
        judge = resolve_judge(tuning.judge, self.registry, held_out=True)[0]
        of = {t.cell.id: t for t in tried}
        planned = []
        self._check_sizes([t.cell for t in tried], data)
        for cell, needed_by in _with_pretexts([t.cell for t in tried]):
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

    def _check_sizes(self, cells: Sequence[Cell], data: Data) -> None:
        for cell in cells if self.options.how.train else ():
            check_size(cell, data, self.registry)


def _with_pretexts(cells: Sequence[Cell]) -> list[tuple[Cell, str | None]]:
    """Cells with their pretexts, which come first.

    Each has the name of the method that alone needs it, or None where it was asked for.
    """
    found: dict[str, tuple[Cell, str | None]] = {}
    for cell in cells:
        for pretext in _pretexts(cell):
            found.setdefault(pretext.id, (pretext, cell.method))
        found[cell.id] = (cell, None)
    return sorted(found.values(), key=lambda c: _depth(c[0]))


def _pretexts(cell: Cell) -> list[Cell]:
    return [c for p in cell.pretexts.values() for c in (*_pretexts(p), p)]


def _depth(cell: Cell) -> int:
    return 1 + max(map(_depth, cell.pretexts.values()), default=-1)


_STATES = {"ok": "done", "skipped": "skipped"}  # a record's status -> the evaluator's state


class _Planner:
    """Compares cells with the records in the store."""

    def __init__(
        self, store: Store, judges: list[Judge], baselines: set[str], more: dict[int, list[Judge]]
    ) -> None:
        """`judges` judge every cell; `more` has those that judge the cells of one seed only."""
        self.store, self.judges, self.baselines, self.more = store, judges, baselines, more

    @functools.cached_property
    def stored(self) -> frozenset[str]:
        """Ids of the cells that have a folder in the store."""
        return frozenset(folder.id for folder in self.store.cells())

    @functools.cached_property
    def identities(self) -> list[Identity]:
        """The identities of all cells in the store."""
        return [i for c in self.store.cells() if (i := c.identity())]

    @functools.cached_property
    def _alike(self) -> dict[tuple[Any, ...], list[Identity]]:
        """Identities by method, backbone, dataset and seed."""
        found: dict[tuple[Any, ...], list[Identity]] = {}
        for each in self.identities:
            key = each.method, each.backbone, each.dataset, each.seed
            found.setdefault(key, []).append(each)
        return found

    def look(
        self, cell: Cell, needed_by: str | None, judged_by: Sequence[Judge] | None = None
    ) -> Planned:
        known = _by_identity(self.store.cell(cell.id).records()) if cell.id in self.stored else {}
        train = known.get(("train", cell.id))
        judges = []
        asked = judged_by
        if asked is None:
            asked = [*self.judges, *self.more.get(cell.seed, ())]
        for judge in asked if needed_by is None else ():
            asking = digest(judged_identity(cell, judge)) if known else ""
            record = known.get(("evaluation", asking))
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
        """The fields that differ from the most similar stored cell; "" where there is none.

        It must have the same method, backbone, dataset and seed.
        """
        alike = self._alike.get((cell.method, cell.backbone, unplaced(cell.dataset), cell.seed), ())
        own = cell.identity() if alike else {}
        found = sorted((list(differences(other.plain, own)) for other in alike), key=len)
        if not found:
            return ""
        said = [f"{path}: {_shown(old)} -> {_shown(new)}" for path, old, new in found[0][:3]]
        more = f" and {len(found[0]) - 3} more" if len(found[0]) > 3 else ""
        return "; ".join(said) + more


def _by_identity(records: Sequence[Record]) -> dict[tuple[str, str], Record]:
    """The newest ok record of each kind and identity, or else the newest of any status."""
    found: dict[tuple[str, str], Record] = {}
    for record in records:  # oldest first
        key = record.kind, digest(record.identity)
        if key not in found or record.status == "ok" or found[key].status != "ok":
            found[key] = record
    return found


def _shown(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)
