"""Positions, against their formulas and what they promise."""

import math

import pytest
import torch

from dlrun.errors import ConfigError, ContractError
from dlrun.layers.positions import GridPositions, LearnedPositions, Rotary, SinusoidalPositions, sinusoids


@pytest.mark.parametrize("width", [8, 7])
def test_sinusoids_are_those_of_the_paper(width):
    table = sinusoids(torch.arange(50), width)
    assert table.shape == (50, width)
    for p, i in [(0, 0), (1, 0), (7, 2), (49, 3)]:
        angle = p / 10_000 ** (2 * i / width)
        assert table[p, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
        if 2 * i + 1 < width:
            assert table[p, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_a_shift_is_a_rotation_of_sinusoids():
    # PE(p + k) is linear in PE(p), as sec. 3.5 of the paper says: products depend on the distance alone.
    products = sinusoids(torch.arange(30), 16) @ sinusoids(torch.arange(30), 16).T
    torch.testing.assert_close(products[:-1, :-1], products[1:, 1:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("start", [0, 2, 5, 9])
def test_sinusoids_beyond_those_kept_ready(start):
    x = torch.randn(2, 4, 6)
    torch.testing.assert_close(SinusoidalPositions(6, 6)(x, start), SinusoidalPositions(60, 6)(x, start))
    torch.testing.assert_close(Rotary(6, 6)(x[:, None], start), Rotary(60, 6)(x[:, None], start))


def test_rotary_turns_pairs_by_their_angles():
    x = torch.randn(1, 1, 5, 6, dtype=torch.float64)
    turned = torch.view_as_complex(torch.stack(x.chunk(2, -1), -1))
    rates = torch.tensor([10_000 ** (-2 * i / 6) for i in range(3)], dtype=torch.float64)
    expected = turned * torch.polar(torch.ones(5, 3, dtype=torch.float64), torch.arange(5)[:, None] * rates)
    actual = torch.view_as_complex(torch.stack(Rotary(5, 6)(x).chunk(2, -1), -1))
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)


def test_rotated_products_depend_on_the_distance_alone():
    rotary, q, k = Rotary(200, 8), torch.randn(1, 2, 1, 8), torch.randn(1, 2, 1, 8)
    q, k = q.expand(-1, -1, 20, -1), k.expand(-1, -1, 20, -1)
    here = rotary(q) @ rotary(k).mT
    torch.testing.assert_close(here[..., :-1, :-1], here[..., 1:, 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(rotary(q, 150) @ rotary(k, 150).mT, here, atol=1e-4, rtol=0)
    assert not torch.allclose(rotary(q, 1) @ rotary(k).mT, here, atol=1e-2)


def test_rotary_keeps_lengths_and_the_number_format():
    x = torch.randn(2, 3, 5, 8)
    torch.testing.assert_close(Rotary(5, 8)(x).norm(dim=-1), x.norm(dim=-1))
    assert Rotary(5, 8)(x.bfloat16()).dtype == torch.bfloat16


def test_a_grid_tells_rows_in_one_half_and_columns_in_the_other():
    added = GridPositions(3, 4, 8, extra=True)(torch.zeros(2, 13, 8))
    assert not added[:, 0].any()
    grid = added[1, 1:].view(3, 4, 8)
    torch.testing.assert_close(grid[:, 2, :4], sinusoids(torch.arange(3), 4))
    torch.testing.assert_close(grid[1, :, 4:], sinusoids(torch.arange(4), 4))


def test_learned_positions_end():
    positions = LearnedPositions(5, 4, 0.1)
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(positions(x, 2) - x, positions.embedding[2:5].expand(2, -1, -1))
    with pytest.raises(ContractError, match=r"learned 5 positions and was given 6 tokens.*model.positions=rotary"):
        positions(x, 3)


def test_odd_heads_cannot_be_rotated():
    with pytest.raises(ConfigError, match=r"model.width / model.heads is 5: make it even"):
        Rotary(4, 5)
