"""Fits the tensors of a file onto a backbone: matches names, and reports what does not fit."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...api import Backbone
from ...errors import UserError
from ...store.tensors import digest_of
from ...train.state import tensors_of
from .layouts import COMPILED, LAYOUTS
from .reading import PICKLED, Saved, listed

PREFIX = "external:"  # with the name of the weights this is the name of the method
CALLED = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
COUNTERS = "num_batches_tracked"  # of batch norms; unused once trained
OUT = "-"  # in place of a new name it leaves tensors out
PREFERRED = (  # of several networks in a file, the one that its method's authors judge
    *("encoder_q", "online_encoder", "online", "teacher", "teacher_embedding_model"),
    *("backbone", "model", "state_dict"),
)
PLACED = ("pos_embed", "relative_position_bias_table")  # their length depends on the image's side
SMALL = "-small"


@dataclass(frozen=True)
class WeightsRequest:
    """A request to take in a file of weights, and how to read it."""

    file: Path
    backbone: str
    name: str = ""  # "": the file's own
    keys: str = ""  # OLD=NEW,...
    resize_positions: bool = False  # of a ViT for images of another side
    mean: tuple[float, ...] = ()  # (): that of the file, or else of the backbone
    std: tuple[float, ...] = ()

    @property
    def method(self) -> str:
        name = self.name or _name_of(self.file)
        if not CALLED.fullmatch(name):
            raise UserError(
                f"--name {name!r} cannot be a name in a table: up to 64 letters, digits, '-', '_' "
                f"and '.', with a letter or digit at both ends"
            )
        return PREFIX + name


@dataclass(frozen=True)
class Fitted:
    """A backbone's tensors, and lines that say how they were found."""

    state: Mapping[str, Tensor]
    lines: tuple[str, ...]
    warnings: tuple[str, ...] = ()  # what its record must say

    @property
    def sha256(self) -> str:
        return digest_of(self.state)


def _name_of(file: Path) -> str:
    """A name for weights, made from their file's."""
    name = file.name
    while Path(name).suffix.lower() in (*PICKLED, ".safetensors"):
        name = Path(name).stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-_.")[:64].strip("-_.") or "weights"


# ---- fitting ---------------------------------------------------------------------------------


def fit(saved: Sequence[Saved], backbone: Backbone, asked: WeightsRequest) -> Fitted:
    """Finds a tensor in the file for every one of the backbone.

    Raises:
        UserError: tensors are missing, have another shape, or have no place in the backbone.
    """
    own = backbone.net.state_dict()
    named, prefix, lines = _named(saved, own, asked)
    named, resized = _resized(named, backbone, asked)
    taken = {name: each for name, each in named.items() if name in own}
    _check_fit(named, own, backbone, asked, prefix)
    state = dict(tensors_of(backbone))
    for name, each in taken.items():
        state[f"net.{name}"] = each.tensor.to(own[name].dtype)
    if broken := [n for n, t in state.items() if t.is_floating_point() and not t.isfinite().all()]:
        raise UserError(f"{asked.file} holds NaN or infinity in {listed(broken)}: nothing to judge")
    used = {each.whole for each in taken.values()}
    said, beside = _normalisation(state, saved, prefix, asked)
    left = [each.whole for each in saved if each.whole not in used | beside]
    under = f" under {prefix!r}" if prefix else ""
    lines.insert(
        0, f"all {len(taken)} tensors of {backbone.name} found{under}, of {len(saved)} in the file"
    )
    if left:
        lines.append(f"left out: {_grouped(left, prefix)}")
    return Fitted(state, (*lines, *resized, said), tuple(resized))


def _named(
    saved: Sequence[Saved], own: Mapping[str, Tensor], asked: WeightsRequest
) -> tuple[dict[str, Saved], str, list[str]]:
    """Tensors by name, the prefix that was removed from all names, and lines about the choice."""
    rules = _rules(asked.keys)
    pairs = [(new, each) for each in saved if (new := _replaced(each, rules)) is not None]
    ruled = {each.whole for new, each in pairs if new != each.whole}
    pairs, layout = _in_our_names(pairs, own)
    # names that --keys gave win over those found by themselves
    renamed = [new for new, each in pairs if each.whole in ruled]
    prefix, lines = _prefix(renamed or [new for new, _ in pairs], own, asked)
    lines = [f"its names are those of {layout}", *lines] if layout else lines
    named: dict[str, Saved] = {}
    for whole, each in pairs:
        if not whole.startswith(prefix):
            continue
        name = whole.removeprefix(prefix)
        if name in named and name in own:
            raise UserError(
                f"two tensors of {asked.file} are {name}: {named[name].whole} and {each.whole}; "
                f"say in --keys which, such as {each.whole.removesuffix(name)}="
            )
        named[name] = each
    return named, prefix, lines


