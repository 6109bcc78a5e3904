"""How many labels a budget is, of the data at hand."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import UserError
from ..names import check_budget


def labels_in(budget: int | str, sizes: Sequence[int], name: str, *, target: bool = False) -> int:
    """How many labels a budget is, of classes that have `sizes` labels to show.

    target: whether they are of a target domain, whose source shows its labels: then 0 will do.

    It is spread over the classes as evenly as possible: of 42 labels, two of ten classes get five.

    Raises:
        UserError: the data `name` has not as many, or it is less than one label a class.
    """
    budget = check_budget(budget, or_none=target)
    total, classes = sum(sizes), len(sizes)
    if classes < 2:
        raise UserError(f"{name} has {classes} classes, and a few labels are to tell some apart")
    if budget == 0:
        return 0
    if isinstance(budget, str) and budget.endswith("/class"):
        each = int(budget.removesuffix("/class"))
        if each > min(sizes):
            raise UserError(
                f"{name}: a label budget of {budget} was asked for, and its smallest class has "
                f"{min(sizes):,} labels to show; ask for {min(sizes)}/class, or for a number of labels"
            )
        return each * classes
    if isinstance(budget, str) and budget.endswith("%"):
        count = round(float(budget.removesuffix("%")) / 100 * total)
    else:
        count = total if budget == "all" else int(budget)
    if not classes <= count <= total:
        is_said = f" ({count:,} labels)" if isinstance(budget, str) else ""
        raise UserError(
            f"{name}: a label budget of {budget}{is_said} was asked for; it has {classes} classes, one "
            f"label of each at least, and {total:,} labels that can be given"
        )
    return count
