"""Views whose second phase is compiled, or is replayed as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..api import View
from .compose import Chain, MultiCrop, Views, chained
from .masks import Masked
from .phases import Layout, Phase, TwoPhase, act, is_two_phase


def compiled(view: View, **options: Any) -> View:
    """Makes the same view, but compiles what it does on a GPU; on a CPU it stays as it is.

    Drawing, and views without two phases, are not compiled. Numbers differ by rounding.

    Args:
        options: of torch.compile
    """
    return _with_phase(view, lambda: _Compiled(options))


def captured(view: View) -> View:
    """Makes the same view, but replays what it does on a CUDA device as a graph.

    The first batch of each chain is captured. Batches of another shape take the usual way. Results
    are copied out of the graph, so that they stay when it runs again.
    """
    return _with_phase(view, _Captured)


@dataclass(frozen=True)
class _Through:
    """A chain whose second phase is run by `phase`."""

    ops: tuple[View, ...]
    phase: Phase

    def __call__(self, images: Tensor) -> Any:
        return chained(self.ops, images, self.phase)


def _with_phase(view: View, make: Callable[[], Phase]) -> View:
    """Replaces how the chains within a view run their second phase."""
    if type(view) is Chain:
        return _Through(view.ops, make())
    if is_two_phase(view):
        return _Through((view,), make())
    if type(view) is Views:
        each = view.view if isinstance(view.view, tuple) else (view.view,)
        return replace(view, view=tuple(_with_phase(one, make) for one in each))
    if type(view) is MultiCrop:
        return replace(view, crops=tuple((_with_phase(one, make), n) for one, n in view.crops))
    if type(view) is Masked:
        return replace(view, view=_with_phase(view.view, make))
    return view


class _Compiled:
    """The second phase, compiled for each shape of batch that comes."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.made: dict[Any, Callable[[Tensor, Tensor], Tensor]] = {}

    def __call__(
        self, views: tuple[TwoPhase, ...], layout: Layout, images: Tensor, packed: Tensor
    ) -> Tensor:
        key = (views, layout, images.shape, images.dtype)
        if key not in self.made:

            def run(images: Tensor, packed: Tensor) -> Tensor:
                return act(views, layout, images, packed)

            self.made[key] = torch.compile(run, dynamic=False, **self.options)
        return self.made[key](images, packed)


class _Captured:
    """The second phase as a CUDA graph for the shape of the first batch, by chain."""

    def __init__(self) -> None:
        self.graphs: dict[tuple[TwoPhase, ...], _Graph] = {}

    def __call__(
        self, views: tuple[TwoPhase, ...], layout: Layout, images: Tensor, packed: Tensor
    ) -> Tensor:
        if images.device.type != "cuda":
            return act(views, layout, images, packed)
        if views not in self.graphs:
            self.graphs[views] = _Graph(views, layout, images, packed)
        graph = self.graphs[views]
        if not graph.fits(images, packed):
            return act(views, layout, images, packed)
        return graph(images, packed)


class _Graph:
    """One captured chain, with the memory that it reads from and writes to."""

    def __init__(
        self, views: tuple[TwoPhase, ...], layout: Layout, images: Tensor, packed: Tensor
    ) -> None:
        self.images, self.packed = images.clone(), packed.clone()
        device = images.device
        with torch.no_grad(), torch.cuda.device(device):
            # libraries set themselves up on their first calls, which must not be captured
            aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(aside):
                for _ in range(3):
                    act(views, layout, self.images, self.packed)
            torch.cuda.current_stream(device).wait_stream(aside)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.made = act(views, layout, self.images, self.packed)

    def fits(self, images: Tensor, packed: Tensor) -> bool:
        """Whether a batch has the shapes, the type and the device that were captured."""
        return all(
            a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
            for a, b in ((images, self.images), (packed, self.packed))
        )

    def __call__(self, images: Tensor, packed: Tensor) -> Tensor:
        self.images.copy_(images)
        self.packed.copy_(packed)
        self.graph.replay()
        return self.made.clone()
