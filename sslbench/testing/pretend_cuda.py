"""A pretend GPU on a CPU: it finds what would crash or wait on a real one, without one.

    with pretend_cuda() as gpu:
        ...                              # tensors may say cuda:0; the CPU computes
        with gpu.watched() as seen:
            step()
    assert not seen.waits, seen.waits

Autograd and CUDA's autocast act as on a GPU. It counts each operation, with the bytes that it reads
and writes, by the line of code that asked for it; what makes the host wait; copies from memory that
is not pinned; and operations on tensors of two devices. What it cannot show: times, and kernels: an
operation may launch several, and one on a list of tensors (`_foreach`) counts once.

It needs a C++ compiler, and reaches into torch: `CannotPretend` says where it does not work.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import os
import subprocess
import sys
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

GIB = 2**30
SOURCE = Path(__file__).with_suffix(".cpp")
PACKAGE = str(Path(__file__).parents[1]) + os.sep
CUDA = torch.device("cuda", 0)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# make no kernel: views of memory, and memory that is not filled
FREE = _words(
    "view reshape permute slice select expand transpose unsqueeze squeeze detach detach_ alias split "
    "split_with_sizes unbind as_strided t _unsafe_view unfold narrow _reshape_alias lift_fresh "
    "view_as_real diagonal empty empty_like empty_strided new_empty new_empty_strided is_pinned "
    "_pin_memory set_data sym_size record_stream"
)
# make the host wait, since it must know a number of the device
WAITS = _words(
    "_local_scalar_dense nonzero masked_select _unique2 unique_dim unique_consecutive bincount equal "
    "is_nonzero _linalg_eigh linalg_eigh _linalg_svd repeat_interleave"
)
INDEXED = _words("index index_put index_put_ _index_put_impl_ _unsafe_index")
# lose their meaning in half precision; autocast raises them unless the code undoes that
DELICATE = _words(
    "_softmax _log_softmax logsumexp exp log linalg_vector_norm nll_loss_forward mse_loss cumsum "
    "native_layer_norm native_group_norm"
)
HALF = (torch.float16, torch.bfloat16)


class CannotPretend(Exception):
    """This machine or this torch has no way to pretend; the text says why."""


@dataclass
class Seen:
    """What was asked of the device while somebody watched, by the line that asked."""

    ops: Counter[str] = field(default_factory=Counter)  # line -> operations
    names: Counter[str] = field(default_factory=Counter)  # operation -> times
    bytes: int = 0  # read and written by operations
    waits: Counter[str] = field(default_factory=Counter)  # "operation at line" -> times
    blocking: Counter[str] = field(default_factory=Counter)  # copies that make the host wait
    copies: Counter[str] = field(default_factory=Counter)  # copies to the device
    mixed: Counter[str] = field(default_factory=Counter)  # tensors of two devices in one operation
    half: Counter[str] = field(default_factory=Counter)  # delicate operations in half precision

    @property
    def count(self) -> int:
        return sum(self.ops.values())


class Pretended(Tensor):
    """A tensor that says cuda:0; `host` on the CPU has its numbers."""

    host: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        made: Pretended = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=CUDA,
        )
        made.host = inner
        return made

    def __init__(self, inner: Tensor) -> None:
        if _GPU is not None:
            _GPU.hold(self)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Pretended({self.host!r})"

    def tolist(self) -> Any:
        if _GPU is not None and (seen := _GPU.seen) is not None:
            seen.waits[f"tolist at {_line()}"] += 1
        return self.host.tolist()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class Gpu(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The pretended device: how much memory it has and holds, and what is asked of it."""

    def __init__(self, total: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = total
        self.held = self.peak = 0  # bytes
        self.seen: Seen | None = None
        self._users: dict[int, int] = {}  # storage -> tensors that use it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    @contextlib.contextmanager
    def watched(self) -> Iterator[Seen]:
        """Counts what is asked of the device within the block."""
        before, self.seen = self.seen, Seen()
        try:
            yield self.seen
        finally:
            self.seen = before

    def hold(self, tensor: Pretended) -> None:
        storage = tensor.host.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._users:
            self.held += size
            self.peak = max(self.peak, self.held)
        self._users[key] = self._users.get(key, 0) + 1
        weakref.finalize(tensor, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self.held -= size


_GPU: Gpu | None = None  # the one that is pretended now


@contextlib.contextmanager
def pretend_cuda(memory: int = 80 * GIB) -> Iterator[Gpu]:
    """Pretends, within the block, that this machine has one GPU of so many bytes.

    CannotPretend where torch or the machine does not allow it.
    """
    global _GPU
    library = _library()
    gpu = Gpu(memory)
    # The first backward pass of a process starts a thread for each device that is there, and forks
    # of a process with such threads cannot train: let it find none.
    torch.zeros(1, requires_grad=True).sum().backward()  # type: ignore[no-untyped-call]
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        library.begin()
        stack.callback(library.end)
        torch._C._ensureCUDADeviceGuardSet()
        for patched in _patches(gpu):
            stack.enter_context(patched)
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, before)
        lists = importlib.import_module("torch.optim.optimizer")._foreach_supported_types
        lists.append(Pretended)
        stack.callback(lists.remove, Pretended)
        _GPU = gpu
        try:
            with gpu:
                yield gpu
        finally:
            _GPU = None


@cache
def _library() -> ctypes.CDLL:
    """The compiled part, built once for each torch and kept in the folder for temporary files."""
    digest = hashlib.sha256(SOURCE.read_bytes() + torch.__version__.encode()).hexdigest()[:16]
    built = Path(tempfile.gettempdir()) / f"sslbench-pretend-{os.getuid()}-{digest}.so"
    if not built.is_file():
        from torch.utils.cpp_extension import include_paths

        libraries = Path(torch.__file__).parent / "lib"
        scratch = built.with_suffix(f".{os.getpid()}")
        command = ["g++", "-shared", "-fPIC", "-std=c++20", str(SOURCE), "-o", str(scratch)]
        command += [f"-I{path}" for path in include_paths()]
        command += [f"-L{libraries}", "-lc10", "-ltorch_cpu"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except OSError as error:
            raise CannotPretend(f"there is no g++ here: {error}") from error
        except subprocess.CalledProcessError as error:
            first = next((x for x in error.stderr.splitlines() if "error" in x), "g++ failed")
            raise CannotPretend(f"its C++ part does not build with this torch: {first}") from error
        scratch.replace(built)
    try:
        return ctypes.CDLL(str(built))
    except OSError as error:
        raise CannotPretend(f"its C++ part does not load: {error}") from error


# ---- one operation ---------------------------------------------------------------------------


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Computes an operation on the CPU, and notes it where the pretended device is asked."""
    name = func.overloadpacket.__name__
    flat, _ = tree_flatten((args, kwargs))
    ours = [x for x in flat if isinstance(x, Pretended)]
    device = None if kwargs.get("device") is None else torch.device(kwargs["device"])
    to_device, to_host = (device is not None and device.type == kind for kind in ("cuda", "cpu"))
    if name == "_pin_memory":
        return args[0]
    if name == "is_pinned":
        return True
    found = _computed(func, args, kwargs, to_device=to_device)
    onto = args[0] if name == "copy_" else None
    stays = to_host or (onto is not None and not isinstance(onto, Pretended))
    if _GPU is not None and _GPU.seen is not None and (ours or to_device):
        _note(_GPU.seen, name, args, kwargs, flat, found)
    if (written := _written(func, args, kwargs)) is not None:
        return written
    if not to_device and (not ours or stays):
        return found
    return tree_map(lambda x: Pretended(x) if isinstance(x, Tensor) else x, found)


def _computed(func: Any, args: Any, kwargs: dict[str, Any], *, to_device: bool) -> Any:
    def inner(x: Any) -> Any:
        return x.host if isinstance(x, Pretended) else x

    plain = dict(tree_map(inner, kwargs))
    if to_device:
        plain["device"] = torch.device("cpu")
    if "pin_memory" in plain:
        plain["pin_memory"] = False
    args = tree_map(inner, args)
    if func.overloadpacket.__name__ in ("_softmax", "_log_softmax") and args[2]:
        args = (args[0].float(), args[1], False)  # a CPU does not convert on the way
    return func(*args, **plain)


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor | None:
    """The very tensor that an operation changed in place and returns."""
    schema = func._schema

    def writes(each: Any) -> bool:
        return each.alias_info is not None and each.alias_info.is_write

    if len(schema.returns) != 1 or not writes(schema.returns[0]):
        return None
    for i, each in enumerate(schema.arguments):
        if writes(each):
            found = args[i] if i < len(args) else kwargs.get(each.name)
            return found if isinstance(found, Tensor) else None
    return None


def _note(
    seen: Seen, name: str, args: Any, kwargs: dict[str, Any], flat: list[Any], found: Any
) -> None:
    line = _line()
    what = f"{name} at {line}"
    tensors = [x for x in flat if isinstance(x, Tensor)]
    if name not in FREE:
        seen.ops[line] += 1
        seen.names[name] += 1
        made = [x for x in tree_flatten(found)[0] if isinstance(x, Tensor)]
        seen.bytes += sum(x.numel() * x.element_size() for x in (*tensors, *made))
    if name in WAITS and not (name == "repeat_interleave" and "output_size" in kwargs):
        seen.waits[what] += 1
    if name in INDEXED:
        for index in args[1] if isinstance(args[1], (list, tuple)) else ():
            if isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8):
                seen.waits[f"a mask in {what}"] += 1
            elif isinstance(index, Tensor) and not isinstance(index, Pretended):
                seen.blocking[f"an index of the host in {what}"] += 1
    elif name in ("copy_", "_to_copy"):
        _note_copy(seen, what, args, kwargs, found)
    else:
        strange = [x for x in tensors if not isinstance(x, Pretended) and x.dim()]
        if strange and any(isinstance(x, Pretended) for x in tensors):
            seen.mixed[what] += 1
    if name in DELICATE and isinstance(found, Tensor) and found.dtype in HALF:
        seen.half[what] += 1


def _note_copy(seen: Seen, what: str, args: Any, kwargs: dict[str, Any], found: Any) -> None:
    waits_not = bool(kwargs.get("non_blocking") or (len(args) > 2 and args[2] is True))
    if "_to_copy" in what:
        device = kwargs.get("device")
        source, there = args[0], None if device is None else torch.device(device).type
        here = isinstance(source, Pretended)
        down, up = here and there == "cpu", not here and there == "cuda"
    else:
        into, source = args[0], args[1]
        up = isinstance(into, Pretended) and not isinstance(source, Pretended)
        down = isinstance(source, Pretended) and not isinstance(into, Pretended)
    if down and not waits_not:
        seen.waits[what] += 1
    if up and source.dim():
        seen.copies[what] += 1
        if not waits_not:
            seen.blocking[what] += 1


def _line() -> str:
    """The innermost line of this package, but for the kit, that led here; of the rest the file's name."""
    frame: FrameType | None = sys._getframe(1)
    outside = ""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(PACKAGE):
            if not name.startswith(f"{PACKAGE}testing{os.sep}"):
                return f"{name.removeprefix(PACKAGE)}:{frame.f_lineno}"
        elif not outside and "/torch/" not in name and "/timm/" not in name:
            outside = f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back
    return outside or "backward"


# ---- what torch says of its device -----------------------------------------------------------


class _Event:
    def __init__(self, **_: Any) -> None:
        self.at = 0.0

    def record(self, stream: Any = None) -> None: ...
    def synchronize(self) -> None: ...
    def query(self) -> bool:
        return True


class _Stream:
    def __init__(self, *_: Any, **__: Any) -> None: ...
    def wait_stream(self, stream: Any) -> None: ...
    def wait_event(self, event: Any) -> None: ...


def _patches(gpu: Gpu) -> Iterator[Any]:
    """Functions of torch that ask the driver, and those that read memory by its address."""
    tensor, as_tensor, default = torch.tensor, torch.as_tensor, torch.default_generator

    def waits(_: Any = None) -> None:
        if gpu.seen is not None:
            gpu.seen.waits[f"synchronize at {_line()}"] += 1

    def check(device: Any = None) -> None:
        index = device if isinstance(device, int) else torch.device(device or "cuda").index
        if index not in (None, 0):
            raise RuntimeError("CUDA error: invalid device ordinal")

    says: dict[str, Callable[..., Any]] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": check,
        "is_bf16_supported": lambda *_, **__: True,
        "mem_get_info": lambda _=None: (gpu.total - gpu.held, gpu.total),
        "get_device_name": lambda _=None: "a pretended GPU",
        "get_device_capability": lambda _=None: (9, 0),
        "get_arch_list": lambda: ["sm_90"],
        "get_device_properties": lambda _=None: SimpleNamespace(
            name="a pretended GPU", total_memory=gpu.total, major=9, minor=0
        ),
        "memory_allocated": lambda _=None: gpu.held,
        "memory_reserved": lambda _=None: gpu.held,
        "max_memory_allocated": lambda _=None: gpu.peak,
        "reset_peak_memory_stats": lambda _=None: setattr(gpu, "peak", gpu.held),
        "empty_cache": lambda: None,
        "synchronize": waits,
        "get_rng_state": lambda _=0: default.get_state(),
        "set_rng_state": lambda state, _=0: default.set_state(state),
        "get_rng_state_all": lambda: [default.get_state()],
        "Event": _Event,
        "Stream": _Stream,
        "current_stream": _Stream,
        "stream": contextlib.nullcontext,
    }
    for name, said in says.items():
        yield patch.object(torch.cuda, name, said)
    yield patch.object(torch.cuda, "default_generators", (default,))
    yield patch.object(torch.backends.cudnn, "version", lambda: None)

    def made(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        found = tensor(data, *args, **kwargs)
        return found if device is None else found.to(device)

    def as_made(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
        found = data if isinstance(data, Tensor) else as_tensor(data)
        return found.to(device or found.device, dtype or found.dtype)

    yield patch.object(torch, "tensor", made)
    yield patch.object(torch, "as_tensor", as_made)
