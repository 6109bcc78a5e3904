"""What methods share that learn on a source for a target."""

from __future__ import annotations

from torch import Tensor

from ..api import DataInfo, Run, Stream
from .labels import one_class


def reversed_gradient(x: Tensor, weight: float = 1.0) -> Tensor:
    """The same numbers, whose gradient comes back times -weight (arXiv 1505.07818)."""
    x = x.view_as(x)
    if x.requires_grad:
        x.register_hook(lambda gradient: gradient * -weight)  # type: ignore[no-untyped-call]
    return x


def by_domain(run: Run, *, target: float) -> dict[str, Stream]:
    """Streams of domain adaptation, each of as many images a step as the main batch would have.

    "source" has its images that show labels, "labelled" those of the target, unless there are none,
    and "target" its other images, `target` times as many; 0 leaves it out.
    """
    shown, own = run.labels().cpu() >= 0, run.domains() == 1
    found = {"source": Stream((shown & ~own).nonzero()[:, 0])}
    if (shown & own).any():
        found["labelled"] = Stream((shown & own).nonzero()[:, 0])
    if target:
        found["target"] = Stream((~shown & own).nonzero()[:, 0], share=target)
    return found


def of_one_domain(data: DataInfo) -> str | None:
    """Why data are of no use to what learns on a source for a target; None where they are."""
    if data.domains < 2:
        return (
            f"it learns on a source for a target, and the images of {data.name} are of one domain; "
            "take data of two"
        )
    return one_class(data)
