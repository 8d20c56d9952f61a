"""Exercises on masks, with the mistakes that people make in them."""

from __future__ import annotations

import torch
from torch import Tensor

from tfcourse.course.exercise import Exercise
from tfcourse.model.masks import causal, dense


def _answer(length: int) -> Tensor:
    index = torch.arange(length)
    return dense(causal, batch=1, query=index, key=index)[0, 0]


def _additive(length: int) -> Tensor:
    return torch.zeros(length, length).masked_fill(~_answer(length), -torch.inf)


def _not_a_number(length: int) -> Tensor:
    return (1 - _answer(length).float()) * -torch.inf


CAUSAL_MASK = Exercise(
    name="causal_mask",
    cases=lambda: [(3,), (1,), (5,)],
    answer=_answer,
    mistakes={
        "it is inverted: `True` must mean *may attend*, and a query sees only "
        "itself and what stands before it": lambda n: ~_answer(n),
        "it is transposed: queries are rows and keys are columns, so what may be "
        "seen lies on and *below* the diagonal": lambda n: _answer(n).T,
        "the diagonal is missing: a query may attend to its own position, and the "
        "first one has nothing else": lambda n: torch.ones(n, n).tril(-1).bool(),
        "it reaches one too far: a query sees the next position, which it is to "
        "predict": lambda n: torch.ones(n, n).tril(1).bool(),
        "nothing is masked": lambda n: torch.ones(n, n, dtype=torch.bool),
        "it is an additive mask, 0 and −∞, for adding to the scores; asked for are "
        "bools": _additive,
        "0 times −∞ is not a number: multiply nothing by −∞, and return "
        "bools": _not_a_number,
        "the pattern is right, but as numbers; compare, or call `.bool()`": lambda n: (
            torch.ones(n, n).tril()
        ),
        "the pattern is right, but as integers; compare, or call `.bool()`": lambda n: (
            torch.ones(n, n, dtype=torch.long).tril()
        ),
    },
)
