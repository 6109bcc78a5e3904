from __future__ import annotations

import os

import pytest

# before torch is imported, here and in every process that a test starts
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

MOST = 4  # workers; each loads torch


def pytest_addoption(parser):
    parser.addoption(
        "--regold", action="store_true", help="write tests/golden anew from what is computed"
    )


@pytest.hookimpl(optionalhook=True)  # the mutants run without xdist
def pytest_xdist_auto_num_workers():
    """The workers of `-n auto`: one for each core that this process may use, up to MOST."""
    allowed = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    return min(len(allowed), MOST)


@pytest.fixture(scope="module")
def forks():
    """Makes `run` fork its processes from this one, for all tests of a file."""
    from processes import forking

    with pytest.MonkeyPatch.context() as patch:
        forking(patch)
        yield
