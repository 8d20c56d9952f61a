"""Exercises on scaling: days of training, a power law, best sizes, memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tfcourse.course.exercise import Exercise

DAY = 86_400  # seconds


def _answer_days(
    parameters: float, tokens: float, devices: int, peak: float, used: float
) -> float:
    return 6 * parameters * tokens / (devices * peak * used) / DAY


TRAINING_DAYS = Exercise(
    name="training_days",
    cases=lambda: [(65e9, 1.4e12, 2048, 312e12, 0.5), (7e9, 1e12, 256, 1e15, 0.4)],
    answer=_answer_days,
    mistakes={
        "2 operations a parameter and token are the forward pass alone: the backward "
        "pass costs twice as much again": lambda n, d, g, p, u: (
            _answer_days(n, d, g, p, u) / 3
        ),
        "a device does not reach its peak: multiply the peak by the share used": (
            lambda n, d, g, p, u: _answer_days(n, d, g, p, 1.0)
        ),
        "a smaller share used makes training longer, not shorter": (
            lambda n, d, g, p, u: _answer_days(n, d, g, p, 1 / u)
        ),
        "the devices share the work": lambda n, d, g, p, u: _answer_days(n, d, 1, p, u),
        "these are seconds: a day has 86,400": lambda n, d, g, p, u: (
            _answer_days(n, d, g, p, u) * DAY
        ),
        "these are hours": lambda n, d, g, p, u: _answer_days(n, d, g, p, u) * 24,
    },
)


def _line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Return intercept and slope of the least-squares line."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    slope = above / sum((a - mean_x) ** 2 for a in x)
    return mean_y - slope * mean_x, slope


def _answer_law(sizes: Sequence[float], losses: Sequence[float]) -> tuple[float, float]:
    intercept, slope = _line([math.log(n) for n in sizes], [*map(math.log, losses)])
    return math.exp(intercept), -slope


def _loss_not_in_logs(
    sizes: Sequence[float], losses: Sequence[float]
) -> tuple[float, float]:
    intercept, slope = _line([math.log(n) for n in sizes], losses)
    return intercept, -slope


def _logs_of_two_bases(
    sizes: Sequence[float], losses: Sequence[float]
) -> tuple[float, float]:
    factor, exponent = _answer_law(sizes, losses)
    return math.exp(math.log10(factor)), exponent


def _ends_alone(sizes: Sequence[float], losses: Sequence[float]) -> tuple[float, float]:
    return _answer_law([sizes[0], sizes[-1]], [losses[0], losses[-1]])


def _intercept_in_logs(
    sizes: Sequence[float], losses: Sequence[float]
) -> tuple[float, float]:
    factor, exponent = _answer_law(sizes, losses)
    return math.log(factor), exponent


def _slope_kept(sizes: Sequence[float], losses: Sequence[float]) -> tuple[float, float]:
    factor, exponent = _answer_law(sizes, losses)
    return factor, -exponent


POWER_LAW = Exercise(
    name="power_law",
    cases=lambda: [
        ([1e3, 4e3, 1.6e4, 6.4e4], [2.6, 2.35, 2.07, 1.9]),
        ([1e8, 1e9, 1e10], [3.4, 2.8, 2.45]),
    ],
    answer=_answer_law,
    mistakes={
        "the loss needs its logarithm, too": _loss_not_in_logs,
        "the line's intercept is the logarithm of a: take its exponential": (
            _intercept_in_logs
        ),
        "the law has N to the power of *minus* alpha: turn the sign of the slope": (
            _slope_kept
        ),
        "one logarithm has base 10, its inverse base e": _logs_of_two_bases,
        "use all points, not the two ends alone": _ends_alone,
    },
)


def _answer_optimal(
    compute: float, a: float, b: float, alpha: float, beta: float
) -> tuple[float, float]:
    ratio = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
    size = ratio * (compute / 6) ** (beta / (alpha + beta))
    return size, compute / (6 * size)


def _exponents_exchanged(
    compute: float, a: float, b: float, alpha: float, beta: float
) -> tuple[float, float]:
    ratio = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
    size = ratio * (compute / 6) ** (alpha / (alpha + beta))
    return size, compute / (6 * size)


def _ratio_turned(
    compute: float, a: float, b: float, alpha: float, beta: float
) -> tuple[float, float]:
    ratio = (beta * b / (alpha * a)) ** (1 / (alpha + beta))
    size = ratio * (compute / 6) ** (beta / (alpha + beta))
    return size, compute / (6 * size)


def _six_forgotten(
    compute: float, a: float, b: float, alpha: float, beta: float
) -> tuple[float, float]:
    return _answer_optimal(6 * compute, a, b, alpha, beta)


def _twenty_each(
    compute: float, a: float, b: float, alpha: float, beta: float
) -> tuple[float, float]:
    size = (compute / 120) ** 0.5
    return size, 20 * size


COMPUTE_OPTIMAL = Exercise(
    name="compute_optimal",
    cases=lambda: [
        (1e21, 406.4, 410.7, 0.34, 0.28),
        (5e23, 482.01, 2085.43, 0.3478, 0.3658),
    ],
    answer=_answer_optimal,
    mistakes={
        "the exponents are exchanged: N grows with beta over the sum": (
            _exponents_exchanged
        ),
        "the factor is turned: a larger A wants a larger N": _ratio_turned,
        "6ND is the compute: divide by 6 first": _six_forgotten,
        "20 tokens a parameter is a rule of thumb: use the constants given": (
            _twenty_each
        ),
        "the order is N, then D": lambda c, a, b, alpha, beta: _answer_optimal(
            c, a, b, alpha, beta
        )[::-1],
    },
)


def _answer_bytes(parameters: int, devices: int) -> float:
    return 4 * parameters + 12 * parameters / devices


BYTES_EACH = Exercise(
    name="bytes_each",
    cases=lambda: [(7_000_000_000, 8), (1_000, 4), (350_000_000, 16)],
    answer=_answer_bytes,
    mistakes={
        "nothing is divided here: the optimiser's 12 bytes are": (
            lambda n, g: 16 * n + 0.0
        ),
        "only the optimiser's states are divided: weights and gradients stay whole": (
            lambda n, g: 16 * n / g
        ),
        "gradients are kept, too: 2 bytes each": lambda n, g: 2 * n + 12 * n / g,
        "the optimiser keeps three numbers of 4 bytes: weights, mean and square": (
            lambda n, g: 4 * n + 8 * n / g
        ),
        "weights and gradients are kept in 2 bytes each here, not in 4": (
            lambda n, g: 8 * n + 12 * n / g
        ),
    },
)
