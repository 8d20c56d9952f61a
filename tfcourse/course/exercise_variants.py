"""Exercises on cheaper attention, hardware and experts, with known mistakes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tfcourse.course.exercise import Exercise

TOKENS_IN_REACH = Exercise(
    name="tokens_in_reach",
    cases=lambda: [(1, 8), (2, 8), (6, 64), (32, 4096), (3, 1)],
    answer=lambda layers, window: 1 + layers * (window - 1),
    mistakes={
        "this is what one layer sees": lambda layers, window: window,
        "a layer adds `window` − 1 tokens: the query's own is counted anew in each "
        "layer": lambda layers, window: layers * window,
        "these are the tokens before it: the token itself is missing": (
            lambda layers, window: layers * (window - 1)
        ),
        "reach adds up, it does not multiply: each layer moves by one window": (
            lambda layers, window: window**layers
        ),
        "the window looks back only, not to both sides": (
            lambda layers, window: 1 + 2 * layers * (window - 1)
        ),
    },
)


def _running(query: Tensor, key: Tensor, value: Tensor, own: int = 0) -> Tensor:
    weight = (query @ key.T).tril(own)
    return weight @ value / weight.sum(-1, keepdim=True)


def _running_case(length: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(2, length, 4, generator=generator) + 0.1
    return *features, torch.randn(length, 3, generator=generator)


def _summed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.T).tril() @ value


def _causal_softmax(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    hidden = torch.ones(len(query), len(query), dtype=torch.bool).triu(1)
    return (query @ key.T).masked_fill(hidden, -torch.inf).softmax(-1) @ value


RUNNING_ATTENTION = Exercise(
    name="running_attention",
    cases=lambda: [_running_case(6, 0), _running_case(9, 1)],
    answer=_running,
    mistakes={
        "every query sees all keys; it may see its own and those before": (
            lambda q, k, v: q @ (k.T @ v) / (q @ k.sum(0))[:, None]
        ),
        "the sums are right; divide by the sum of the weights": _summed,
        "the values stop at the query, and the divisor counts all keys: it looks "
        "ahead": lambda q, k, v: _summed(q, k, v) / (q @ k.sum(0))[:, None],
        "the state is read before the token's own key and value are in it": (
            lambda q, k, v: _running(q, k, v, own=-1).nan_to_num()
        ),
        "this is softmax attention: the weights here are the products themselves": (
            _causal_softmax
        ),
        "this divides by the number of keys, not by the sum of the weights": (
            lambda q, k, v: _summed(q, k, v) / torch.arange(1.0, len(q) + 1)[:, None]
        ),
    },
)


def _intensity(rows: int, width: int, out: int, size: int) -> float:
    moved = rows * width + width * out + rows * out
    return 2 * rows * width * out / (size * moved)


INTENSITY = Exercise(
    name="intensity",
    cases=lambda: [(1, 512, 512, 2), (256, 1024, 4096, 2), (8, 64, 256, 4)],
    answer=_intensity,
    mistakes={
        "a multiplication and an addition are two operations": (
            lambda r, w, o, s: _intensity(r, w, o, s) / 2
        ),
        "this is for each number; a number has `size` bytes": (
            lambda r, w, o, s: _intensity(r, w, o, 1)
        ),
        "the weights are counted, and what is read and written beside them is not": (
            lambda r, w, o, s: 2 * r / s
        ),
        "the result has to be written, too": lambda r, w, o, s: (
            2 * r * w * o / (s * (r * w + w * o))
        ),
        "the input has to be read, too": lambda r, w, o, s: (
            2 * r * w * o / (s * (r * o + w * o))
        ),
        "it is upside down: operations for each byte, not bytes for each operation": (
            lambda r, w, o, s: 1 / _intensity(r, w, o, s)
        ),
    },
)


def _balance(probability: Tensor, chosen: Tensor) -> float:
    count = probability.shape[1]
    share = F.one_hot(chosen, count).double().mean(0)
    return float(count * (share * probability.double().mean(0)).sum())


def _shares(probability: Tensor, chosen: Tensor) -> Tensor:
    return F.one_hot(chosen, probability.shape[1]).double().mean(0)


def _balance_case(tokens: int, experts: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(tokens, experts, generator=generator)
    probability = (scores + torch.arange(experts) / 2).softmax(-1)
    return probability, probability.argmax(-1)


BALANCE = Exercise(
    name="balance",
    cases=lambda: [_balance_case(12, 4, 0), _balance_case(40, 8, 1)],
    answer=_balance,
    mistakes={
        "the factor is missing: times the number of experts, even use gives 1": (
            lambda p, c: _balance(p, c) / p.shape[1]
        ),
        "shares of choices are multiplied with themselves: nothing of it has a "
        "gradient": lambda p, c: float(p.shape[1] * _shares(p, c).square().sum()),
        "the mean probability is multiplied with itself: the shares of the choices are "
        "missing": lambda p, c: float(p.shape[1] * p.double().mean(0).square().sum()),
        "these are counts, not shares: divide by the number of tokens": (
            lambda p, c: _balance(p, c) * len(p)
        ),
        "this is the mean probability of the chosen expert, which is no measure of "
        "balance": lambda p, c: float(p.gather(1, c[:, None]).double().mean()),
    },
)
