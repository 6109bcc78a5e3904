"""The training loop that all methods share. It resumes exactly where it was stopped.

It drives a method's generator `step`, applies each update to its group, lets the method change
epochs, and trains its stages.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..api import Backbone, Batch, DataInfo, Epoch, Method, Pretext, Recipe, Stream, Update, View
from ..cells.cell import Cell, derive
from ..errors import Interrupted
from ..events import EpochDone, Listener, Progress
from ..records import Stage, Warned
from ..store import CellFolder
from ..views import compiled
from .device import arithmetic, uncompiled
from .feed import Feed, Taken, kept_generators, orders, seed_all
from .health import Guard
from .optim import Optimisation
from .options import RunOptions
from .saving import Saver
from .state import frozen, resting, restore, set_frozen, set_resting, tensors_of
from .tally import Tally

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}  # precisions of autocast


@dataclass
class Session:
    """What the training of one cell needs, and what it has found so far."""

    cell: Cell
    folder: CellFolder
    feed: Feed
    info: DataInfo
    device: torch.device
    pretrain: Callable[[Cell], tuple[Method, list[Stage]]]  # another cell, trained or loaded
    listener: Listener = lambda event: None
    stop: Callable[[], bool] = lambda: False
    watch: Callable[[Method], Mapping[str, float]] | None = None
    hidden: Tensor | None = None  # [N], labels that the method may not see, -1 where nobody knows
    how: RunOptions = field(default_factory=RunOptions)
    stages: list[Stage] = field(default_factory=list)  # finished ones, in order
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    warnings: list[Warned] = field(default_factory=list)  # verdicts on finished fits, in order
    where: tuple[str, int, int] = ("", 0, 0)  # stage, epoch, step: for the record of a failure

    @property
    def origin(self) -> tuple[str, int]:
        return (self.cell.fingerprint, self.cell.seed)

    def reseed(self, *parts: Any) -> None:
        seed_all(derive(self.cell.id, *parts), self.device)


@dataclass
class _At:
    """The current epoch and its next step."""

    epoch: Epoch
    step: int = 0


class Loop:
    """Trains one method, or one stage of it; the `run` that `fit` is given."""

    def __init__(
        self, session: Session, method: Method, recipe: Recipe, path: str = "main"
    ) -> None:
        self.session, self.method, self.recipe, self.path = session, method, recipe, path
        self.steps = len(session.feed) // recipe.batch
        self.optimisation = Optimisation(method, recipe, steps_per_epoch=max(self.steps, 1))
        self.views = _views(method)
        if session.how.compile:
            self.views = {name: compiled(view) for name, view in self.views.items()}
        self.seconds, self.images = 0.0, 0
        self.curves: dict[str, list[tuple[float, float]]] = {}
        self.guard = Guard(method, epochs=recipe.epochs, steps=self.steps, batch=recipe.batch)
        self.scaler = torch.amp.GradScaler(
            session.device.type, enabled=session.cell.precision == "fp16"
        )
        self.saver = Saver(session.folder)
        self.tally = Tally(path, session.device)
        self._groups: dict[str, list[nn.Parameter]] = {}  # of the method, asked once an epoch
        self._stepped = False
        self.optimisation.on_step(self._note_step)
        self._at: _At | None = None
        self._watched = 0  # epochs done when somebody last watched
        self._used = False
        self._fits: set[str] = set()
        self._clock = self._saved = self._shown = time.monotonic()
        self._start = (0.0, 0)  # seconds and images when this process took over

    # ---- what a method is lent ----

    def epochs(self, method: Method) -> Iterator[Epoch]:
        if method is not self.method:
            raise ValueError(
                "run.epochs trains the method it was given to; a stage goes to run.fit"
            )
        if self._used:
            raise ValueError("run.epochs may be called once in a fit; declare a stage for more")
        self._used = True
        self._resume()
        self._tick()
        self._start = (self.seconds, self.images)  # what went before is not the speed of training
        first = 0
        if self._at:
            first = self._at.epoch.number + 1
            self._finish_epoch()
        for number in range(first, self.recipe.epochs):
            epoch = Epoch(number)
            self.method.train()
            self.session.reseed(self.path, number, "body")
            self._at = None
            self.session.where = (self.path, number, 0)
            yield epoch
            self._at, self.tally.sums = _At(epoch), {}
            self._finish_epoch()
        self._save()
        self.session.reseed(self.path, "end")

    def fit(self, method: Method, name: str) -> None:
        if name not in type(self.method).stages:
            raise ValueError(
                f"stage {name!r} is not declared in {type(self.method).__name__}.stages"
            )
        if name in self._fits:
            raise ValueError(f"stage {name!r} may be fitted only once")
        if self.path != "main":
            raise ValueError(f"stage {self.path!r} cannot have stages of its own")
        self._fits.add(name)
        flags, modes = frozen(method), resting(method)
        with self._paused(), kept_generators(self.session.device):
            fit_stage(self.session, method, self.session.cell.stages[name][1], name)
        set_frozen(method, flags)
        set_resting(method, modes)

    def pretrain(self, name: Pretext, into: Backbone | None = None) -> Method:
        cell = self.session.cell.pretexts.get(name)
        if cell is None:
            raise ValueError(f"{name!r} is not a hyperparameter of type Pretext of this method")
        with self._paused(), kept_generators(self.session.device):
            method, stages = self.session.pretrain(cell)
        encoder = method.encoder()
        if into is not None:
            if not isinstance(encoder, Backbone):
                raise ValueError(
                    f"the encoder of pretext {name!r} is not a bare backbone, its weights fit nowhere "
                    f"else; choose a pretext whose encoder is its backbone"
                )
            restore(into, tensors_of(encoder), what=f"the encoder of pretext {name!r}")
        for stage in stages:
            own = str(name) if stage.name == "main" else f"{name}.{stage.name}"
            self.session.stages.append(stage.model_copy(update={"name": own, "reused": True}))
        return method.requires_grad_(False).eval()

    def features(self, encoder: Callable[[Tensor], Tensor]) -> Tensor:
        modules = [self.method] + ([encoder] if isinstance(encoder, nn.Module) else [])
        modes = [(m, resting(m)) for m in modules]
        try:
            for m in modules:
                m.eval()
            with kept_generators(self.session.device), uncompiled(self.method):
                return encode(encoder, self.session.feed, self.session.device)
        finally:
            for m, names in modes:
                set_resting(m, names)

    def labels(self) -> Tensor:
        return self.session.feed.labels

    def clips(self) -> Tensor:
        if self.session.feed.clips is None:
            raise ValueError("the images are no frames of clips; let `needs` refuse such data")
        return self.session.feed.clips

    def domains(self) -> Tensor:
        if self.session.feed.domains is None:
            raise ValueError("the images are of one domain; let `needs` refuse such data")
        return self.session.feed.domains

    def reset(self, module: nn.Module) -> None:
        for m in module.modules():
            if callable(again := getattr(m, "reset_parameters", None)):
                again()
        self.optimisation.forget(module)

    # ---- one epoch ----

    def _finish_epoch(self) -> None:
        """Trains from the current step to the end of the epoch."""
        at = self._at
        assert at is not None
        if at.step < self.steps:
            drawn = orders(
                at.epoch,
                len(self.session.feed),
                steps=self.steps,
                batch=self.recipe.batch,
                origin=self.session.origin,
            )
            self._groups = {name: list(own) for name, own in self.method.groups().items()}
            with contextlib.closing(self.session.feed.batches(drawn, at.step)) as batches:
                for taken in batches:
                    self._train_step(at, taken)
                    at.step += 1
                    self._after_step(at)
        self.tally.look()
        self._end_epoch(at)

    def _train_step(self, at: _At, taken: Mapping[str, Taken]) -> None:
        number, step = at.epoch.number, at.step
        self.session.where = (self.path, number, step)
        seen = number * self.steps + step
        self.optimisation.set(seen)
        self.session.reseed(self.path, number, step)
        batch = self._batch(at.epoch, taken, seen / (self.recipe.epochs * self.steps))
        self.guard.before(seen, len(batch.index))
        self._advance(batch, at)

    def _batch(self, epoch: Epoch, taken: Mapping[str, Taken], progress: float) -> Batch:
        feed = self.session.feed
        made: dict[str, Batch] = {}
        for name, (images, index, labelled) in taken.items():
            view = self.views.get(name, self.views["main"])
            with torch.no_grad():
                views = view(images)
            labels = feed.labels.index_select(0, index)
            made[name] = Batch(views, index, labels, epoch.number, progress, labelled=labelled)
            self.images += len(index)
        main = made.pop("main", None)
        if main is None:
            nothing = torch.empty(0, dtype=torch.long, device=feed.device)
            main = Batch(None, nothing, nothing, epoch.number, progress)
        return main._replace(also=made) if made else main

    def _advance(self, batch: Batch, at: _At) -> None:
        """Runs the method's `step`, with an optimiser step after each yield."""
        step = self.method.step(batch)
        if not inspect.isgenerator(step):
            raise TypeError(
                f"{type(self.method).__name__}.step returned a {type(step).__name__}; it must be a "
                f"generator: `yield loss` instead of `return loss`"
            )
        answer: bool | None = None
        while True:
            try:
                with self._autocast():
                    yielded: Any = step.send(answer)  # type: ignore[arg-type]  # None starts it
                    self._check_modes()
            except StopIteration:
                return
            if answer is None:
                self.guard.at_loss()
            update = yielded if isinstance(yielded, Update) else Update(yielded)
            answer = self._apply(update, at)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        dtype = HALF.get(self.session.cell.precision)
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.session.device.type, dtype=dtype)

    def _check_modes(self) -> None:
        name = type(self.method).__name__
        if not torch.is_grad_enabled():
            torch.set_grad_enabled(True)
            raise RuntimeError(
                f"{name}.step yielded inside torch.no_grad(): close that block before the yield"
            )
        ours = self.session.cell.precision in HALF
        if torch.is_autocast_enabled(self.session.device.type) != ours:
            torch.set_autocast_enabled(self.session.device.type, ours)
            raise RuntimeError(
                f"{name}.step yielded inside an autocast block of its own: close it before the yield"
            )

    def _apply(self, update: Update, at: _At) -> bool:
        """Backpropagates into the group and steps the optimiser; returns whether it stepped."""
        loss = update.loss
        if not isinstance(loss, Tensor) or loss.dim() != 0:
            shown = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"{loss!r}"
            raise TypeError(f"{type(self.method).__name__}.step yielded {shown}, not a scalar loss")
        of = type(self.method).__name__
        if update.guesses is not None:
            self.tally.judge(update.guesses, self.session.hidden)
        self.tally.note(update, epoch=at.epoch.number, step=at.step, of=of)
        if update.group not in self._groups:
            raise ValueError(
                f"step yielded an update for group {update.group!r}; "
                f"groups() has {sorted(self._groups)}"
            )
        parameters = [p for p in self._groups[update.group] if p.requires_grad]
        if not parameters or not loss.requires_grad:
            return False
        self.scaler.scale(loss).backward(inputs=parameters)  # type: ignore[no-untyped-call]
        if self.recipe.clip is not None:
            self.scaler.unscale_(self.optimisation.optimizer)
            self.optimisation.clip(parameters)
        self._stepped = False
        self.scaler.step(self.optimisation.optimizer)  # not where a gradient is infinite
        self.guard.touched()
        self.optimisation.optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        return self._stepped

    def _note_step(self) -> None:
        self._stepped = True

    # ---- between steps and epochs ----

    def _after_step(self, at: _At) -> None:
        now = time.monotonic()
        if now - self._shown > 0.25:
            self._shown = now
            self.session.listener(
                Progress(
                    self.session.cell.id,
                    self.path,
                    at.epoch.number,
                    self.recipe.epochs,
                    at.step,
                    self.steps,
                    self.tally.means().get("loss"),
                    self._speed(),
                )
            )
        stopping = self.session.stop()
        if stopping or now - self._saved > self.session.how.checkpoint_seconds:
            self.tally.look()
            self._save()
        if stopping:
            raise Interrupted(f"{self.path}, epoch {at.epoch.number}, step {at.step}")

    def _end_epoch(self, at: _At) -> None:
        number = at.epoch.number + 1
        means = self.tally.means()
        for key, value in means.items():
            curve = self.curves.setdefault(key, [])
            if not curve or curve[-1][0] < number:
                curve.append((float(number), value))
        watched = self._watch(number)
        speed = self._speed()
        logged = {**means, **watched, **({} if speed is None else {"images/s": speed})}
        self.session.folder.log(
            f"{self.path} epoch {number}/{self.recipe.epochs} "
            + " ".join(f"{k} {v:.6g}" for k, v in logged.items())
        )
        self.session.listener(
            EpochDone(
                self.session.cell.id,
                self.path,
                number,
                self.recipe.epochs,
                means.get("loss"),
                speed,
                tuple(watched.items()),
            )
        )
        # A checkpoint between epochs is the cheapest to resume from. The wait keeps short epochs
        # from spending most of their time on saving.
        if time.monotonic() - self._saved > min(5.0, self.session.how.checkpoint_seconds):
            self._save()

    def _watch(self, number: int) -> dict[str, float]:
        session = self.session
        asked = session.how.watch
        if session.watch is None or asked is None or self.path != "main" or number % asked.every:
            return {}
        if number <= self._watched:
            return {}  # resumed after it
        self._watched = number
        names = resting(self.method)
        with self._paused(), kept_generators(session.device), uncompiled(self.method):
            self.method.eval()
            seen = dict(session.watch(self.method))
        set_resting(self.method, names)
        for key, value in seen.items():
            self.curves.setdefault(key, []).append((float(number), value))
        return seen

    # ---- time ----

    def _speed(self) -> float | None:
        self._tick()
        seconds, images = self.seconds - self._start[0], self.images - self._start[1]
        return images / seconds if seconds > 0 else None

    def _tick(self) -> None:
        now = time.monotonic()
        self.seconds += now - self._clock
        self._clock = now

    @contextlib.contextmanager
    def _paused(self) -> Iterator[None]:
        """Stops the clock while something else runs, such as a pretext or an evaluator."""
        self._tick()
        try:
            yield
        finally:
            self._clock = time.monotonic()

    # ---- checkpoints ----

    @property
    def _file(self) -> str:
        return f"resume-{self.path}"

    def _save(self) -> None:
        self._tick()
        self.tally.look()
        at = self._at
        optimiser, settings = self.optimisation.state()
        tensors = {f"method/{k}": v for k, v in tensors_of(self.method).items()}
        tensors |= {f"optimiser/{k}": v for k, v in optimiser.items()}
        guarded, seen = self.guard.state()
        tensors |= {f"guard/{k}": v for k, v in guarded.items()}
        plain: dict[str, Any] = {
            "optimiser": settings,
            "frozen": frozen(self.method),
            "resting": resting(self.method),
            "guard": seen,
            "curves": self.curves,
            "seconds": self.seconds,
            "images": self.images,
            "last_finite": self.tally.last_finite,
            "watched": self._watched,
            "not_finite": self.tally.not_finite,
            "scaler": self.scaler.state_dict(),
            "at": None,
        }
        if at:
            plain["at"] = {
                "number": at.epoch.number,
                "main": at.epoch.main,
                "step": at.step,
                "sums": self.tally.sums,
                "streams": [
                    [name, s.batch, s.share] for name, s in at.epoch.streams.items()
                ],  # in order
            }
            if at.epoch.weights is not None:
                tensors["epoch/weights"] = at.epoch.weights
            held = set()  # streams may share memory, which a file takes once
            for name, s in at.epoch.streams.items():
                memory = s.pool.untyped_storage().data_ptr()
                tensors[f"stream/{name}"] = s.pool.clone() if memory in held else s.pool
                held.add(memory)
        self.saver.save(self._file, tensors, plain)
        self._saved = time.monotonic()

    def _resume(self) -> None:
        """Resumes from the checkpoint of this loop, if there is a sound one."""
        found = self.session.folder.load(self._file)
        if found is None:
            self.guard.begin()
            return
        tensors, plain = found
        restore(self.method, _under(tensors, "method/"), what="the checkpoint")
        self.optimisation.load(_under(tensors, "optimiser/"), plain["optimiser"])
        set_frozen(self.method, plain["frozen"])
        set_resting(self.method, plain["resting"])
        self.guard.load(_under(tensors, "guard/"), plain["guard"])
        self.curves = {k: [(x, y) for x, y in v] for k, v in plain["curves"].items()}
        self.seconds += plain["seconds"]
        self.images = plain["images"]
        self.tally.last_finite = plain["last_finite"]
        self._watched = plain["watched"]
        self.tally.not_finite = plain.get("not_finite", {})  # older checkpoints lack it
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(plain["scaler"])
        if plain["at"]:
            self._at = _At(
                Epoch(
                    plain["at"]["number"],
                    plain["at"]["main"],
                    tensors.get("epoch/weights"),
                    {
                        k: Stream(tensors[f"stream/{k}"], *size)
                        for k, *size in plain["at"]["streams"]
                    },
                ),
                plain["at"]["step"],
            )
            self.tally.sums = {k: [t, n] for k, (t, n) in plain["at"]["sums"].items()}
            self.session.folder.log(f"resumed {self.path} at epoch {plain['at']['number']}")

    def finished(self) -> Stage:
        """Ends the fit: adds its curves and warnings to the session, and returns its cost."""
        self.saver.wait()
        self._tick()
        prefix = "" if self.path == "main" else f"{self.path}."
        self.session.curves |= {prefix + key: curve for key, curve in self.curves.items()}
        self.session.warnings += self.guard.verdicts(self.curves.get("loss", []), prefix)
        self.session.warnings += [
            Warned(
                code="logged-not-finite",
                message=f"{prefix}{name} was not finite {times} times; its curve leaves them out",
            )
            for name, times in self.tally.not_finite.items()
        ]
        return Stage(name=self.path, seconds=self.seconds, images_seen=self.images)


