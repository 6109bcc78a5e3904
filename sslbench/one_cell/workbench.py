"""Does one cell: trains it or loads it, judges what is missing, and leaves a record of each."""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch
from torch import nn

from ..api import DataInfo, Method, Place
from ..cells.cell import Cell, derive, plain
from ..cells.parameters import anatomy
from ..cells.protocol import Judge, judged_identity, resolve_judge
from ..data import Data, Pretraining, open_data
from ..errors import Interrupted, Unsuited, UserError
from ..events import CellDone, CellStarted, EvaluationDone, Listener
from ..measures import flops
from ..names import parse as parse_name
from ..plugins import Registry
from ..records import Costs, Failure, MetricValue, Record, Stage, Warned, now
from ..store import CellFolder, Store
from ..train.feed import Feed, kept_generators, seed_all
from ..train.health import Checkup
from ..train.loop import Diverged, Session, fit_main
from ..train.state import restore, tensors_of
from .environment import component, environment, peak_memory, reset_peak_memory
from .subject import Frozen, Inner, JudgedData, encoder_of

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class Unsupported(Exception):
    """The method says that these cannot serve."""


class CellFailed(Exception):
    """The record of the failure is written."""


@dataclass
class RunOptions:
    """How cells are done; none of it changes a number, but for the device."""

    device: torch.device
    checkpoint_seconds: float = 60.0
    watch: str | None = None  # evaluator
    watch_every: int = 0  # epochs
    compile: bool = False
    suite: str = ""  # id, for the records
    train: bool = True  # False: what is not trained, or whose model is lost, fails


