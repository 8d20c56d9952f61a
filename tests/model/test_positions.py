"""Position schemes against the formulas they come from."""

import math

import pytest
import torch
from small_models import POSITIONS, small_config
from torch import Tensor

from tfcourse.model.positions import angles, position_scheme, rotate, sinusoids


def turned(x: Tensor, position: Tensor, width: int) -> Tensor:
    """Rotate in float64, with angles that were not rounded to float32."""
    angle = angles(position, width)[None, None]
    return rotate(x, (angle.cos(), angle.sin()))


def test_sinusoids_are_the_papers_formula() -> None:
    table = sinusoids(torch.arange(50), 6)
    for place in (0, 1, 7, 49):
        for pair in range(3):
            angle = place / 10_000 ** (2 * pair / 6)
            assert table[place, 2 * pair].item() == pytest.approx(math.sin(angle))
            assert table[place, 2 * pair + 1].item() == pytest.approx(math.cos(angle))


def test_only_some_schemes_add_and_only_rotary_turns() -> None:
    position = torch.tensor([[3, 0, 5]])
    for name in POSITIONS:
        scheme = position_scheme(small_config(position=name), causal=True)
        added, turn = scheme.embed(position), scheme.rotation(position)
        assert (added is not None) == (name in ("sinusoidal", "learned"))
        assert (turn is not None) == (name == "rotary")


def test_embeddings_are_looked_up_at_the_positions_given() -> None:
    position = torch.tensor([[3, 0, 3], [15, 14, 1]])
    sinusoidal = position_scheme(small_config(position="sinusoidal"), causal=True)
    assert torch.equal(
        sinusoidal.embed(position), sinusoids(position.flatten(), 8).view(2, 3, 8)
    )
    learned = position_scheme(small_config(position="learned"), causal=True)
    assert torch.equal(learned.embed(position), learned.table.weight[position])


def test_rotary_turns_pairs_as_complex_numbers() -> None:
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    position = torch.tensor([0, 1, 2, 7, 15])
    pairs = torch.complex(x[..., :4], x[..., 4:])
    angle = position[:, None] * 10_000.0 ** (-torch.arange(4).double() / 4)
    expected = pairs * torch.polar(torch.ones_like(angle), angle)
    found = turned(x, position, 8)
    assert torch.allclose(torch.complex(found[..., :4], found[..., 4:]), expected)


def test_the_scheme_turns_by_the_angles_of_its_positions() -> None:
    position = torch.tensor([[3, 0, 15], [9, 1, 2]])
    scheme = position_scheme(small_config(position="rotary", head_dim=6), causal=True)
    x = torch.randn(2, 4, 3, 6)
    found = rotate(x, scheme.rotation(position))
    for row in range(2):
        expected = turned(x[row : row + 1].double(), position[row], 6)
        assert torch.allclose(found[row].double(), expected[0], atol=1e-6)


@pytest.mark.parametrize("shift", [1, 100, 10_000])
def test_a_rotary_score_depends_on_the_offset_alone(shift: int) -> None:
    query, key = torch.randn(2, 1, 1, 12, 16, dtype=torch.float64)
    place = torch.arange(12)

    def scores(start: int) -> Tensor:
        turn = turned(query, place + start, 16), turned(key, place + start, 16)
        return turn[0] @ turn[1].transpose(-2, -1)

    assert torch.allclose(scores(0), scores(shift))
    moved = turned(query, place + shift, 16) @ turned(key, place, 16).transpose(-2, -1)
    assert not torch.allclose(scores(0), moved, atol=0.1)


def test_rotation_keeps_lengths_and_leaves_position_zero() -> None:
    x = torch.randn(1, 2, 6, 4, dtype=torch.float64)
    found = turned(x, torch.arange(6), 4)
    assert torch.allclose(found.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(found[:, :, 0], x[:, :, 0])
    assert not torch.allclose(found[:, :, 1], x[:, :, 1], atol=0.1)


def test_the_gradient_of_rotate_is_right() -> None:
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: turned(y, torch.arange(3), 4), x)


@pytest.mark.parametrize("name", POSITIONS)
def test_tables_are_no_part_of_the_saved_weights(name: str) -> None:
    scheme = position_scheme(small_config(position=name), causal=True)
    assert set(scheme.state_dict()) == (
        {"table.weight"} if name in ("learned", "relative") else set()
    )