def _in_our_names(
    pairs: Sequence[tuple[str, Saved]], own: Mapping[str, Tensor]
) -> tuple[list[tuple[str, Saved]], str]:
    """The names in the layout by which most are the backbone's, and what that layout is called."""
    plain = [(name.replace(COMPILED, ""), each) for name, each in pairs]
    best, called = plain, ""
    most = max(_counts([name for name, _ in plain], own).values(), default=0)
    for layout in LAYOUTS:
        renamed = layout.renamed(name for name, _ in plain)
        found = [(renamed.get(name, name), each) for name, each in plain]
        count = max(_counts([name for name, _ in found], own).values(), default=0)
        if renamed and count > most:
            best, called, most = found, layout.what, count
    return best, called


def _counts(names: Sequence[str], own: Mapping[str, Tensor]) -> Counter[str]:
    """How many of the backbone's names there are under each prefix."""
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in own:
                counts["".join(f"{part}." for part in parts[:start])] += 1
    return counts


def _resized(
    named: Mapping[str, Saved], backbone: Backbone, asked: WeightsRequest
) -> tuple[dict[str, Saved], list[str]]:
    """Resamples position embeddings to the backbone's grid, where that was asked for."""
    from timm.layers import resample_abs_pos_embed

    found, lines = dict(named), []
    own: Any = backbone.net.state_dict()
    grid: Any = getattr(getattr(backbone.net, "patch_embed", None), "grid_size", None)
    for name in own if asked.resize_positions and grid else ():
        each = named.get(name)
        if each is None or not name.endswith("pos_embed") or each.tensor.shape == own[name].shape:
            continue
        before, after = each.tensor.shape, own[name].shape
        if len(before) != 3 or len(after) != 3 or before[2] != after[2]:
            continue  # which `_check_fit` names
        extra = after[1] - grid[0] * grid[1]
        side = math.isqrt(max(0, before[1] - extra))
        if extra < 0 or side * side + extra != before[1]:
            continue
        tensor = resample_abs_pos_embed(
            each.tensor.float(), new_size=list(grid), num_prefix_tokens=extra
        )
        found[name] = each._replace(tensor=tensor)
        lines.append(
            f"{name} was resampled from {side} x {side} to {grid[0]} x {grid[1]} positions (bicubic)"
        )
    return found, lines


def _replaced(each: Saved, rules: Mapping[str, str]) -> str | None:
    """Renames a tensor by the longest rule that fits; None where it is left out."""
    fits = [old for old in rules if each.name.startswith(old) or each.whole.startswith(old)]
    if not fits:
        return each.whole
    old = max(fits, key=len)
    if rules[old] == OUT:
        return None
    if each.name.startswith(old):
        return each.place + rules[old] + each.name[len(old) :]
    return rules[old] + each.whole[len(old) :]


def _rules(keys: str) -> dict[str, str]:
    rules = {}
    for item in filter(None, (part.strip() for part in keys.split(","))):
        old, sign, new = item.partition("=")
        if not sign:
            raise UserError(
                f"--keys {item!r} is not OLD=NEW, the beginning of names in the file and what "
                f"takes its place, such as module.=; OLD={OUT} leaves tensors out"
            )
        rules[old.strip()] = new.strip()
    return rules


def _prefix(
    names: Sequence[str], own: Mapping[str, Tensor], asked: WeightsRequest
) -> tuple[str, list[str]]:
    """Finds the prefix under which the file has most of the backbone's names."""
    counts = _counts(names, own)
    if not counts:
        raise UserError(
            f"no tensor of {asked.file} has a name of {asked.backbone}'s: it has "
            f"{listed(sorted(names))}; wanted are {listed(list(own))}; name another --backbone, or "
            f"the beginnings to replace with --keys OLD=NEW,..."
        )
    most = max(counts.values())
    best = sorted((p for p, n in counts.items() if n == most), key=_preference)
    if len(best) == 1:
        return best[0], []
    if _preference(best[0]) == _preference(best[1]):
        raise UserError(
            f"{asked.file} holds several networks that fit {asked.backbone} equally well: "
            f"{', '.join(map(repr, best))}; choose one, such as --keys {best[0]}="
        )
    others = ", ".join(map(repr, best[1:]))
    return best[0], [f"as many fit under {others}; --keys OLD= chooses, such as {best[1]}="]


def _preference(prefix: str) -> int:
    parts = prefix.split(".")
    return min((i for i, word in enumerate(PREFERRED) if word in parts), default=len(PREFERRED))


