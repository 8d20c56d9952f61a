"""Exercises on long inputs: what can be seen, kept and used."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tfcourse.course.exercise import Exercise


def _answer_reach(layers: int, window: int, length: int) -> int:
    return min(length, layers * (window - 1) + 1)


INPUTS_IN_REACH = Exercise(
    name="inputs_in_reach",
    cases=lambda: [(1, 4, 100), (2, 8, 100), (3, 5, 100), (6, 16, 40)],
    answer=_answer_reach,
    mistakes={
        "layers times window counts the token where two windows meet twice: each layer "
        "adds window − 1": lambda layers, window, length: min(length, layers * window),
        "the last token itself is missing: it reaches its own output": (
            lambda layers, window, length: min(length, layers * (window - 1))
        ),
        "each layer adds a full window to the first one: it adds window − 1": (
            lambda layers, window, length: min(length, layers * window + 1)
        ),
        "windows do not multiply: a layer adds the same number every time": (
            lambda layers, window, length: min(length, window**layers)
        ),
        "one window, whatever the layers: the second layer reads vectors that have "
        "read before": lambda layers, window, length: min(length, window),
        "a text of `length` tokens has no more inputs than that": (
            lambda layers, window, length: layers * (window - 1) + 1
        ),
    },
)


def _answer_lead(n: int, share: float) -> float:
    return math.log(share * (n - 1) / (1 - share))


NEEDED_LEAD = Exercise(
    name="needed_lead",
    cases=lambda: [(2, 0.5), (6, 0.5), (64, 0.9), (4096, 0.25)],
    answer=_answer_lead,
    mistakes={
        "the others are n − 1, not n: the relevant token is one of the n": (
            lambda n, share: math.log(share * n / (1 - share))
        ),
        "the sign is wrong: the relevant score must be higher": (
            lambda n, share: -_answer_lead(n, share)
        ),
        "a share is compared with the rest: share / (1 − share), not share alone": (
            lambda n, share: math.log(share * (n - 1))
        ),
        "this is the lead over one other token: there are n − 1 of them": (
            lambda n, share: math.log(share / (1 - share))
        ),
        "the logarithm is missing: this is e to the lead": lambda n, share: (
            share * (n - 1) / (1 - share)
        ),
        "a softmax has base e: take the natural logarithm": lambda n, share: (
            _answer_lead(n, share) / math.log(2)
        ),
    },
)


def _logit(gate: float) -> float:
    return math.log(gate / (1 - gate))


FORGET_BIAS = Exercise(
    name="forget_bias",
    cases=lambda: [(1, 0.5), (10, 0.5), (100, 0.9), (40, 0.3)],
    answer=lambda steps, kept: _logit(kept ** (1 / steps)),
    mistakes={
        "this is the gate itself: the bias is what the sigmoid makes it from": (
            lambda steps, kept: kept ** (1 / steps)
        ),
        "the steps are forgotten: the gate acts once at each of them": (
            lambda steps, kept: _logit(kept)
        ),
        "the share is raised to the power of the steps: a root is needed, the gate "
        "must be nearer to one than the share": lambda steps, kept: _logit(kept**steps),
        "the share is divided by the steps: keeping is a product, not a sum": (
            lambda steps, kept: math.log(kept / steps / (1 - kept / steps))
        ),
        "the sign is wrong: an open gate has a positive bias": lambda steps, kept: (
            -_logit(kept ** (1 / steps))
        ),
        "the loss is shared evenly over the steps: what is lost at one step is lost of "
        "what the step before has left": lambda steps, kept: _logit(
            1 - (1 - kept) / steps
        ),
    },
)


def _from_the_end(
    contexts: Sequence[int], losses: Sequence[float], tolerance: float
) -> int:
    shortest = contexts[-1]
    for k, loss in reversed(list(zip(contexts, losses, strict=True))):
        if loss > losses[-1] + tolerance:
            break
        shortest = k
    return shortest


def _first(
    contexts: Sequence[int], enough: Callable[[int], bool], *, otherwise: int = -1
) -> int:
    found = [k for i, k in enumerate(contexts) if enough(i)]
    return found[0] if found else contexts[otherwise]


EFFECTIVE_CONTEXT = Exercise(
    name="effective_context",
    cases=lambda: [
        ([1, 2, 4, 8], [3.0, 2.0, 1.5, 1.49], 0.1),
        ([1, 2, 4, 8, 16], [2.0, 1.95, 1.6, 1.3, 1.28], 0.1),  # a pause at the start
        ([1, 2, 4, 8, 16], [2.4, 1.5, 1.8, 1.55, 1.5], 0.1),  # a lucky short one
        ([1, 2, 4, 8], [2.5, 1.38, 1.3, 1.45], 0.05),  # the longest is not the best
        ([1, 2, 4], [2.0, 1.5, 1.0], 0.1),
    ],
    answer=_from_the_end,
    mistakes={
        "it stops where one doubling helps little: a later one may help again": (
            lambda contexts, losses, tolerance: _first(
                contexts,
                lambda i: (
                    i + 1 == len(losses) or losses[i] - losses[i + 1] <= tolerance
                ),
            )
        ),
        "it takes the first that is low enough: a longer one may be worse again, and "
        "all from there on must be low": lambda contexts, losses, tolerance: _first(
            contexts, lambda i: losses[i] <= losses[-1] + tolerance
        ),
        "it takes the context with the lowest loss: the *shortest* that is nearly as "
        "good is asked for": lambda contexts, losses, tolerance: contexts[
            list(losses).index(min(losses))
        ],
        "it returns the place in the list: the length that stands there is asked for": (
            lambda contexts, losses, tolerance: list(contexts).index(
                _from_the_end(contexts, losses, tolerance)
            )
        ),
        "it returns the longest that is too short: one further": (
            lambda contexts, losses, tolerance: contexts[
                max(
                    0,
                    list(contexts).index(_from_the_end(contexts, losses, tolerance))
                    - 1,
                )
            ]
        ),
        "the tolerance is ignored": lambda contexts, losses, tolerance: _from_the_end(
            contexts, losses, 0.0
        ),
    },
)
