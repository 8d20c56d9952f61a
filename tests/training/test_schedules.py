"""The schedules are their closed forms, step by step."""

import math
from collections.abc import Callable
from functools import partial

import pytest

from tfcourse.training.schedules import (
    constant,
    cosine,
    inverse_sqrt,
    linear,
    warmup_stable_decay,
)

STEPS = range(1, 501)
DECAYS = [
    partial(linear, total=400),
    partial(cosine, total=400),
    partial(warmup_stable_decay, total=400, decay=100),
]


def test_inverse_sqrt_is_the_papers_rate_over_its_peak() -> None:
    d_model, warmup = 512, 100
    peak = (d_model * warmup) ** -0.5
    for step in STEPS:
        paper = d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert inverse_sqrt(step, warmup) * peak == pytest.approx(paper, rel=1e-12)


@pytest.mark.parametrize("warmup", [0, 40])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_and_linear_are_their_closed_forms(warmup: int, final: float) -> None:
    for step in STEPS:
        done = min(1.0, (step - warmup) / (400 - warmup))
        line, wave = 1 - done, 0.5 * (1 + math.cos(math.pi * done))
        rise = step < warmup
        for schedule, fall in ((linear, line), (cosine, wave)):
            expected = step / warmup if rise else final + (1 - final) * fall
            assert schedule(step, 400, warmup, final) == pytest.approx(expected)


@pytest.mark.parametrize("warmup", [0, 40])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_warmup_stable_decay_is_three_straight_lines(warmup: int, final: float) -> None:
    for step in STEPS:
        if step < warmup:
            expected = step / warmup
        elif step <= 300:
            expected = 1.0
        else:
            expected = max(final, 1 - (1 - final) * (step - 300) / 100)
        factor = warmup_stable_decay(step, 400, warmup, 100, final)
        assert factor == pytest.approx(expected, abs=1e-12)


def test_without_a_decay_the_stable_rate_stays() -> None:
    for step in STEPS:
        assert warmup_stable_decay(step, 400, 40) == constant(step, 40)


def test_constant_stays() -> None:
    assert {constant(step) for step in STEPS} == {1.0}
    assert [constant(step, warmup=4) for step in range(1, 7)] == [
        0.25,
        0.5,
        0.75,
        1,
        1,
        1,
    ]


@pytest.mark.parametrize("schedule", [constant, inverse_sqrt, *DECAYS])
def test_the_peak_is_one_and_stands_at_the_end_of_the_warmup(
    schedule: Callable[..., float],
) -> None:
    factors = [schedule(step, warmup=50) for step in STEPS]
    assert factors[49] == max(factors) == 1.0
    assert factors[:50] == sorted(factors[:50])
    assert factors[49:] == sorted(factors[49:], reverse=True)
    assert factors[0] == pytest.approx(1 / 50)


@pytest.mark.parametrize(
    "schedule",
    [
        linear,
        cosine,
        lambda step, total, warmup, final: warmup_stable_decay(
            step, total, warmup, 20, final
        ),
    ],
)
def test_the_fall_ends_at_the_last_step_and_stays(
    schedule: Callable[..., float],
) -> None:
    assert schedule(400, 400, 50, 0.2) == pytest.approx(0.2)
    assert schedule(10_000, 400, 50, 0.2) == pytest.approx(0.2)
    assert schedule(399, 400, 50, 0.2) > 0.2


@pytest.mark.parametrize(
    "schedule", [constant, partial(inverse_sqrt, warmup=5), *DECAYS]
)
def test_step_0_is_refused(schedule: Callable[..., float]) -> None:
    with pytest.raises(ValueError, match=r"count from 1, .* step is 0"):
        schedule(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(constant, 1, -1), "warmup must be at least 0 steps, not -1"),
        (partial(inverse_sqrt, 1, 0), "needs a warmup of at least 1, not 0"),
        (partial(linear, 1, 50, 50), "total=50 steps must be more than warmup=50"),
        (partial(cosine, 1, 0), "total=0 steps must be more than warmup=0"),
        (partial(cosine, 1, 9, 0, 1.5), r"final must be a factor in \[0, 1\], not 1.5"),
        (partial(linear, 1, 9, 0, -0.1), r"final must be .* not -0.1"),
        (partial(warmup_stable_decay, 1, 9, 4, 6), "the 5 steps after .* not 6"),
        (partial(warmup_stable_decay, 1, 9, 4, -1), "the 5 steps after .* not -1"),
        (partial(warmup_stable_decay, 1, 4, 4), "total=4 steps must be more than"),
    ],
)
def test_impossible_values_are_named(call: Callable[[], float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