def _check_fit(
    named: Mapping[str, Saved],
    own: Mapping[str, Tensor],
    backbone: Backbone,
    asked: WeightsRequest,
    prefix: str,
) -> None:
    missing = [n for n in own if n not in named and not n.endswith(COUNTERS)]
    odd = [n for n in own if n in named and named[n].tensor.shape != own[n].shape]
    parts = {name.partition(".")[0] for name in own}
    heads = _classifiers(backbone.net)
    strays = [
        name
        for name in named
        if name not in own and name.partition(".")[0] in parts and not name.startswith(heads)
    ]
    unread = [n for n in own if n in named and _unread(named[n].tensor, own[n])]
    faults = []
    if unread:
        kinds = [f"{n} is {_unread(named[n].tensor, own[n])}" for n in unread]
        faults.append(f"no plain numbers ({len(unread)}): {listed(kinds)}")
    if missing:
        faults.append(f"missing ({len(missing)}): {listed(missing)}")
    if odd:
        shapes = [f"{n} {_shape(named[n].tensor)} for {_shape(own[n])}" for n in odd]
        faults.append(f"of another shape ({len(odd)}): {listed(shapes)}{_stem(odd, named, asked)}")
    if strays:
        faults.append(f"without a place in it ({len(strays)}): {listed(strays)}")
    if faults:
        under = f", looked for under {prefix!r}" if prefix else ""
        raise UserError(
            f"{asked.file} does not fit {backbone.name}{under}: {'; '.join(faults)}. Another "
            f"--backbone may, or --keys OLD=NEW for other names, OLD={OUT} to leave some out"
        )


def _unread(tensor: Tensor, own: Tensor) -> str:
    """Why a saved tensor cannot be used for one of the network's; "" where it can."""
    if tensor.is_meta:
        return "without content"
    if tensor.layout != torch.strided:
        return "sparse"
    if tensor.is_quantized or tensor.is_complex() or own.dtype.is_floating_point:
        kind = str(tensor.dtype).removeprefix("torch.")
        return "" if tensor.is_floating_point() and not tensor.is_quantized else kind
    return ""


def _classifiers(net: Any) -> tuple[str, ...]:
    """Prefixes of the tensors of the classifier that timm's network would have."""
    found = getattr(net, "pretrained_cfg", {}).get("classifier") or ()
    return tuple(f"{name}." for name in ((found,) if isinstance(found, str) else found))


def _stem(odd: Sequence[str], named: Mapping[str, Saved], asked: WeightsRequest) -> str:
    """Suggests what may fit where only the stem, or only position embeddings, have other shapes."""
    if all(name.endswith(PLACED) for name in odd):
        return (
            " (these weights are for images of another side; --resize-positions resamples them, or "
            "give --datasets with images of that side, such as digits[size=224])"
        )
    if len(odd) != 1 or named[odd[0]].tensor.dim() != 4:
        return ""
    base, bracket, rest = asked.backbone.partition("[")
    other = base.removesuffix(SMALL) if base.endswith(SMALL) else base + SMALL
    return f" (the stem: try --backbone {other}{bracket}{rest})"


def _normalisation(
    state: dict[str, Tensor], saved: Sequence[Saved], prefix: str, asked: WeightsRequest
) -> tuple[str, set[str]]:
    """Sets mean and deviation as asked, or as in the file.

    Returns a line that says which, and the names of the tensors used.
    """
    given = {"mean": asked.mean, "std": asked.std}
    if "mean" not in state or "std" not in state:
        if asked.mean or asked.std:
            raise UserError(f"{asked.backbone} takes no --mean and --std: it knows none")
        return "images are not normalised by a mean and deviation that could be set", set()
    beside = {each.whole: each.tensor for each in saved}
    used, whence = set(), dict.fromkeys(given, "the backbone's")
    for key, values in given.items():
        name = f"{prefix.removesuffix('net.')}{key}"
        if values:
            state[key] = torch.tensor(values, dtype=state[key].dtype).view_as(state[key])
            whence[key] = "as asked"
        elif prefix.endswith("net.") and name in beside and beside[name].shape == state[key].shape:
            state[key] = beside[name].to(state[key].dtype)
            used.add(name)
            whence[key] = "the file's"
    said = (
        f"{key} {' '.join(f'{v:.4g}' for v in state[key].flatten())} ({whence[key]})"
        for key in given
    )
    return (
        f"images in [0, 1] are normalised with {' and '.join(said)}; --mean and --std set others",
        used,
    )


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _grouped(names: Sequence[str], prefix: str) -> str:
    """Lists names by their first parts, with counts."""
    depth = max(1, prefix.count("."))
    groups: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        keep = depth + 1 if prefix and name.startswith(prefix) else depth
        groups[".".join(parts[:keep]) + (".*" if len(parts) > keep else "")] += 1
    shown = [f"{name} ({n})" if n > 1 else name for name, n in groups.items()]
    return listed(shown)