def fit_main(session: Session, method: Method, recipe: Recipe) -> None:
    """Fits the method of a cell."""
    loop = Loop(session, method, recipe)
    session.reseed("main", "fit")
    with contextlib.closing(loop.saver), arithmetic(session.cell.precision):
        method.fit(loop)
        session.stages.append(loop.finished())


def fit_stage(session: Session, method: Method, recipe: Recipe, path: str) -> None:
    """Fits a private stage, or loads it when it is finished."""
    name = f"stage-{path}"
    done = session.folder.load(name)
    if done is not None:
        tensors, plain = done
        restore(method, tensors, what=f"stage {path}")
        session.stages += [Stage.model_validate(s) for s in plain["stages"]]
        session.curves |= {k: [(x, y) for x, y in v] for k, v in plain["curves"].items()}
        session.warnings += [Warned.model_validate(w) for w in plain["warnings"]]
        return
    before = len(session.stages), set(session.curves), len(session.warnings)
    loop = Loop(session, method, recipe, path)
    session.reseed(path, "fit")
    with contextlib.closing(loop.saver), arithmetic(session.cell.precision):
        method.fit(loop)
        session.stages.append(loop.finished())
    session.folder.save(
        name,
        tensors_of(method),
        {
            "stages": [s.model_dump() for s in session.stages[before[0] :]],
            "curves": {k: v for k, v in session.curves.items() if k not in before[1]},
            "warnings": [w.model_dump() for w in session.warnings[before[2] :]],
        },
    )
    session.folder.remove(f"resume-{path}")


@torch.no_grad()
def encode(
    encoder: Callable[[Tensor], Tensor], feed: Feed, device: torch.device, batch: int = 512
) -> Tensor:
    """Encodes all images without augmentation: float32 [N, D] on the CPU."""
    parts = []
    for start in range(0, len(feed), batch):
        index = torch.arange(start, min(start + batch, len(feed)))
        parts.append(encoder(feed.take(index).float() / 255).float().cpu())  # [B, D]
    return torch.cat(parts)


def _views(method: Method) -> dict[str, View]:
    views = method.views()
    if not isinstance(views, Mapping):
        return {"main": views}
    found = dict(views)
    if "main" not in found:
        raise ValueError(f"{type(method).__name__}.views() returned a mapping without 'main'")
    return found


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
