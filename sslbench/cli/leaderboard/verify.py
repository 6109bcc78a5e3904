"""`sslbench leaderboard verify`: judges weights of a bundle again and compares the numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import CheckFailed, UserError
from ..app import Command, State, quiet_libraries
from ..options import data_option, device_named, json_option
from ..text import count, one_line, say, say_json, say_table

if TYPE_CHECKING:
    from ...leaderboard.verify.verifying import Verdict


def cells(ctx: click.Context, param: click.Parameter, value: str | None) -> int:
    """Reads the number of cells to draw: 0 for one of each row, ALL for all."""
    from ...leaderboard.verify.verifying import ALL

    if value is None:
        return 0
    if value == "all":
        return ALL
    if not (value.isascii() and value.isdigit()) or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither a number of cells, from 1, nor all")
    return int(value)


@click.command(cls=Command)
@click.argument("bundle", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--cells",
    callback=cells,
    metavar="K|all",
    help="How many to judge again, drawn at random.  [default: one of each row]",
)
@click.option("--retrain", is_flag=True, help="Train the drawn cells again, too.")
@data_option
@click.option(
    "--device",
    default="cpu",
    callback=device_named,
    show_default=True,
    metavar="cpu|cuda|auto",
    help="Device to judge on.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write an attestation to DIR, such as the leaderboard's attestations/.",
)
@json_option
@click.pass_context
def verify(ctx: click.Context, /, bundle: Path, as_json: bool, **given: Any) -> None:
    """Judge cells of a bundle again from their weights, and compare.

    A number is accepted if it lies within its evaluator's own noise, which is measured here on
    weights that differ in their last bit. If the bundle is refused, the numbers that differ are
    printed and the exit code is 5.
    """
    from ...api import Place
    from ...data import default_roots
    from ...leaderboard.verify.verifying import VerificationRequest
    from ...leaderboard.verify.verifying import verify as verified
    from ...train.device import pick_device

    state = ctx.ensure_object(State)
    try:
        device = pick_device(given["device"])
    except (ValueError, RuntimeError) as error:
        raise UserError(f"--device: {error}") from error
    place = Place(default_roots(given["data"]))
    asked = VerificationRequest(bundle, given["cells"], given["retrain"], place, device)
    with quiet_libraries(verbose=state.verbose):
        verdict = verified(asked, state.registry, lambda line: say(line, err=True))
    written = _write(verdict, given["out"]) if given["out"] else None
    if as_json:
        say_json(verdict.attestation)
    else:
        _say(verdict)
        if written:
            say(f"written: {written}")
    if not verdict.accepted:
        raise CheckFailed(_refusal(bundle, verdict))


def _say(verdict: Verdict) -> None:
    for cell in verdict.cells:
        for found in cell.found:
            how = "the very same numbers" if not found.metrics else "inside its noise"
            if found.status != found.record.status:
                how = f"{found.status} here, was {found.record.status}: {found.sentence}"
            elif not found.inside:
                how = "OUTSIDE its noise"
            left = f"; not compared: {', '.join(found.left)}" if found.left else ""
            numbers = count(found.compared, "metric")
            title = one_line(f"{cell.planned.cell.title}, {found.record.protocol}")
            say(f"{title}: {numbers}, {one_line(how)}{left}")
        for again in cell.again:
            near = "inside" if again.inside else "OUTSIDE"
            said = f"{again.metric} {again.reported:.6g} reported, {again.found:.6g} trained again"
            say(f"{one_line(cell.planned.cell.title)}, {again.protocol}: {said}, {near}")
    rows = [
        (
            *(cell.planned.cell.method, cell.planned.cell.seed, found.record.protocol, name),
            *(f"{seen.reported:.8g}", f"{seen.found:.8g}", f"{seen.tolerance:.2g}"),
        )
        for cell in verdict.cells
        for found in cell.found
        for (name, _), seen in found.metrics.items()
        if not seen.inside
    ]
    if rows:
        heads = ("method", "seed", "protocol", "metric", "reported", "found", "tolerance")
        say_table(heads, rows)


def _refusal(bundle: Path, verdict: Verdict) -> str:
    """A sentence on why a bundle is refused: the numbers that differ most."""
    reasons = []
    for cell in verdict.cells:
        title = f"{cell.planned.cell.method} seed {cell.planned.cell.seed}"
        for found in (f for f in cell.found if not f.inside):
            outside = [(n, m) for (n, _), m in found.metrics.items() if not m.inside]
            if not outside:
                reasons.append(f"{title} {found.record.protocol} is {found.status} here")
                continue
            name, worst = max(outside, key=lambda item: abs(item[1].towards))
            more = f" and {len(outside) - 1} more metrics" if len(outside) > 1 else ""
            reasons.append(
                f"{title} {found.record.protocol} {name} is reported as {worst.reported:.6g} and "
                f"found {worst.found:.6g} (tolerance {worst.tolerance:.2g}){more}"
            )
        reasons += [
            f"{title} {a.protocol} {a.metric} is reported as {a.reported:.6g} and {a.found:.6g} "
            f"when trained again"
            for a in cell.again
            if not a.inside
        ]
    for (method, dataset, _), joint in verdict.rows.items():
        if not joint.inside:
            way = "better" if joint.shift > 0 else "worse"
            reasons.append(
                f"all metrics of {method} on {dataset} together are reported {way} than found, by "
                f"{abs(joint.shift):.1f} standard deviations of their noise ({joint.critical:.1f} "
                f"are allowed)"
            )
    more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return f"{bundle} was refused: {'; '.join(reasons[:3])}{more}"


def _write(verdict: Verdict, out: Path) -> Path:
    from ...disk import write_atomic
    from ...leaderboard.folder.attestation import file_name

    path = out / file_name(verdict.attestation)
    write_atomic(path, (json.dumps(verdict.attestation, indent=1) + "\n").encode())
    return path
