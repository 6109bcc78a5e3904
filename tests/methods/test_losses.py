"""Every loss that a method's tests declare: against its loop, and what must not matter to it."""

from __future__ import annotations

import inspect
import sys

import pytest
import torch

from sslbench.cells.parameters import anatomy

from .helpers import FULL, METHODS, TRAINED, files_of, same, with_gradients

FILES = {name: files_of(name) for name in FULL if name in TRAINED}
CASES = {
    f"{file.__name__.rpartition('.')[2].removeprefix('test_')}-{name}": case
    for files in FILES.values()
    for file in files
    for name, case in getattr(file, "CASES", {}).items()
}


def of(which):
    return pytest.mark.parametrize("case", which.values(), ids=which.keys())


@pytest.mark.parametrize("name", FILES)
def test_a_method_has_tests_and_a_loop_for_its_loss(name):
    """Or its loss is torch's cross-entropy, and it says so by `CASES = {}`."""
    declared = [file.CASES for file in FILES[name] if hasattr(file, "CASES")]
    assert declared, f"{name} has no tests/methods/test_<file>.py with CASES"
    source = inspect.getsource(sys.modules[anatomy(METHODS[name]).target.__module__])
    assert any(declared) or "F.cross_entropy(" in source


@of(CASES)
def test_value_and_gradient_are_those_of_a_loop_over_single_numbers(case):
    value, gradients = with_gradients(case.loss, case.inputs)
    doubled = [x.double() if x.is_floating_point() else x for x in case.inputs]
    expected, theirs = with_gradients(case.loop, doubled)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected.float(), rtol=1e-5, atol=1e-5)
    reached = []
    for x, *both in zip(case.inputs, gradients, theirs, strict=True):
        gradient, other = (torch.zeros_like(x) if g is None else g for g in both)
        torch.testing.assert_close(gradient, other.to(gradient), rtol=1e-5, atol=1e-5)
        reached.append(float(gradient.abs().max()))
    assert max(reached) > 1e-3


@of(CASES)
def test_the_loss_is_the_same_under_bf16_autocast(case):
    value, gradients = with_gradients(case.loss, case.inputs)

    def under(*inputs):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return case.loss(*inputs)

    other, theirs = with_gradients(under, case.inputs)
    assert other.dtype == torch.float32
    assert torch.equal(other, value)
    for one, two in zip(gradients, theirs, strict=True):
        assert one is two is None or torch.equal(one, two)


@of({name: case for name, case in CASES.items() if case.low})
def test_what_a_network_gives_in_bf16_is_taken_as_float32(case):
    low = [x.bfloat16() if x.is_floating_point() else x for x in case.inputs]
    value = case.loss(*low)
    assert value.dtype == torch.float32
    same(value, case.loss(*(x.float() if x.is_floating_point() else x for x in low)))


@of({name: case for name, case in CASES.items() if case.permute})
def test_the_order_of_images_does_not_matter(case):
    if callable(case.permute):
        inputs = case.permute(*case.inputs)
    else:
        size = len(case.inputs[0])
        order = torch.arange(size).roll(1).flip(0)
        inputs = [x[order] if x.ndim and len(x) == size else x for x in case.inputs]
    assert not all(map(torch.equal, inputs, case.inputs))
    same(case.loss(*inputs), case.loss(*case.inputs))


@of({name: case for name, case in CASES.items() if case.swap})
def test_the_order_of_views_does_not_matter(case):
    one, two, *rest = case.inputs if not callable(case.swap) else (None, None)
    inputs = case.swap(*case.inputs) if callable(case.swap) else [two, one, *rest]
    assert not all(map(torch.equal, inputs, case.inputs))
    same(case.loss(*inputs), case.loss(*case.inputs))


@of({name: case for name, case in CASES.items() if case.clusters})
def test_the_names_of_clusters_do_not_matter(case):
    inputs = case.clusters(*case.inputs)
    assert not all(map(torch.equal, inputs, case.inputs))
    same(case.loss(*inputs), case.loss(*case.inputs))


def finite(loss, inputs):
    value, gradients = with_gradients(loss, inputs)
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)


@of(CASES)
def test_two_rows_give_a_finite_loss_and_gradient(case):
    size = len(case.inputs[0])
    finite(case.loss, [x[:2] if x.ndim and len(x) == size else x for x in case.inputs])


@pytest.mark.parametrize("value", [None, 0.0, 1.0, -3.0])
@of({name: case for name, case in CASES.items() if case.equal})
def test_equal_features_everywhere_give_a_finite_loss_and_gradient(case, value):
    """Everywhere the first row, or one number."""
    finite(case.loss, [equal(x, value) if x.is_floating_point() else x for x in case.inputs])


def equal(x, value):
    return x[:1].expand_as(x) if value is None and x.ndim else torch.full_like(x, value or 0.0)
