"""Exercises on what can be done at once, with the mistakes that people make in them."""

from __future__ import annotations

import torch
from torch import Tensor

from tfcourse.course.exercise import Exercise

Tile = tuple[Tensor, Tensor, Tensor]  # largest score, sum of weights, weighted values
Step = tuple[float, float]  # of h -> a·h + b


def _answer_cost(tokens: int, width: int, gates: int) -> tuple[int, int]:
    return tokens * 2 * gates * width**2, tokens


RECURRENT_COST = Exercise(
    name="recurrent_cost",
    cases=lambda: [(6, 4, 1), (10, 8, 4), (3, 16, 3)],
    answer=_answer_cost,
    mistakes={
        "each gate has two matrices: one for the token, one for the state": (
            lambda n, d, g: (n * g * d**2, n)
        ),
        "the products of one token are there, those of the others are missing": (
            lambda n, d, g: (2 * g * d**2, n)
        ),
        "each gate has matrices of its own": lambda n, d, g: (n * 2 * d**2, n),
        "the chain is too short: a token's state needs the state before "
        "it": lambda n, d, g: (n * 2 * g * d**2, 1),
        "the chain is too long: the gates of one token do not wait for one "
        "another": lambda n, d, g: (n * 2 * g * d**2, n * g),
        "a recurrent layer compares no pairs of tokens: its work has no n²": (
            lambda n, d, g: (n**2 * 2 * g * d**2, n)
        ),
    },
)


def _answer_tiles(first: Tile, then: Tile) -> Tile:
    top = torch.maximum(first[0], then[0])
    scaled = [
        (total * (own - top).exp(), mixed * (own - top).exp()[:, None])
        for own, total, mixed in (first, then)
    ]
    return top, scaled[0][0] + scaled[1][0], scaled[0][1] + scaled[1][1]


def _not_scaled(first: Tile, then: Tile) -> Tile:
    return torch.maximum(first[0], then[0]), first[1] + then[1], first[2] + then[2]


def _scaled_up(first: Tile, then: Tile) -> Tile:
    top, _, _ = _answer_tiles(first, then)
    up = [(top - own).exp() for own in (first[0], then[0])]
    total = first[1] * up[0] + then[1] * up[1]
    return top, total, first[2] * up[0][:, None] + then[2] * up[1][:, None]


def _first_scaled(first: Tile, then: Tile) -> Tile:
    top, down = then[0], (first[0] - then[0]).exp()
    return top, first[1] * down + then[1], first[2] * down[:, None] + then[2]


def _sums_alone_scaled(first: Tile, then: Tile) -> Tile:
    top, total, _ = _answer_tiles(first, then)
    return top, total, first[2] + then[2]


def _divided(first: Tile, then: Tile) -> Tile:
    top, total, mixed = _answer_tiles(first, then)
    return top, total, mixed / total[:, None]


def _tops_added(first: Tile, then: Tile) -> Tile:
    _, total, mixed = _answer_tiles(first, then)
    return first[0] + then[0], total, mixed


def _tile(queries: int, keys: int, width: int, seed: int) -> Tile:
    generator = torch.Generator().manual_seed(seed)
    score = 3 * torch.randn(queries, keys, generator=generator)
    value = torch.randn(keys, width, generator=generator)
    top = score.amax(-1)
    weight = (score - top[:, None]).exp()
    return top, weight.sum(-1), weight @ value


JOIN_TILES = Exercise(
    name="join_tiles",
    cases=lambda: [
        (_tile(4, 3, 2, seed=0), _tile(4, 5, 2, seed=1)),
        (_tile(6, 4, 3, seed=2), _tile(6, 4, 3, seed=3)),
    ],
    answer=_answer_tiles,
    mistakes={
        "the two were taken relative to different largest scores: bring both to the "
        "new one first": _not_scaled,
        "the factor is turned: a larger top makes the old sums *smaller*, by "
        "exp(old top − new top)": _scaled_up,
        "only the first tile is scaled: its own top may be the larger one": (
            _first_scaled
        ),
        "the weighted values need the factor, too, not the sum of weights alone": (
            _sums_alone_scaled
        ),
        "do not divide yet: further tiles may come": _divided,
        "the new top is the larger of the two, not their sum": _tops_added,
    },
)


def _answer_steps(first: Step, then: Step) -> Step:
    return first[0] * then[0], then[0] * first[1] + then[1]


def _value_not_carried(first: Step, then: Step) -> Step:
    return first[0] * then[0], first[1] + then[1]


JOIN_STEPS = Exercise(
    name="join_steps",
    cases=lambda: [((2.0, 3.0), (5.0, 7.0)), ((0.5, -1.0), (0.9, 4.0))],
    answer=_answer_steps,
    mistakes={
        "the order is turned: `then` acts on what `first` has made": (
            lambda first, then: _answer_steps(then, first)
        ),
        "the first step's b passes through the second step: it is multiplied by its "
        "a": _value_not_carried,
        "the factors are multiplied, not added: a₂(a₁h + b₁) + b₂": (
            lambda first, then: (first[0] + then[0], then[0] * first[1] + then[1])
        ),
        "the first step's b is lost": lambda first, then: (first[0] * then[0], then[1]),
        "the second step's b is lost": lambda first, then: (
            first[0] * then[0],
            then[0] * first[1],
        ),
        "these are the states after each step from h = 0; wanted is one step for any "
        "h": lambda first, then: (first[1], then[0] * first[1] + then[1]),
    },
)


def _answer_bytes(
    layers: int, kv_heads: int, head_dim: int, tokens: int, batch: int, bits: int
) -> int:
    return 2 * layers * kv_heads * head_dim * tokens * batch * bits // 8


CACHE_BYTES = Exercise(
    name="cache_bytes",
    cases=lambda: [(2, 4, 16, 100, 1, 32), (32, 8, 128, 4096, 8, 16)],
    answer=_answer_bytes,
    mistakes={
        "keys *and* values are kept: twice as much": lambda m, k, d, n, b, bits: (
            _answer_bytes(m, k, d, n, b, bits) // 2
        ),
        "these are bits: divide by 8": lambda m, k, d, n, b, bits: _answer_bytes(
            m, k, d, n, b, 8 * bits
        ),
        "each sequence of the batch has keys and values of its own": (
            lambda m, k, d, n, b, bits: _answer_bytes(m, k, d, n, 1, bits)
        ),
        "each layer has keys and values of its own": (
            lambda m, k, d, n, b, bits: _answer_bytes(1, k, d, n, b, bits)
        ),
        "each head of keys has a row of width `head_dim`; its number is missing": (
            lambda m, k, d, n, b, bits: _answer_bytes(m, 1, d, n, b, bits)
        ),
        "these are the weights, n² for each head; what is kept are vectors, n": (
            lambda m, k, d, n, b, bits: m * k * n * n * b * bits // 8
        ),
    },
)
