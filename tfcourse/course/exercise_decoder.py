"""Exercises on encoder and decoder, with the mistakes that people make in them."""

from __future__ import annotations

import torch
from torch import Tensor

from tfcourse.course.exercise import Exercise
from tfcourse.data.pairs import IGNORE
from tfcourse.model.attention import attention_weights
from tfcourse.training.losses import token_loss


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _answer_input(target: Tensor, start: int) -> Tensor:
    first = torch.full_like(target[:, :1], start)
    return torch.cat((first, target[:, :-1]), dim=1)


def _kept_last(target: Tensor, start: int) -> Tensor:
    return torch.cat((torch.full_like(target[:, :1], start), target), dim=1)


def _overwritten(target: Tensor, start: int) -> Tensor:
    return torch.cat((torch.full_like(target[:, :1], start), target[:, 1:]), dim=1)


def _shifted_left(target: Tensor, start: int) -> Tensor:
    return torch.cat((target[:, 1:], torch.full_like(target[:, :1], start)), dim=1)


DECODER_INPUT = Exercise(
    name="decoder_input",
    cases=lambda: [
        (torch.tensor([[5, 6, 7, 2]]), 1),
        (torch.tensor([[8, 2], [9, 2]]), 1),
        (torch.tensor([[4, 9, 9, 5, 2], [6, 5, 4, 8, 2]]), 3),
    ],
    answer=_answer_input,
    mistakes={
        "this is the target itself: at each position the decoder would read what it "
        "is to answer": lambda target, start: target,
        "the row is shifted to the left: the decoder would read the token *after* the "
        "one it is to answer": _shifted_left,
        "the last token has come round to the front: what stands first must be "
        "`start`": lambda target, start: target.roll(1, dims=1),
        "`start` was put in front, but the last token was kept: input and target must "
        "be equally long": _kept_last,
        "`start` has overwritten the first token; nothing was shifted": _overwritten,
        "`start` has overwritten the last token; nothing was "
        "shifted": lambda target, start: torch.cat(
            (target[:, :-1], torch.full_like(target[:, :1], start)), dim=1
        ),
    },
)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return attention_weights(query, key, scale=query.shape[-1] ** -0.5) @ value


def _answer_cross(
    x: Tensor, memory: Tensor, w_query: Tensor, w_key: Tensor, w_value: Tensor
) -> Tensor:
    return _attend(x @ w_query, memory @ w_key, memory @ w_value)


def _self_attention(
    x: Tensor, memory: Tensor, w_query: Tensor, w_key: Tensor, w_value: Tensor
) -> Tensor:
    return _attend(x @ w_query, x @ w_key, x @ w_value)


def _turned_round(
    x: Tensor, memory: Tensor, w_query: Tensor, w_key: Tensor, w_value: Tensor
) -> Tensor:
    return _attend(memory @ w_query, x @ w_key, x @ w_value)


def _not_scaled(
    x: Tensor, memory: Tensor, w_query: Tensor, w_key: Tensor, w_value: Tensor
) -> Tensor:
    return ((x @ w_query) @ (memory @ w_key).mT).softmax(-1) @ (memory @ w_value)


def _over_queries(
    x: Tensor, memory: Tensor, w_query: Tensor, w_key: Tensor, w_value: Tensor
) -> Tensor:
    score = (x @ w_query) @ (memory @ w_key).mT * w_query.shape[-1] ** -0.5
    return score.softmax(-2) @ (memory @ w_value)


def _raw_values(
    x: Tensor, memory: Tensor, w_query: Tensor, w_key: Tensor, w_value: Tensor
) -> Tensor:
    return _attend(x @ w_query, memory @ w_key, memory)


def _joined(
    x: Tensor, memory: Tensor, w_query: Tensor, w_key: Tensor, w_value: Tensor
) -> Tensor:
    both = torch.cat((memory, x))
    return _attend(x @ w_query, both @ w_key, both @ w_value)


def _cross_case(m: int, n: int, d: int, seed: int) -> tuple[Tensor, ...]:
    shapes = ((m, d), (n, d), (d, d), (d, d), (d, d))
    return tuple(_random(*shape, seed=seed + i) for i, shape in enumerate(shapes))


