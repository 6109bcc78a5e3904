"""Features of any scale against the same ones at an ordinary scale."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslbench.cluster import kmeans, neighbours
from sslbench.measures import power, unit


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-5, 1.0, 1e5])
def test_an_ordinary_scale_is_left_to_the_bit(size: float, dtype: torch.dtype) -> None:
    x = (size * noise(300, 16)).to(dtype)
    assert (power(x, 0) == 1).all()
    assert (power(x, 1) == 1).all()
    assert torch.equal(unit(x), F.normalize(x, dim=1))


@pytest.mark.parametrize("exponent", [-100, -66, -21, 21, 66, 125])
def test_another_power_of_two_changes_no_bit_of_a_direction(exponent: int) -> None:
    x = noise(300, 16)
    assert torch.equal(unit(x * 2.0**exponent), unit(x))


def test_the_power_is_one_of_two_and_brings_the_largest_to_about_1() -> None:
    rows = 2.0 ** torch.arange(-148, 128, dtype=torch.float64)[:, None]
    found = power(rows.float(), 1)
    assert (torch.frexp(found).mantissa == 0.5).all()
    assert found.dtype == torch.float32
    left = (rows * found)[25:]  # smaller ones have fewer digits
    assert ((left >= 2.0**-21) & (left < 2.0**20)).all()
    assert power(torch.zeros(2, 3), 1).tolist() == [[1], [1]]
    assert power(-rows.float(), 1).equal(found)


def test_a_row_of_zeros_has_no_direction() -> None:
    assert unit(torch.zeros(2, 3)).tolist() == [[0, 0, 0]] * 2


@pytest.mark.parametrize("scale", [1e20, 1e-20, 5e37])
def test_neighbours_and_clusters_of_directions_know_no_scale(scale: float) -> None:
    x = noise(200, 8)
    assert torch.equal(neighbours(x * scale, 5), neighbours(x, 5))
    one, two = (kmeans(part, 4, spherical=True, seed=0) for part in (x, x * scale))
    assert torch.equal(one.assignment, two.assignment)
