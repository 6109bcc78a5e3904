"""Picks the device that cells run on, prepares it, and says what it cannot do.

"fp32" is IEEE arithmetic in products and in convolutions: torch's own default leaves TF32 on in
convolutions. "tf32" turns it on in both, while a method trains; judges are always exact.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from ..api import Backbone

DRIVER = Path("/proc/driver/nvidia/version")
# what cuBLAS needs to repeat itself; it is read when the device is first used
WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
GENERATIONS = {"bf16": (8, 0), "tf32": (8, 0)}  # compute capabilities from which a GPU has it


# ---- which -----------------------------------------------------------------------------------


def pick_device(name: str) -> torch.device:
    """The device of a name, with its index; `auto` is the first GPU, else the CPU.

    ValueError when this machine does not have it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count, index = torch.cuda.device_count(), device.index or 0
        if not count:
            raise ValueError(f"device {name!r}: this machine has no GPU that PyTorch can use")
        if index >= count:
            known = "one, cuda:0" if count == 1 else f"{count}, cuda:0 to cuda:{count - 1}"
            raise ValueError(f"device {name!r}: of GPUs this machine has {known}")
        return torch.device("cuda", index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' is not available here")
    if device.type not in ("cpu", "mps"):
        raise ValueError(f"device {name!r} is not one of cpu, cuda, cuda:N, mps, auto")
    return device


def idle_gpu() -> str | None:
    """A sentence where this machine has an NVIDIA GPU that PyTorch cannot use."""
    if torch.cuda.is_available() or not DRIVER.exists():
        return None
    if torch.version.cuda is None:
        why = "this PyTorch is built without CUDA"
    else:
        why = f"this PyTorch is built for CUDA {torch.version.cuda}, the driver is {driver()}"
    return f"there is a GPU that PyTorch cannot use, so cells run on the CPU: {why}"


def driver() -> str | None:
    """The version of NVIDIA's driver."""
    try:
        words = DRIVER.read_text().split("\n")[0].split()
    except OSError:
        return None
    return next((word for word in words if word[:1].isdigit()), None)


# ---- what it can do --------------------------------------------------------------------------


def unfit(device: torch.device, precision: str) -> str | None:
    """Why this device cannot train in this precision; None when it can."""
    if device.type != "cuda":
        if precision == "tf32":
            return f"precision tf32 is of NVIDIA's GPUs, and cells run on {device}; use fp32"
        if device.type == "mps" and precision == "fp16":
            return "precision fp16 scales losses in float64, which mps lacks; use bf16 or fp32"
        return None
    needed, own = GENERATIONS.get(precision, (0, 0)), torch.cuda.get_device_capability(device)
    if own < needed:
        name = torch.cuda.get_device_name(device)
        return (
            f"precision {precision} needs compute capability {needed[0]}.{needed[1]}, and {name} "
            f"has {own[0]}.{own[1]}; use fp16 or fp32"
        )
    return None


def broken(device: torch.device) -> str | None:
    """Why this device runs no kernel; None when it does. It runs one, and waits for it."""
    if device.type == "cpu":
        return None
    try:
        found = float(torch.ones(2, device=device).sum())
    except RuntimeError as error:
        return f"{device} runs nothing: {_explained(error, device)}"
    return None if found == 2 else f"{device} computes wrongly: 1 + 1 was {found}"


def _explained(error: RuntimeError, device: torch.device) -> str:
    first = str(error).partition("\n")[0]
    if "no kernel image" in first:
        major, minor = torch.cuda.get_device_capability(device)
        built = ", ".join(torch.cuda.get_arch_list())
        return (
            f"{torch.cuda.get_device_name(device)} is sm_{major}{minor}, and this PyTorch has "
            f"kernels for {built}; install another PyTorch, or use --device cpu"
        )
    if isinstance(error, torch.OutOfMemoryError) or "out of memory" in first:
        return f"its memory is full, perhaps of another process's; use another device ({first})"
    return first


# ---- how it computes -------------------------------------------------------------------------


def prepare(device: torch.device, *, deterministic: bool = False) -> None:
    """Sets how this process computes on its device: exactly, or also repeatably.

    Where it need not repeat itself, cuDNN may try which convolution is the quickest.
    """
    if deterministic:
        os.environ.setdefault(*WORKSPACE)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    _allow_tf32(False)
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


@contextlib.contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Lets products be of TF32 within the block, where that is the precision."""
    if precision != "tf32":
        yield
        return
    _allow_tf32(True)
    try:
        yield
    finally:
        _allow_tf32(False)


@contextlib.contextmanager
def compiled(module: nn.Module, wanted: bool) -> Iterator[None]:
    """Compiles every backbone within a module, for the block."""
    parts = [m for m in module.modules() if isinstance(m, Backbone)] if wanted else []
    for part in parts:
        part.compile()
    try:
        yield
    finally:
        for part in parts:
            part._compiled_call_impl = None


@contextlib.contextmanager
def uncompiled(module: nn.Module) -> Iterator[None]:
    """Calls the modules as they were written within the block: each mode and size compiles anew."""
    held = [(m, m._compiled_call_impl) for m in module.modules() if m._compiled_call_impl]
    for m, _ in held:
        m._compiled_call_impl = None
    try:
        yield
    finally:
        for m, compiled in held:
            m._compiled_call_impl = compiled


def give_back(device: torch.device) -> None:
    """Gives memory that no tensor uses back to the device, for others that share it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
