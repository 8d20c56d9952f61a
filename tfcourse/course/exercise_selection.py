"""Exercises on what attention selects, with the mistakes that people make in them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tfcourse.course.exercise import Exercise


def _answer_weight(gap: float, tokens: int) -> float:
    return math.exp(gap) / (math.exp(gap) + tokens - 1)


RELEVANT_WEIGHT = Exercise(
    name="relevant_weight",
    cases=lambda: [(1.0, 6), (5.0, 100), (0.0, 4), (3.0, 2000)],
    answer=_answer_weight,
    mistakes={
        "there are `tokens` − 1 others; the relevant one is counted twice": (
            lambda gap, n: math.exp(gap) / (math.exp(gap) + n)
        ),
        "scores are not shares: take the exponential first": (
            lambda gap, n: gap / (gap + n - 1)
        ),
        "this is the weight against a single other token": (
            lambda gap, n: math.exp(gap) / (math.exp(gap) + 1)
        ),
        "this is what all the others get together": (
            lambda gap, n: 1 - _answer_weight(gap, n)
        ),
        "the relevant token's own term is missing in the sum": (
            lambda gap, n: math.exp(gap) / (n - 1)
        ),
        "the softmax uses e, not 2": lambda gap, n: 2**gap / (2**gap + n - 1),
    },
)


def _answer_ignored(lengths: Tensor, size: int) -> Tensor:
    return torch.arange(size) >= lengths[:, None]


IGNORED_KEYS = Exercise(
    name="ignored_keys",
    cases=lambda: [(torch.tensor([2, 4, 1]), 4), (torch.tensor([3, 3]), 5)],
    answer=_answer_ignored,
    mistakes={
        "it is inverted: `nn.MultiheadAttention` *ignores* keys where its mask is "
        "`True`": lambda n, size: ~_answer_ignored(n, size),
        "the last real token of each row is hidden too": lambda n, size: (
            torch.arange(size) >= n[:, None] - 1
        ),
        "the first padding token of each row is still seen": lambda n, size: (
            torch.arange(size) > n[:, None]
        ),
        "the padding stands on the right: the first tokens are real": (
            lambda n, size: _answer_ignored(n, size).flip(1)
        ),
        "it is transposed: one row for each sequence, one column for each key": (
            lambda n, size: _answer_ignored(n, size).T
        ),
        "this is a mask to be added, 0 and −∞; asked for are bools": lambda n, size: (
            torch.zeros(len(n), size).masked_fill(_answer_ignored(n, size), -torch.inf)
        ),
        "the pattern is right, but as integers; compare, or call `.bool()`": (
            lambda n, size: _answer_ignored(n, size).long()
        ),
    },
)


def _answer_mean(scores: Tensor, values: Tensor, tile: int) -> Tensor:
    return scores.softmax(0) @ values


def _tiles(
    scores: Tensor, values: Tensor, tile: int, *, scale_sum: bool, scale_mix: bool
) -> Tensor:
    """Build the mean tile by tile, scaling down what is summed where told to."""
    top, total = scores.new_tensor(-1e30), scores.new_zeros(())
    mixed = torch.zeros_like(values[0])
    for part, value in zip(scores.split(tile), values.split(tile), strict=True):
        higher = torch.maximum(top, part.max())
        shrink, weight = (top - higher).exp(), (part - higher).exp()
        total = total * (shrink if scale_sum else 1) + weight.sum()
        mixed = mixed * (shrink if scale_mix else 1) + weight @ value
        top = higher
    return mixed / total


def _mean_of_means(scores: Tensor, values: Tensor, tile: int) -> Tensor:
    parts = zip(scores.split(tile), values.split(tile), strict=True)
    return torch.stack([part.softmax(0) @ value for part, value in parts]).mean(0)


def _not_divided(scores: Tensor, values: Tensor, tile: int) -> Tensor:
    return (scores - scores.max()).exp() @ values


def _last_tile_lost(scores: Tensor, values: Tensor, tile: int) -> Tensor:
    whole = len(scores) // tile * tile
    return _answer_mean(scores[:whole], values[:whole], tile)


def _tile_case(length: int, tile: int, seed: int) -> tuple[Tensor, Tensor, int]:
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(length, generator=generator).sort().values  # all rise
    return scores, torch.randn(length, 3, generator=generator), tile


MEAN_IN_TILES = Exercise(
    name="mean_in_tiles",
    cases=lambda: [_tile_case(6, 2, 0), _tile_case(7, 3, 1), _tile_case(40, 8, 2)],
    answer=_answer_mean,
    mistakes={
        "what was summed before is not scaled down when a larger score comes": (
            lambda s, v, t: _tiles(s, v, t, scale_sum=False, scale_mix=False)
        ),
        "the values so far are scaled down, and their sum of weights is not": (
            lambda s, v, t: _tiles(s, v, t, scale_sum=False, scale_mix=True)
        ),
        "the sum of weights is scaled down, and the values so far are not": (
            lambda s, v, t: _tiles(s, v, t, scale_sum=True, scale_mix=False)
        ),
        "each tile has a softmax of its own, and tiles count alike: a tile counts by "
        "the sum of its exponentials": _mean_of_means,
        "the division by the sum of the exponentials is missing": _not_divided,
        "the last tile is shorter, and was left out": _last_tile_lost,
        "these are the weights; the values are missing": lambda s, v, t: s.softmax(0),
    },
)


def _answer_cache(layers: int, heads: int, kv_heads: int, head_dim: int) -> int:
    return 2 * layers * kv_heads * head_dim


NUMBERS_PER_TOKEN = Exercise(
    name="numbers_per_token",
    cases=lambda: [(2, 8, 2, 64), (12, 12, 12, 64), (32, 32, 8, 128)],
    answer=_answer_cache,
    mistakes={
        "queries are not kept: count the heads of keys and values": (
            lambda n, h, kv, d: 2 * n * h * d
        ),
        "keys *and* values are kept: a factor of two is missing": (
            lambda n, h, kv, d: n * kv * d
        ),
        "every layer keeps its own": lambda n, h, kv, d: 2 * kv * d,
        "this is the number of heads that share a key, not of key heads": (
            lambda n, h, kv, d: 2 * n * (h // kv) * d
        ),
        "queries are not kept: only keys and values are": (
            lambda n, h, kv, d: n * (h + 2 * kv) * d
        ),
    },
)
