"""Position schemes against the formulas they come from."""

import math

import pytest
import torch
from small_models import POSITIONS, EverythingOn, small_config
from torch import Tensor

from tfcourse.model.positions import (
    angles,
    offset_bucket,
    position_scheme,
    rotate,
    sinusoids,
    slopes,
)


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


def test_each_scheme_answers_one_of_the_three_questions() -> None:
    position = torch.tensor([[3, 0, 5]])
    for name in POSITIONS:
        scheme = position_scheme(small_config(position=name), causal=True)
        added, turn = scheme.embed(position), scheme.rotation(position)
        assert (added is not None) == (name in ("sinusoidal", "learned"))
        assert (turn is not None) == (name == "rotary")
        bias = scheme.bias(position, position)
        assert (bias is not None) == (name in ("relative", "alibi"))


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


def test_angles_are_exact_and_where_their_positions_are() -> None:
    angle = angles(torch.tensor([123_457]), 6)
    assert angle.dtype == torch.float64
    exact = [123_457 / 10_000 ** (pair / 3) for pair in range(3)]
    assert angle[0].tolist() == pytest.approx(exact, rel=1e-14)
    with EverythingOn("meta"):
        angles(torch.zeros(3, dtype=torch.long, device="meta"), 6)


@pytest.mark.parametrize("base", [10.0, 500_000.0])
def test_the_base_sets_the_longest_wavelength(base: float) -> None:
    angle = angles(torch.tensor([1]), 6, base)
    expected = [base ** (-2 * pair / 6) for pair in range(3)]
    assert angle[0].tolist() == pytest.approx(expected)
    config = small_config(position="rotary", head_dim=6, rotary_base=base)
    cos, _ = position_scheme(config, causal=True).rotation(torch.tensor([[1]]))
    assert cos[0, 0, 0].tolist() == pytest.approx([math.cos(x) for x in expected])


# ------------------------------------------------------------- T5's relative positions


def test_near_offsets_have_a_bucket_each_and_the_future_has_one_in_a_decoder() -> None:
    offset = torch.arange(-4, 5)
    bucket = offset_bucket(offset, 8, 128, causal=True)
    assert bucket.tolist()[4:] == [0] * 5
    assert bucket.tolist()[1:5] == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("count", "farthest"), [(32, 128), (16, 20), (8, 500), (4, 17)]
)
def test_far_buckets_widen_geometrically(count: int, farthest: int) -> None:
    distance = torch.arange(2 * farthest)
    bucket = offset_bucket(-distance, count, farthest, causal=True)
    assert bucket.diff().min() >= 0
    assert bucket[farthest:].unique().tolist() == [count - 1]
    near = count // 2
    assert bucket[:near].tolist() == list(range(near))
    for far in range(near, farthest):  # the formula, in Python's floats
        share = math.log(far / near) / math.log(farthest / near)
        steps = share * (count - near)
        if abs(steps - round(steps)) > 1e-5:  # on an edge float32 may round either way
            assert bucket[far] == min(near + int(steps), count - 1), far


def test_an_encoder_tells_before_from_after() -> None:
    offset = torch.arange(-300, 301)
    bucket = offset_bucket(offset, 32, 128, causal=False)
    before, after = bucket[:300].flip(0), bucket[301:]
    assert torch.equal(after, before + 16)
    assert bucket[300] == 0
    assert (
        before.tolist()
        == offset_bucket(-torch.arange(1, 301), 16, 128, causal=True).tolist()
    )


@pytest.mark.parametrize("causal", [True, False])
def test_the_relative_bias_is_the_tables_entry(causal: bool) -> None:
    scheme = position_scheme(small_config(position="relative"), causal=causal)
    query, key = torch.tensor([[5, 0]]), torch.tensor([[3, 9, 0]])
    bias = scheme.bias(query, key)
    assert bias.shape == (1, 2, 2, 3)
    for row, column in [(0, 0), (0, 1), (1, 0), (1, 2)]:
        offset = key[0, column] - query[0, row]
        bucket = offset_bucket(offset, 32, 128, causal=causal)
        assert torch.equal(bias[0, :, row, column], scheme.table.weight[bucket])


# ----------------------------------------------------------------------------- ALiBi


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (1, [8]),
        (2, [4, 8]),
        (8, [1, 2, 3, 4, 5, 6, 7, 8]),
        (3, [4, 8, 2]),
        (6, [2, 4, 6, 8, 1, 3]),
        (12, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5]),
    ],
)
def test_slopes_are_the_papers(heads: int, expected: list[float]) -> None:
    assert slopes(heads).tolist() == pytest.approx([2.0**-power for power in expected])


def test_alibi_lowers_scores_by_slope_times_distance() -> None:
    scheme = position_scheme(small_config(position="alibi"), causal=False)
    bias = scheme.bias(torch.tensor([[4, 1]]), torch.tensor([[4, 0, 7]]))
    distance = torch.tensor([[0, 4, 3], [3, 1, 6]])
    assert torch.equal(bias[0, 0], -distance / 2**4)
    assert torch.equal(bias[0, 1], -distance / 2**8)


@pytest.mark.parametrize("name", ["relative", "alibi"])
def test_rows_of_positions_get_rows_of_biases(name: str) -> None:
    scheme = position_scheme(small_config(position=name), causal=True)
    query = torch.tensor([[3, 4], [7, 9]])
    key = torch.tensor([[1, 2, 3, 4], [0, 5, 7, 9]])
    both = scheme.bias(query, key)
    for row in range(2):
        alone = scheme.bias(query[row : row + 1], key[row : row + 1])
        assert torch.equal(both[row], alone[0])
