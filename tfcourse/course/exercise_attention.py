"""Exercises on the parts of a block, with the mistakes that people make in them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tfcourse.course.exercise import Exercise
from tfcourse.model import attention


def _answer_weights(query: Tensor, key: Tensor) -> Tensor:
    return attention.attention_weights(query, key, scale=query.shape[-1] ** -0.5)


def _normalised_over_queries(query: Tensor, key: Tensor) -> Tensor:
    return (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-2)


def _divided_by_width(query: Tensor, key: Tensor) -> Tensor:
    return (query @ key.mT / query.shape[-1]).softmax(-1)


def _divided_after(query: Tensor, key: Tensor) -> Tensor:
    return (query @ key.mT).softmax(-1) / math.sqrt(query.shape[-1])


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


SCALED_WEIGHTS = Exercise(
    name="scaled_weights",
    cases=lambda: [
        (_random(4, 3, seed=0), _random(4, 3, seed=1)),
        (_random(2, 8, seed=2), _random(5, 8, seed=3)),
        (_random(2, 3, 16, seed=4), _random(2, 3, 16, seed=5)),
    ],
    answer=_answer_weights,
    mistakes={
        "the root is missing: divide the scores by √dₖ": lambda q, k: (
            q @ k.mT
        ).softmax(-1),
        "the softmax runs over the queries: each *row* must sum to one, so take it "
        "over the last dimension": _normalised_over_queries,
        "the scores are divided by dₖ, not by its root": _divided_by_width,
        "the division comes after the softmax: rows no longer sum to one": (
            _divided_after
        ),
        "these are the scores; the softmax is missing": lambda q, k: (
            q @ k.mT / math.sqrt(q.shape[-1])
        ),
        "this is the weights of keys for queries: compare query with key, `q @ kᵀ`, "
        "not key with query": lambda q, k: _answer_weights(k, q),
    },
)


def _answer_split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _cut_across_positions(x: Tensor, heads: int) -> Tensor:
    batch, seq, width = x.shape
    return x.reshape(batch, heads, seq, width // heads)


def _interleaved(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (-1, heads)).permute(0, 3, 1, 2)


SPLIT_HEADS = Exercise(
    name="split_heads",
    cases=lambda: [
        (torch.arange(24.0).view(1, 3, 8), 2),
        (torch.arange(96.0).view(2, 4, 12), 3),
    ],
    answer=_answer_split,
    mistakes={
        "`view` or `reshape` straight to [batch, heads, seq, width] cuts across "
        "positions: split the last dimension first, then transpose": (
            _cut_across_positions
        ),
        "the heads are split off, but not moved before the positions: "
        "transpose": lambda x, heads: x.unflatten(-1, (heads, -1)),
        "the features of a head must be neighbours; these are taken in turn": (
            _interleaved
        ),
        "positions and features are exchanged within each head": lambda x, heads: (
            _answer_split(x, heads).mT
        ),
    },
)


def _answer_parameters(d_model: int, d_ff: int) -> int:
    return 4 * d_model**2 + 2 * d_model * d_ff


BLOCK_WEIGHTS = Exercise(
    name="block_weights",
    cases=lambda: [(8, 32), (512, 2048), (64, 100)],
    answer=_answer_parameters,
    mistakes={
        "the output projection of attention is missing: query, key, value *and* "
        "output are d × d each": lambda d, f: 3 * d**2 + 2 * d * f,
        "the feed-forward network has two matrices, d × d_ff and d_ff × d": (
            lambda d, f: 4 * d**2 + d * f
        ),
        "this is attention alone; the feed-forward network is missing": (
            lambda d, f: 4 * d**2
        ),
        "this is the feed-forward network alone; attention is missing": (
            lambda d, f: 2 * d * f
        ),
        "12d² is the sum only where d_ff is 4d; here it is given": (
            lambda d, f: 12 * d**2
        ),
        "biases are not asked for": lambda d, f: 4 * d**2 + 2 * d * f + 5 * d + f,
    },
)
