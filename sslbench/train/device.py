"""Picks the device that a cell runs on: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""

from __future__ import annotations

import torch


def pick_device(name: str) -> torch.device:
    """The device of a name; `auto` is the first GPU, else the CPU.

    ValueError when this machine does not have it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r}: this machine has {torch.cuda.device_count()} GPUs")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' is not available here")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device {name!r} is not one of cpu, cuda, cuda:N, mps, auto")
    return device
