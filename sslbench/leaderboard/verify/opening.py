"""Opens a bundle and checks its files, the data here, and whether its cells are the suite's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...cells.identity import Identity, JudgedIdentity
from ...cells.protocol import judged_identity
from ...cells.rebuilt import cell_from
from ...errors import CheckFailed
from ...plan.plan import Planned
from ...plan.planning import make_plan
from ...plan.selection import Selection
from ...records import Record, canonical, differences
from ...store import Store, newest
from ...store.tensors import Damaged, digest_of, read_tensors
from ...train.options import RunOptions
from ..folder.folder import SUITE, Leaderboard, read
from ..folder.validate import Finding, refused, validate
from .bundle import has_weights, manifest_of, model_name
from .unpack import unpack

if TYPE_CHECKING:
    from torch import Tensor

    from ...api import Place
    from ...plugins import Registry

SHOWN = 3  # differences that a refusal names


class Invalid(CheckFailed):
    """The bundle's own files contradict one another."""

    def __init__(self, bundle: Path, findings: Sequence[Finding]) -> None:
        self.findings = findings
        errors = [f for f in findings if f.level == "error"]
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        super().__init__(
            f"{bundle} was refused before anything was judged: {errors[0].file}: "
            f"{errors[0].sentence}{more}"
        )


@dataclass(frozen=True)
class Opened:
    """An unpacked bundle whose files agree with each other."""

    bundle: Path
    folder: Leaderboard
    store: Store  # with its records

    def refusal(self, why: str) -> CheckFailed:
        return CheckFailed(f"{self.bundle} was refused: {why}")

    def weights(self, record: Record) -> dict[str, Tensor] | None:
        """Weights of a cell's model; None if they follow from its identity."""
        if not has_weights(Identity(record.identity)):
            return None
        path = self.folder.root / model_name(record.cell_id)
        title = f"{record.method} seed {record.seed} ({record.cell_id[:12]})"
        if not path.is_file():
            raise self.refusal(f"it has no model of {title}, so nothing can be judged again")
        try:
            tensors = read_tensors(path, cell=record.cell_id)[0]
        except Damaged as error:
            raise self.refusal(f"the model of {title} is damaged: {error}") from error
        if record.weights and digest_of(tensors) != record.weights.get("model"):
            raise self.refusal(f"the model of {title} is not that of its record")
        return tensors


def open_bundle(bundle: Path, scratch: Path) -> Opened:
    """Unpacks a bundle and checks its own files.

    Raises:
        CheckFailed: the bundle contradicts itself.
        UserError: it cannot be read.
    """
    root = scratch / "bundle"
    root.mkdir()
    manifest = unpack(bundle, root)
    findings = validate(root, locked=False)
    if refused(findings):
        raise Invalid(bundle, findings)
    folder = read(root)
    store = Store(scratch / "store")
    store.create()
    for record in folder.records:
        cell = store.cell(record.cell_id)
        if record.kind == "train":
            cell.write_identity(record.identity)
        cell.add(record)
    opened = Opened(bundle, folder, store)
    meant = manifest_of(folder, manifest["files"])
    for name in meant:
        if canonical(manifest.get(name)) != canonical(meant[name]):
            raise opened.refusal(f"its manifest and its records disagree on {name}")
    return opened


def check_data(opened: Opened, fingerprints: Mapping[str, str]) -> None:
    """CheckFailed unless the data here is what the cells were trained on."""
    for record in opened.folder.records:
        if record.kind != "train":
            continue
        theirs, here = Identity(record.identity).fingerprint, fingerprints[record.dataset]
        if here != theirs:
            raise opened.refusal(
                f"{record.method} seed {record.seed} is of {record.dataset} with fingerprint "
                f"{theirs}, the one here has {here}"
            )


def cells_of(opened: Opened, registry: Registry, place: Place) -> list[Planned]:
    """The finished cells as plans; CheckFailed if the suite here asks for other cells or evaluators.

    If the suite tunes, the settings that its trials chose are not in the bundle. Then each cell is
    rebuilt from its identity.
    """
    records = [r for r in opened.folder.records if r.kind == "train" and r.status == "ok"]
    suite = opened.folder.suite
    whole = opened.store.root / SUITE
    whole.write_text(replace(suite, tuning=None).as_yaml())
    options = Selection(
        suite=str(whole),
        methods=tuple(dict.fromkeys(r.method for r in records if r.method not in suite.baselines)),
        store=opened.store.root,
        place=place,
        how=RunOptions(train=False),
    )
    planned = {p.cell.id: p for p in make_plan(options, registry, preflight=False).cells}
    found = []
    for record in records:
        if record.cell_id not in planned and suite.tuning:
            like = next(p for p in planned.values() if _alike(p, record))
            found.append(_tuned(opened, record, like, registry))
        elif record.cell_id not in planned:
            raise opened.refusal(_foreign(record, planned.values()))
        else:
            found.append(planned[record.cell_id])
        _check_judges(opened, found[-1])
    return found


def _alike(planned: Planned, record: Record) -> bool:
    return (planned.cell.method, planned.cell.seed) == (record.method, record.seed)


def _tuned(opened: Opened, record: Record, like: Planned, registry: Registry) -> Planned:
    """The plan of a record's cell, rebuilt from its identity, with the evaluators of `like`."""
    cell = replace(cell_from(Identity(record.identity), registry), dataset=record.dataset)
    records = opened.store.cell(cell.id).records()
    judges = tuple(
        replace(each, record=newest(records, "evaluation", judged_identity(cell, each.judge)))
        for each in like.judges
    )
    return replace(like, cell=cell, judges=judges, train=record)


def _foreign(record: Record, planned: Iterable[Planned]) -> str:
    """How a cell differs from the most similar one that the suite asks for."""
    alike = [p.cell.identity() for p in planned if p.cell.method == record.method]
    found = [_differing(record.identity, each) for each in alike]
    nearest = min(found, key=len, default=[])
    said = f": {'; '.join(nearest[:SHOWN])}" if nearest else ""
    return (
        f"{record.method} seed {record.seed} ({record.cell_id[:12]}) is not the cell that its "
        f"suite asks for{said}"
    )


def _check_judges(opened: Opened, planned: Planned) -> None:
    records = opened.store.cell(planned.cell.id).records()
    said = {r.evaluator: r for r in records if r.kind == "evaluation"}
    for each in planned.judges:
        other = said.get(each.judge.name)
        if each.record is None and other is not None:
            differs = _differing(JudgedIdentity(other.identity).evaluator, each.judge.identity())
            raise opened.refusal(
                f"{planned.cell.title} was judged by {other.protocol}, which differs here: "
                f"{'; '.join(differs[:SHOWN])}"
            )


def _differing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    return [
        f"{path} is {theirs!r}, {ours!r} is asked for"
        for path, theirs, ours in differences(theirs, ours)
    ]
