"""Batches for a device: resident or fetched ahead, in the same order and with the same bytes."""

from __future__ import annotations

import contextlib
import threading

import pytest
import torch
from pretending import where_it_works

from sslbench.api import Epoch, Stream
from sslbench.testing.pretend_cuda import Pretended, pretend_cuda
from sslbench.train.feed import Feed, orders

IMAGES = torch.randint(0, 256, (60, 3, 4, 4), dtype=torch.uint8)
LABELS = torch.arange(60) % 7 - 1
SMALL = 2 * IMAGES.numel()  # bytes of a GPU of which the images would take half


@pytest.fixture
def gpu():
    """A pretended GPU with room for all images; `small` has too little."""
    with contextlib.ExitStack() as stack:

        def pretend(memory=2**30):
            with where_it_works():
                return stack.enter_context(pretend_cuda(memory))

        yield pretend


def drawn():
    epoch = Epoch(0)
    epoch.streams["pairs"] = Stream(torch.arange(0, 60, 3), batch=4)
    return orders(epoch, 60, steps=7, batch=8, origin=("x", 0))


def given(feed, first=0):
    return [
        {name: (t.images.cpu(), t.rows.cpu(), t.labelled) for name, t in taken.items()}
        for taken in feed.batches(drawn(), first)
    ]


def same(one, other):
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert torch.equal(a[name][0], b[name][0])
            assert torch.equal(a[name][1], b[name][1])
            assert a[name][2] == b[name][2]


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
@pytest.mark.parametrize(("memory", "resident"), [(2**30, True), (SMALL, False)])
def test_a_gpu_gets_the_same_batches_as_a_cpu(gpu, name, memory, resident):
    here = given(Feed(IMAGES, LABELS, torch.device("cpu")))
    gpu(memory)
    feed = Feed(IMAGES, LABELS, torch.device(name))
    assert feed.resident == resident
    same(given(feed), here)
    same(given(feed, 5), here[5:])
    assert given(feed, 7) == []
    index = torch.tensor([3, 59, 0])
    taken = feed.take(index)
    assert isinstance(taken, Pretended)
    assert torch.equal(taken.cpu(), IMAGES[index])


@pytest.mark.parametrize("memory", [2**30, SMALL])
def test_batches_do_not_make_the_host_wait(gpu, memory):
    device = gpu(memory)
    feed = Feed(IMAGES, LABELS, torch.device("cuda", 0))
    with device.watched() as seen:
        for taken in feed.batches(drawn(), 0):
            assert isinstance(taken["main"].images, Pretended)
            assert isinstance(taken["main"].rows, Pretended)
    assert not seen.waits
    assert not seen.blocking
    assert not seen.mixed


def fetching():
    return [t for t in threading.enumerate() if t.name.startswith("feed")]


def test_who_leaves_early_leaves_no_thread(gpu):
    gpu(SMALL)
    feed = Feed(IMAGES, LABELS, torch.device("cuda", 0))
    batches = feed.batches(drawn(), 0)
    next(batches)
    assert fetching()
    batches.close()
    assert not fetching()


def test_what_fails_in_the_thread_is_raised_where_the_batch_is_wanted(gpu):
    gpu(SMALL)
    feed = Feed(IMAGES, LABELS, torch.device("cuda", 0))
    order = {"main": torch.tensor([[1, 2], [3, 99]])}  # the second step's last image is not there
    feed.shown = torch.ones(100, dtype=torch.bool)
    batches = feed.batches(order, 0)
    next(batches)
    with pytest.raises((IndexError, RuntimeError), match="index"):
        next(batches)
    assert not fetching()


def test_a_batch_says_whether_any_of_its_labels_is_shown():
    feed = Feed(IMAGES, torch.tensor([-1] * 59 + [2]), torch.device("cpu"))
    order = {"main": torch.tensor([[0, 1], [59, 3], [4, 59]])}
    assert [t["main"].labelled for t in feed.batches(order, 0)] == [False, True, True]