class Workbench:
    """Where cells are done, one after the other, in one process on one device."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        place: Place,
        options: RunOptions,
        *,
        listener: Listener = lambda event: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.registry, self.store, self.place, self.options = registry, store, place, options
        self.listener, self.stop = listener, stop
        self._data: dict[str, Data] = {}

    # ---- a cell ----

    def do(self, cell: Cell, judges: Sequence[Judge]) -> CellDone:
        """Everything that is missing of a cell; returns how it went, raises only UserError."""
        begun = time.monotonic()
        self.listener(CellStarted(cell.id, cell.title))
        folder = self.store.cell(cell.id)
        trained = False

        def done(status: str, sentence: str = "") -> CellDone:
            seconds = time.monotonic() - begun
            return CellDone(cell.id, cell.title, status, seconds, sentence, trained)

        with folder.lock(waiting=lambda: not self.stop()) as held:
            if not held:
                return done("interrupted", "another run holds this cell")
            try:
                before = len(folder.records())
                module, _ = self._trained(cell, folder)
                trained = len(folder.records()) > before
                failed = self._judge_all(cell, module, folder, judges)
            except Unsupported as error:
                return done("skipped", str(error))
            except Interrupted as error:
                return done("interrupted", str(error))
            except CellFailed as error:
                return done("failed", str(error))
        return done("failed", failed[0]) if failed else done("ok")

    def pretext(self, cell: Cell) -> tuple[Method, list[Stage]]:
        """A cell that another one starts from, trained or loaded; waits for who else trains it."""
        folder = self.store.cell(cell.id)
        with folder.lock(waiting=lambda: not self.stop()) as held:
            if not held:
                raise Interrupted(f"while another run trains {cell.title}")
            try:
                module, stages = self._trained(cell, folder)
            except (CellFailed, Unsupported) as error:
                raise ValueError(f"its pretext {cell.method} is not to be had: {error}") from error
        if not isinstance(module, Method):
            raise ValueError(f"{cell.method} is never trained, it is no pretext")
        return module, stages

    # ---- training ----

    def _trained(self, cell: Cell, folder: CellFolder) -> tuple[nn.Module, list[Stage]]:
        """The module of a cell whose lock is held, and what its training cost."""
        found = folder.current("train", cell.identity())
        if found and found.status == "ok":
            state = folder.load("model")
            if state is not None:
                module, _ = self.build(cell)
                restore(module, state[0], what="the saved model")
                return module.eval(), list(found.costs.stages if found.costs else ())
        if not self.options.train and not cell.adopted:
            raise CellFailed(
                f"nothing is trained here, and the store {self.store.root} has no model of this "
                "cell; `sslbench run` trains it"
            )
        folder.write_identity(cell.identity())
        started = now()
        attempt = 1 + sum(r.kind == "train" for r in folder.records())
        common = {**self._common(cell), "kind": "train", "identity": cell.identity()}
        common |= {"started": started, "attempt": attempt}
        session: list[Session] = []
        try:
            return self._train(cell, folder, common, session)
        except Unsupported as error:
            if not (found and found.status == "skipped" and found.sentence == str(error)):
                folder.add(Record(**common, status="skipped", sentence=str(error), finished=now()))
            raise
        except Interrupted as error:
            folder.add(Record(**common, status="interrupted", sentence=str(error), finished=now()))
            raise
        except UserError:
            raise  # the disk, say: no record could be written either
        except Exception as error:
            failure = _failure(error, cell, session[0].where if session else None)
            record = Record(
                **common, status="failed", sentence=failure.message, error=failure, finished=now()
            )
            folder.add(record)
            raise CellFailed(failure.message) from error

    def _train(
        self, cell: Cell, folder: CellFolder, common: dict[str, Any], sessions: list[Session]
    ) -> tuple[nn.Module, list[Stage]]:
        reset_peak_memory(self.options.device)
        module, pretraining = self.begin(cell)
        feed = Feed(pretraining.images, pretraining.labels, self.options.device)
        checkup = Checkup(module, encoder_of(module), feed, pretraining.info.classes)
        stages: list[Stage] = []
        warnings: list[Warned] = []
        curves: dict[str, list[tuple[float, float]]] = {}
        health: dict[str, float] = {}
        steps = 0
        if cell.recipe is not None:
            assert isinstance(module, Method)
            health = checkup.start()
            if self.options.compile:
                compile_backbones(module)
            session = self._session(cell, folder, feed, pretraining.info)
            sessions.append(session)
            fit_main(session, module, cell.recipe)
            stages, curves, warnings = session.stages, session.curves, session.warnings
            steps = cell.recipe.epochs * (len(feed) // cell.recipe.batch)
        module.eval()
        health, verdicts = checkup.end(health, steps)
        meta = {"method": cell.method, "backbone": cell.backbone, "size": cell.size}
        folder.save("model", tensors_of(module), meta)
        folder.save("encoder", tensors_of(encoder_of(module)), meta)
        record = Record(
            **common,
            status="ok",
            costs=self._costs(module, stages, cell),
            curves=curves,
            health=health,
            warnings=(*warnings, *verdicts, *_of_outside(cell)),
            finished=now(),
        )
        folder.add(record)
        for path in folder.path.glob("resume-*.safetensors"):
            path.unlink()
        for path in folder.path.glob("stage-*.safetensors"):
            path.unlink()
        return module, stages

    def _session(self, cell: Cell, folder: CellFolder, feed: Feed, info: DataInfo) -> Session:
        return Session(
            cell=cell,
            folder=folder,
            feed=feed,
            info=info,
            device=self.options.device,
            pretrain=self.pretext,
            listener=self.listener,
            stop=self.stop,
            watch=self._watch(self.data(cell.dataset)) if self.options.watch else None,
            watch_every=self.options.watch_every,
            checkpoint_seconds=self.options.checkpoint_seconds,
        )

    def begin(self, cell: Cell) -> tuple[nn.Module, Pretraining]:
        """What training starts from."""
        if cell.adopted:
            raise ValueError(
                "its weights come from outside, and the store has lost them; `sslbench evaluate "
                "--encoder FILE` with the same file takes them in again"
            )
        return self.build(cell)

    def build(self, cell: Cell) -> tuple[nn.Module, Pretraining]:
        """The module of a cell before any training; Unsupported when its method declines."""
        data, device = self.data(cell.dataset), self.options.device
        pretraining = data.pretraining(cell.labels, budget=cell.budget, seed=cell.seed)
        entry = self.registry.find("methods", parse_name(cell.method))
        if cell.source and entry.source_sha256() != cell.source:
            raise ValueError(f"{entry.file} was edited after this run was planned; run it again")
        parts = anatomy(entry)
        name = parse_name(cell.backbone)
        with kept_generators(torch.device("cpu")):
            # The same first weights for every method of a seed: what `untrained` is.
            seed_all(derive("backbone", cell.backbone, cell.seed), torch.device("cpu"))
            create = self.registry.find("backbones", name.base).load()
            backbone = create(name.base, size=data.size, **name.params)
            if cell.recipe is not None:
                sentence = parts.target.needs(backbone, pretraining.info)
                if sentence:
                    raise Unsupported(sentence)
            seed_all(derive(cell.id, "method"), torch.device("cpu"))
            module = parts.target(backbone, pretraining.info, **cell.hyperparameters)
        return module.to(device), pretraining

    def data(self, name: str) -> Data:
        if name not in self._data:
            self._data[name] = open_data(name, self.registry, self.place)
        return self._data[name]

    def _watch(self, data: Data) -> Callable[[nn.Module], Mapping[str, float]]:
        judge, evaluator = resolve_judge(str(self.options.watch), self.registry)

        def watch(encoder: nn.Module) -> dict[str, float]:
            inner = Inner(self._subject(encoder, data), data)
            inner.subject.uses = frozenset(evaluator.uses)
            try:
                metrics = evaluator(inner, inner, 0).metrics
            except Unsuited:
                return {}
            first = evaluator.metrics[0].name
            return {f"watch.{judge.protocol}.{first}": float(metrics[first].value)}

        return watch

    # ---- judging ----

    def _judge_all(
        self, cell: Cell, module: nn.Module, folder: CellFolder, judges: Sequence[Judge]
    ) -> list[str]:
        """Judges what has no sound record; returns what went wrong, in sentences."""
        records = folder.records()
        missing = [j for j in judges if not is_judged(records, cell, j)]
        subject = self._subject(module, self.data(cell.dataset), folder)
        failed = []
        for judge in missing:
            if self.stop():
                raise Interrupted(f"before {judge.protocol}")
            attempt = 1 + sum(r.evaluator == judge.name for r in records)
            record = folder.add(self._judge(cell, subject, judge, attempt=attempt))
            first = record.metric()
            self.listener(
                EvaluationDone(
                    cell.id,
                    judge.protocol,
                    record.status,
                    first.name if first else "",
                    first.value if first else None,
                    tuple((metric.name, metric.value) for metric in record.metrics),
                )
            )
            if record.status == "failed":
                failed.append(f"{judge.protocol}: {record.sentence}")
        return failed

    def _subject(self, module: nn.Module, data: Data, folder: CellFolder | None = None) -> Frozen:
        return Frozen(
            module,
            data,
            self.options.device,
            folder,
            lend=lambda name: resolve_judge(name, self.registry)[1],
            opened=self.data,
        )

    def _judge(self, cell: Cell, subject: Frozen, judge: Judge, *, attempt: int) -> Record:
        begun, started = time.monotonic(), now()
        identity = judged_identity(cell, judge)
        common = {**self._common(cell), "kind": "evaluation", "identity": identity}
        common |= {"evaluator": judge.name, "protocol": judge.protocol}
        common |= {"started": started, "attempt": attempt}
        entry = self.registry.find("evaluators", parse_name(judge.name).base)
        common["components"] = {
            **common["components"],
            "evaluator": component(entry, judge.version, store=self.store.root),
        }
        try:
            _, evaluator = resolve_judge(judge.name, self.registry)
            seed = derive("judge", judge.family, cell.fingerprint, cell.seed)
            subject.uses = frozenset(evaluator.uses)
            with kept_generators(self.options.device):
                seed_all(seed, self.options.device)
                judgement = evaluator(*_asked(subject, judge), seed % 2**31)
            common["components"] |= {
                f"data {name}": {"fingerprint": sha} for name, sha in judgement.sources.items()
            }
            known = {m.name: m for m in evaluator.metrics}
            metrics = tuple(
                MetricValue(
                    name=name,
                    value=float(v.value),
                    higher_is_better=known[name].higher_is_better if name in known else True,
                    unit=known[name].unit if name in known else "",
                    split="held-out" if judge.held_out else v.split,
                    n=v.n,
                    stderr=None if v.stderr is None else float(v.stderr),
                )
                for name, v in judgement.metrics.items()
            )
            record = Record(
                **common,
                status="ok",
                metrics=metrics,
                chosen=plain(judgement.chosen),
                warnings=tuple(Warned(code=judge.name, message=w) for w in judgement.warnings),
                costs=Costs(seconds=time.monotonic() - begun),
                finished=now(),
            )
        except Unsuited as error:
            record = Record(**common, status="skipped", sentence=str(error), finished=now())
        except UserError as error:  # files that are not there, say
            failure = _failure(error, cell, None)
            record = Record(
                **common, status="failed", sentence=str(error), error=failure, finished=now()
            )
        except Exception as error:  # noqa: BLE001 - the other judges go on
            failure = _failure(error, cell, None)
            record = Record(
                **common, status="failed", sentence=failure.message, error=failure, finished=now()
            )
        return record

    # ---- what records say ----

    def _common(self, cell: Cell) -> dict[str, Any]:
        method = self.registry.find("methods", parse_name(cell.method))
        backbone = self.registry.find("backbones", parse_name(cell.backbone).base)
        dataset = self.registry.find("datasets", parse_name(cell.dataset).base)
        data = self.data(cell.dataset)
        of = functools.partial(component, store=self.store.root)
        return {
            "cell_id": cell.id,
            "method": cell.method,
            "backbone": cell.backbone,
            "dataset": cell.dataset,
            "seed": cell.seed,
            "suite": self.options.suite,
            "hyperparameters": plain(cell.hyperparameters),
            "recipe": resolved_recipe(cell),
            "components": {
                "method": of(method, cell.version),
                "backbone": {**of(backbone, 1), "timm": metadata.version("timm")},
                "dataset": {**of(dataset, data.version), "skipped": len(data.skipped)},
            },
            "environment": environment(self.options.device),
        }

    def _costs(self, module: nn.Module, stages: list[Stage], cell: Cell) -> Costs:
        encoder = encoder_of(module)
        one = torch.zeros(1, 3, cell.size, cell.size, device=self.options.device)
        seconds = sum(s.seconds for s in stages)
        images = sum(s.images_seen for s in stages)
        return Costs(
            seconds=seconds,
            images_seen=images,
            images_per_second=images / seconds if seconds > 0 and images else None,
            parameters=sum(p.numel() for p in encoder.parameters()),
            flops=flops(encoder, one) or None,
            peak_memory_bytes=peak_memory(self.options.device),
            stages=tuple(stages),
        )


def _asked(subject: Frozen, judge: Judge) -> tuple[Any, Any]:
    """What the judge looks at: the encoder and the data, or train alone."""
    if not judge.held_out:
        return subject, JudgedData(subject.data, subject.device)
    inner = Inner(subject, subject.data)
    return inner, inner


def is_judged(records: list[Record], cell: Cell, judge: Judge) -> bool:
    from ..store import newest

    found = newest(records, "evaluation", judged_identity(cell, judge))
    return found is not None and found.status in ("ok", "skipped")


def _of_outside(cell: Cell) -> list[Warned]:
    """What a reader must know of weights that were not trained here."""
    said = "weights from outside: what they were trained on is not known here"
    return [Warned(code=parse_name(cell.method).base, message=said)] if cell.adopted else []


def resolved_recipe(cell: Cell) -> dict[str, Any]:
    """Every field, stage by stage, and the lr that scaling leads to."""
    import dataclasses

    from ..train.optim import scaled_lr

    if cell.recipe is None:
        return {}
    found = {**plain(dataclasses.asdict(cell.recipe)), "lr_scaled": scaled_lr(cell.recipe)}
    for name, (_, recipe) in cell.stages.items():
        found[name] = {**plain(dataclasses.asdict(recipe)), "lr_scaled": scaled_lr(recipe)}
    return found


def compile_backbones(method: Method) -> None:
    """In place, every backbone, never `step`."""
    from ..api import Backbone

    for module in method.modules():
        if isinstance(module, Backbone):
            module.compile()


def _failure(error: Exception, cell: Cell, where: tuple[str, int, int] | None) -> Failure:
    message = (
        f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
    )
    kind = "other"
    if isinstance(error, Diverged):
        kind = "nan"
    elif isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        sign in str(error).lower() for sign in OUT_OF_MEMORY
    ):
        kind = "oom"
        batch = f"batch {cell.recipe.batch}" if cell.recipe else "this batch"
        name = cell.method.rpartition("/")[2]
        message = (
            f"out of memory with {batch}; try --set {name}.batch=N with a smaller N, or --batch N"
        )
    stage, epoch, step = where or (None, None, None)
    trace = "".join(traceback.format_exception(error))[-8000:]
    return Failure(
        kind=kind,
        type=type(error).__name__,
        message=message[:2000],
        traceback=trace,
        stage=stage,
        epoch=epoch,
        step=step,
    )
