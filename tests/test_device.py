"""Devices: which is meant, what it cannot do, how it computes, and what a poisoned one means."""

from __future__ import annotations

import contextlib
import queue
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from pretending import where_it_works
from processes import forking
from torch import nn

from sslbench.cli.app import program
from sslbench.errors import UserError
from sslbench.events import CellDone
from sslbench.one_cell.provenance import failure
from sslbench.run import worker
from sslbench.store import Store
from sslbench.testing.pretend_cuda import pretend_cuda
from sslbench.train import device as devices

GPU, CPU, MPS = torch.device("cuda", 0), torch.device("cpu"), torch.device("mps")


@pytest.fixture
def gpu():
    with contextlib.ExitStack() as stack, where_it_works():
        yield stack.enter_context(pretend_cuda())


@pytest.fixture
def as_before():
    """Restores what `prepare` sets for a whole process."""
    flags = [
        (torch.backends.cuda.matmul, "allow_tf32"),
        (torch.backends.cudnn, "allow_tf32"),
        (torch.backends.cudnn, "benchmark"),
    ]
    kept = [(where, name, getattr(where, name)) for where, name in flags]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(devices.WORKSPACE[0], raising=False)
        yield
    torch.use_deterministic_algorithms(False)
    for where, name, value in kept:
        setattr(where, name, value)


# ---- which -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "auto"])
def test_a_gpu_is_picked_with_its_index(gpu, name):
    assert devices.pick_device(name) == GPU


def test_a_gpu_that_is_not_there_gets_a_sentence(gpu, monkeypatch):
    with pytest.raises(ValueError, match=r"of GPUs this machine has one, cuda:0"):
        devices.pick_device("cuda:9")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="no GPU that PyTorch can use"):
        devices.pick_device("cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine's GPU can be used")
def test_auto_says_when_it_leaves_a_gpu_idle(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "DRIVER", tmp_path / "version")
    assert devices.idle_gpu() is None
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13\nGCC version:\n"
    )
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert devices.idle_gpu() == (
        "there is a GPU that PyTorch cannot use, so cells run on the CPU: this PyTorch is built "
        "for CUDA 13.0, the driver is 470.57.02"
    )
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in devices.idle_gpu()


# ---- what it can do --------------------------------------------------------------------------


def test_what_a_device_lacks_is_said_with_what_would_do(gpu, monkeypatch):
    for precision in ("fp32", "bf16", "fp16"):
        assert devices.unfit(CPU, precision) is None
    assert "use fp32" in devices.unfit(CPU, "tf32")
    assert "float64, which mps lacks" in devices.unfit(MPS, "fp16")
    assert devices.unfit(MPS, "fp32") is None
    for precision in ("fp32", "tf32", "bf16", "fp16"):
        assert devices.unfit(GPU, precision) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    for precision in ("tf32", "bf16"):
        assert "needs compute capability 8.0" in devices.unfit(GPU, precision)
    assert devices.unfit(GPU, "fp16") is None


def test_tf32_on_a_cpu_is_refused_before_anything_runs(tmp_path):
    line = ["run", "--precision", "tf32", "--device", "cpu", "--store", str(tmp_path / "store")]
    done = CliRunner().invoke(program, line)
    assert done.exit_code == 2
    assert "precision tf32 is of NVIDIA's GPUs" in done.output
    assert not list(tmp_path.glob("store/cells/*"))


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        (
            "CUDA error: no kernel image is available for execution on the device",
            "is sm_90, and this PyTorch has kernels for sm_90; install another",
        ),
        ("CUDA error: out of memory", "its memory is full, perhaps of another process's"),
        ("CUDA error: device-side assert triggered", "device-side assert triggered"),
    ],
)
def test_a_device_that_runs_nothing_is_explained(gpu, monkeypatch, says, sentence):
    assert devices.broken(CPU) is None
    assert devices.broken(GPU) is None

    def ones(*_, **__):
        raise RuntimeError(f"{says}\nCUDA kernel errors might be reported later")

    monkeypatch.setattr(torch, "ones", ones)
    assert sentence in devices.broken(GPU)
    assert "\n" not in devices.broken(GPU)


# ---- how it computes -------------------------------------------------------------------------


def test_fp32_is_exact_and_tf32_is_lent_to_training(as_before, gpu):
    torch.backends.cudnn.allow_tf32 = True  # torch's default
    devices.prepare(GPU)
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    assert [flag.allow_tf32 for flag in flags] == [False, False]
    assert torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
    with devices.arithmetic("bf16"):
        assert [flag.allow_tf32 for flag in flags] == [False, False]
    with devices.arithmetic("tf32"):
        assert [flag.allow_tf32 for flag in flags] == [True, True]
    assert [flag.allow_tf32 for flag in flags] == [False, False]


