"""Says how long a plan will go on, from how long its cells took so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...records import Record
from .cells import Seen

Known = Mapping[str, Sequence[float]]  # seconds that cells took, by method


def to_go(cells: Sequence[Seen]) -> float | None:
    """Seconds until all is done, with as many cells at work as now; None where that is not known."""
    known = _known(cells)
    left = [_left(each, known) for each in cells if each.planned.open]
    if not left:
        return 0.0
    at_work = sum(each.at_work for each in cells)
    told = [seconds for seconds in left if seconds is not None]
    return sum(told) / at_work if at_work and len(told) == len(left) else None


def own_left(seen: Seen) -> float | None:
    """Seconds of training that a cell at work has before it, by its own pace; None: not known."""
    training = seen.training
    if not seen.at_work or seen.planned.finished or training is None or training.pace is None:
        return None
    epochs = seen.epochs - sum(training.done.values())
    return max(0.0, epochs * training.pace - (seen.age or 0.0))


def _left(seen: Seen, known: Known) -> float | None:
    """Seconds that a cell has before it: by its own pace, or as its method's others, or as all."""
    own = own_left(seen)
    if own is not None:
        return own
    times = known.get(seen.planned.cell.method) or [t for each in known.values() for t in each]
    return (1 - seen.share) * sum(times) / len(times) if times else None


def _known(cells: Sequence[Seen]) -> Known:
    """The time of cells that are done, and of those at work by their pace."""
    found: dict[str, list[float]] = {}
    for each in cells:
        own, training = found.setdefault(each.planned.cell.method, []), each.training
        if each.planned.finished:
            records = [each.planned.train, *(judge.record for judge in each.planned.judges)]
            own.append(sum(map(_spent, records)))
        elif each.at_work and training is not None and training.pace is not None:
            own.append(each.epochs * training.pace)
    return found


def _spent(record: Record | None) -> float:
    """Seconds of a record, without pretexts, which are cells of their own."""
    if record is None or record.costs is None:
        return 0.0
    reused = sum(stage.seconds for stage in record.costs.stages if stage.reused)
    return max(0.0, record.costs.seconds - reused)