CROSS_ATTENTION = Exercise(
    name="cross_attention",
    cases=lambda: [_cross_case(3, 5, 4, 0), _cross_case(2, 2, 8, 9)],
    answer=_answer_cross,
    mistakes={
        "this is self-attention: keys and values come from the encoder's `memory`": (
            _self_attention
        ),
        "the two sides are exchanged: the decoder asks, so queries come from `x`, keys "
        "and values from `memory`": _turned_round,
        "the root is missing: divide the scores by √d": _not_scaled,
        "the softmax runs over the queries: take it over the source, the last "
        "dimension": _over_queries,
        "the values are the encoder's states themselves; project them by "
        "`w_value`": _raw_values,
        "the decoder's own states are among the keys: they belong to self-attention, "
        "which is another layer": _joined,
    },
)


def _answer_log_probability(logits: Tensor, target: Tensor) -> float:
    return -float(token_loss(logits, target)[0])


def _asked(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    asked = target != IGNORE
    return logits[asked], target[asked]


def _mean_log_probability(logits: Tensor, target: Tensor) -> float:
    total, count = token_loss(logits, target)
    return -float(total / count)


def _counts_padding(logits: Tensor, target: Tensor) -> float:
    chosen = logits.log_softmax(-1).gather(-1, target.clamp(min=0)[:, None])
    return float(chosen.sum())


def _sum_of_logits(logits: Tensor, target: Tensor) -> float:
    rows, wanted = _asked(logits, target)
    return float(rows.gather(-1, wanted[:, None]).sum())


def _sum_of_probabilities(logits: Tensor, target: Tensor) -> float:
    rows, wanted = _asked(logits, target)
    return float(rows.softmax(-1).gather(-1, wanted[:, None]).sum())


def _best_tokens(logits: Tensor, target: Tensor) -> float:
    rows, _ = _asked(logits, target)
    return float(rows.log_softmax(-1).amax(-1).sum())


LOG_PROBABILITY = Exercise(
    name="log_probability",
    cases=lambda: [
        (_random(3, 5, seed=1), torch.tensor([4, 0, 2])),
        (_random(4, 6, seed=2), torch.tensor([1, 5, IGNORE, IGNORE])),
        (_random(2, 3, seed=3), torch.tensor([2, 2])),
    ],
    answer=_answer_log_probability,
    mistakes={
        "this is the loss, −log p: the sign is turned": lambda logits, target: (
            -_answer_log_probability(logits, target)
        ),
        "this is the mean; the logarithm of a product is a *sum*": (
            _mean_log_probability
        ),
        "this is p, not log p: for long outputs it is too small for a "
        "float": lambda logits, target: float(
            torch.tensor(_answer_log_probability(logits, target)).exp()
        ),
        "padding counts too: leave out places where the target is −100": (
            _counts_padding
        ),
        "these are sums of logits: take the log-softmax over the vocabulary "
        "first": _sum_of_logits,
        "these are sums of probabilities: add their logarithms": _sum_of_probabilities,
        "this scores the likeliest tokens, not those of the target": _best_tokens,
    },
)


def _answer_cached(layers: int, width: int, source: int, target: int) -> int:
    return 2 * layers * width * (source + target)


CACHED_NUMBERS = Exercise(
    name="cached_numbers",
    cases=lambda: [(1, 8, 5, 3), (2, 64, 11, 12), (6, 512, 30, 1)],
    answer=_answer_cached,
    mistakes={
        "keys *and* values are kept: twice as much": lambda layers, d, n, m: (
            layers * d * (n + m)
        ),
        "cross-attention's keys and values of the source are missing": (
            lambda layers, d, n, m: 2 * layers * d * m
        ),
        "the decoder's own keys and values are missing": lambda layers, d, n, m: (
            2 * layers * d * n
        ),
        "each layer has keys and values of its own": lambda layers, d, n, m: (
            2 * d * (n + m)
        ),
        "the source's keys and values do not change from step to step: they are kept "
        "once, not once a token": lambda layers, d, n, m: 2 * layers * d * (n * m + m),
        "these are attention's weights, n·m and m·m; what is kept are vectors": (
            lambda layers, d, n, m: layers * (n * m + m * m)
        ),
    },
)