def test_deterministic_asks_for_it_everywhere(as_before, monkeypatch):
    devices.prepare(CPU, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert devices.os.environ[devices.WORKSPACE[0]] == devices.WORKSPACE[1]


def test_what_is_compiled_is_called_as_written_where_it_is_judged():
    from sslbench.backbones.timm import create

    backbone = create("test_resnet", size=8)
    whole = nn.Sequential(backbone, nn.Flatten())
    calls = []
    with devices.compiled(whole, True):
        assert backbone._compiled_call_impl is not None
        backbone._compiled_call_impl = lambda x: calls.append(x) or backbone.forward(x)
        x = torch.rand(2, 3, 8, 8)
        whole(x)
        with devices.uncompiled(whole):
            whole(x)
        assert len(calls) == 1
        whole(x)
    whole(x)
    assert len(calls) == 2


# ---- failures --------------------------------------------------------------------------------


@pytest.fixture
def cell(tmp_path):
    from sslbench.plugins import registry
    from sslbench.testing import Trial

    return Trial(registry(installed=False), "simclr", tmp_path).cell()


@pytest.mark.parametrize(
    "says",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "MPS backend out of memory (MPS allocated: 9.0 GB)",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
    ],
)
def test_memory_that_ran_out_is_told_apart_by_what_was_running(cell, says):
    trained = failure(RuntimeError(says), cell, ("main", 1, 2))
    judged = failure(RuntimeError(says), cell, None, judge="knn[k=20]")
    early = failure(RuntimeError(says), cell, None)
    assert {trained.kind, judged.kind, early.kind} == {"oom"}
    assert "in training with batch 32" in trained.message
    assert "while knn[k=20] judged it; its training is kept" in judged.message
    assert "--batch" not in judged.message
    assert "before a step" in early.message


def test_an_operation_that_cannot_repeat_itself_is_named(cell):
    says = (
        "cumsum_cuda_kernel does not have a deterministic implementation, but you set "
        "'torch.use_deterministic_algorithms(True)'. You can turn off determinism"
    )
    assert failure(RuntimeError(says), cell, None).message == (
        "cumsum_cuda_kernel cannot repeat itself to the bit on this device; run it without "
        "--deterministic, or with --device cpu"
    )


def jobs_of(*precisions):
    jobs = queue.Queue()
    for precision in precisions:
        jobs.put((SimpleNamespace(precision=precision), ()))
    jobs.put(None)
    return jobs


class Bench:
    """A workbench whose cells all end the same way."""

    def __init__(self, status, device=CPU):
        self.builder, self.status = SimpleNamespace(device=device), status

    def do(self, cell, judges):
        return CellDone("", "", self.status, 0.0, "")


@pytest.mark.parametrize(
    ("status", "poisoned", "done"),
    [("ok", True, 3), ("failed", False, 3), ("failed", True, 1), ("skipped", True, 3)],
)
def test_a_worker_leaves_when_a_failure_poisoned_its_device(monkeypatch, status, poisoned, done):
    monkeypatch.setattr(devices, "broken", lambda _: "poisoned" if poisoned else None)
    told = []
    worker._work(Bench(status), jobs_of("fp32", "fp32", "fp32"), told.append)
    assert [each.status for each in told if each != worker.LEAVING] == [status] * done
    assert told.count(worker.LEAVING) == (done == 1)


def test_a_precision_that_the_device_lacks_ends_the_run_with_a_sentence():
    with pytest.raises(UserError, match="tf32 is of NVIDIA's GPUs"):
        worker._work(Bench("ok"), jobs_of("tf32"), print)


@pytest.mark.slow
def test_the_cells_after_one_that_poisoned_the_device_succeed(tmp_path, monkeypatch):
    """Each in a process of its own, since each that fails leaves one behind that is of no use."""
    forking(monkeypatch)
    monkeypatch.setattr(devices, "broken", lambda _: "poisoned" if LATER else None)
    LATER.clear()
    whole = worker._done

    def done(bench, cell, judges):
        LATER.append(cell)  # in the worker: it starts sound
        return whole(bench, cell, judges)

    monkeypatch.setattr(worker, "_done", done)
    line = ["run", "--methods", "simclr", "--seeds", "0-2", "--epochs", "1", "--evaluators", "knn"]
    line += ["--batch", "32"]
    line += ["--datasets", "digits[test=30,train=64]", "--store", str(tmp_path / "store")]
    found = CliRunner().invoke(program, [*line, "--set", "simclr.temperature=1e-45", "--jobs", "1"])
    assert found.exit_code == 3, found.output
    records = [r for c in Store(tmp_path / "store").cells() for r in c.records()]
    assert [r.error.kind for r in records if r.error] == ["nan"] * 3
    assert {r.method for r in records if r.status == "ok"} == {"untrained", "supervised"}


LATER: list[object] = []  # cells that this process has begun


def test_attention_runs_on_a_pretended_gpu(gpu):
    x = torch.rand(2, 2, 4, 8)
    found = nn.functional.scaled_dot_product_attention(*[x.to(GPU)] * 3)
    torch.testing.assert_close(found.cpu(), nn.functional.scaled_dot_product_attention(x, x, x))
