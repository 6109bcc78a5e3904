"""Mean corruption error (mCE): a cell's errors under corruption, divided by a reference's.

CIFAR has no standard reference, so a method of the same table is taken, on the same seed. The
metric carries its name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ...records import MetricValue, Record
from .. import statistics
from .member import Member, judged_as


def normalised(members: Sequence[Member], reference: str) -> tuple[list[Member], list[str]]:
    """Adds the metric `mce(REFERENCE)` to members where both have errors; returns notes too.

    It is the mean over 15 corruptions of a cell's error, over all severities, divided by the
    reference's (arXiv 1903.12261, with this reference in place of AlexNet). 1 is as bad as the
    reference.
    """
    held = {_place(m): m for m in members if m.method == reference}
    found = [_judged(m, held.get(_place(m)), reference) for m in members]
    if all(new is old for new, old in zip(found, members, strict=True)):
        return found, []
    note = (
        f"mce({reference}): the mean over 15 corruptions of the error divided by that of {reference} "
        "on the same seed"
    )
    return found, [note]


def _place(member: Member) -> tuple[str, ...]:
    """What two cells must share for their errors to be of the same images."""
    return member.dataset, member.known.fingerprint or "", member.backbone, str(member.seed)


def _judged(member: Member, reference: Member | None, name: str) -> Member:
    if reference is None:
        return member
    evaluations = dict(member.evaluations)
    for judge, record in member.evaluations.items():
        value = _mce(record, reference.evaluations.get(judge))
        if value is not None and record is not None:
            more = MetricValue(name=f"mce({name})", value=value, higher_is_better=False, unit="1")
            evaluations[judge] = record.model_copy(update={"metrics": (*record.metrics, more)})
    if evaluations == member.evaluations:
        return member
    return dataclasses.replace(member, evaluations=evaluations)


def _mce(own: Record | None, other: Record | None) -> float | None:
    from ...corruptions import BENCHMARK

    if own is None or other is None or judged_as(own) != judged_as(other):
        return None
    if own.metric("mean15") is None:
        return None  # it adapts to the corruption: the literature has no mCE of that
    pairs = [(own.metric(name), other.metric(name)) for name in BENCHMARK]
    if any(a is None or b is None or b.value >= 1 for a, b in pairs):
        return None  # errors are missing, or the divisor is 0
    return statistics.mean([(1 - a.value) / (1 - b.value) for a, b in pairs if a and b])
