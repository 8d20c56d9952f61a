"""Exercises on positions, with the mistakes that people make in them."""

from __future__ import annotations

import torch
from torch import Tensor

from tfcourse.course.exercise import Exercise
from tfcourse.model.positions import angles, rotate, sinusoids, slopes


def _answer_table(length: int, width: int) -> Tensor:
    return sinusoids(torch.arange(length), width)


def _waves(angle: Tensor) -> Tensor:
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1).float()


def _exponent_of_features(length: int, width: int) -> Tensor:
    return _waves(angles(torch.arange(length), 2 * width)[:, : width // 2])


def _exponent_doubled(length: int, width: int) -> Tensor:
    pair = 2 * torch.arange(0, width, 2)
    return _waves(torch.arange(length)[:, None] * 10_000.0 ** (-pair / width))


def _multiplied(length: int, width: int) -> Tensor:
    pair = torch.arange(0, width, 2).double()
    return _waves(torch.arange(length)[:, None] * 10_000.0 ** (pair / width))


def _halves(length: int, width: int) -> Tensor:
    angle = angles(torch.arange(length), width)
    return torch.cat((angle.sin(), angle.cos()), dim=-1).float()


def _cosine_first(length: int, width: int) -> Tensor:
    return _answer_table(length, width).unflatten(-1, (-1, 2)).flip(-1).flatten(1)


SINUSOID_TABLE = Exercise(
    name="sinusoid_table",
    cases=lambda: [(4, 2), (6, 8), (3, 12)],
    answer=_answer_table,
    mistakes={
        "the exponent is i / d: it must be 2i / d, where i counts the *pairs*": (
            _exponent_of_features
        ),
        "the exponent is doubled: with `torch.arange(0, width, 2)` it holds the 2 "
        "already": _exponent_doubled,
        "the position is multiplied by 10000^(2i/d); it must be divided": _multiplied,
        "sines fill the first half and cosines the second; the formula has them in "
        "turn, at features 2i and 2i + 1": _halves,
        "sine and cosine have changed places: the even features are sines": (
            _cosine_first
        ),
        "positions are counted from 1; the first is 0": lambda length, width: sinusoids(
            torch.arange(1, length + 1), width
        ),
        "rows and columns are exchanged: one row for each position": (
            lambda length, width: _answer_table(length, width).T
        ),
    },
)


def _turn(x: Tensor, angle: Tensor) -> Tensor:
    rotation = angle.cos()[None, None], angle.sin()[None, None]
    return rotate(x[None, None], rotation)[0, 0]


def _answer_rotary(x: Tensor, position: Tensor) -> Tensor:
    return _turn(x, angles(position, x.shape[-1]))


def _neighbours_paired(x: Tensor, position: Tensor) -> Tensor:
    halves = torch.cat((x[:, ::2], x[:, 1::2]), dim=-1)
    turned = _answer_rotary(halves, position).chunk(2, dim=-1)
    return torch.stack(turned, dim=-1).flatten(-2)


def _one_angle_for_all(x: Tensor, position: Tensor) -> Tensor:
    return _turn(x, position[:, None].double().expand(-1, x.shape[-1] // 2))


def _sign_lost(x: Tensor, position: Tensor) -> Tensor:
    angle = angles(position, x.shape[-1])
    (first, second), cos, sin = x.chunk(2, dim=-1), angle.cos(), angle.sin()
    return torch.cat((first * cos + second * sin, first * sin + second * cos), -1).to(x)


def _counted_from_slot(x: Tensor, position: Tensor) -> Tensor:
    return _answer_rotary(x, torch.arange(len(x)))


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


ROTARY = Exercise(
    name="rotary",
    cases=lambda: [
        (_random(3, 4, seed=0), torch.tensor([1, 2, 5])),
        (_random(4, 6, seed=1), torch.tensor([0, 1, 2, 9])),
    ],
    answer=_answer_rotary,
    mistakes={
        "it turns the other way round: first · cos − second · sin comes first": (
            lambda x, position: _answer_rotary(x, -position)
        ),
        "neighbouring features are paired; here feature i belongs to feature "
        "i + width / 2": _neighbours_paired,
        "all pairs turn by the same angle: pair i turns by position · "
        "10000^(−2i/width)": _one_angle_for_all,
        "a sign is lost: one of the two sines must be subtracted, or it is no "
        "rotation": _sign_lost,
        "positions are counted from 0 ... n − 1; they are given, and may begin "
        "anywhere": _counted_from_slot,
        "sinusoids are added; a rotation adds nothing and keeps the length": (
            lambda x, position: x + sinusoids(position, x.shape[-1])
        ),
    },
)


def _distance(length: int) -> Tensor:
    place = torch.arange(length)
    return (place[:, None] - place).abs()


def _answer_bias(heads: int, length: int) -> Tensor:
    return -slopes(heads)[:, None, None] * _distance(length)


def _exponents_from_zero(heads: int, length: int) -> Tensor:
    slope = 2.0 ** (-8 * torch.arange(heads) / heads)
    return -slope[:, None, None] * _distance(length)


def _halved_each_head(heads: int, length: int) -> Tensor:
    slope = 2.0 ** -torch.arange(1.0, heads + 1)
    return -slope[:, None, None] * _distance(length)


def _signed(heads: int, length: int) -> Tensor:
    place = torch.arange(length)
    return -slopes(heads)[:, None, None] * (place[:, None] - place)


ALIBI_BIAS = Exercise(
    name="alibi_bias",
    cases=lambda: [(4, 3), (2, 5), (16, 2)],
    answer=_answer_bias,
    mistakes={
        "the sign is wrong: far keys must lose, so the bias is at most 0": (
            lambda heads, length: -_answer_bias(heads, length)
        ),
        "the slopes begin with 2^0: the first head's is 2^(−8/heads)": (
            _exponents_from_zero
        ),
        "each head has half the slope of the one before, whatever their number; the "
        "last slope must be 2^(−8)": _halved_each_head,
        "all heads have one slope: each head needs its own": lambda heads, length: (
            _answer_bias(heads, length)[:1].expand(heads, -1, -1).clone()
        ),
        "the distance has a sign: later keys get a bonus; take its absolute value": (
            _signed
        ),
        "these are the distances; the slopes are missing": lambda heads, length: (
            -_distance(length).float().expand(heads, -1, -1).clone()
        ),
    },
)


def _answer_positions(valid: Tensor) -> Tensor:
    return (valid.long().cumsum(1) - 1).clamp(min=0)


PADDED_POSITIONS = Exercise(
    name="padded_positions",
    cases=lambda: [
        (torch.tensor([[False, False, True, True], [True, True, True, True]]),),
        (torch.tensor([[False, True, True], [False, False, True]]),),
    ],
    answer=_answer_positions,
    mistakes={
        "slots are counted, padding too: the same text gets other positions beside a "
        "longer one": lambda valid: torch.arange(valid.shape[1]).expand(valid.shape),
        "positions begin with 1: subtract one from the running sum": lambda valid: (
            valid.long().cumsum(1)
        ),
        "padding gets −1, which no table has: clamp at 0": lambda valid: (
            valid.long().cumsum(1) - 1
        ),
        "it counts from the right end": lambda valid: (
            valid.shape[1] - 1 - torch.arange(valid.shape[1]).expand(valid.shape)
        ),
        "padding on the right is assumed: real tokens must be 0, 1, 2 ... wherever "
        "they begin": lambda valid: torch.arange(valid.shape[1]) * valid,
    },
)
