"""Answers on scaling pass however they are written; wrong ones are named."""

import math

import numpy as np
import pytest

from tfcourse.course import exercises


def by_polyfit(sizes, losses):
    slope, intercept = np.polyfit(np.log(sizes), np.log(losses), 1)
    return np.exp(intercept), -slope


def by_search(compute, a, b, alpha, beta):
    """Golden section over the logarithm of N."""
    low, high = 0.0, math.log(compute / 6)
    golden = (math.sqrt(5) - 1) / 2

    def loss(x):
        return a / math.exp(x) ** alpha + b / (compute / 6 / math.exp(x)) ** beta

    for _ in range(200):
        first, second = high - golden * (high - low), low + golden * (high - low)
        if loss(first) < loss(second):
            high = second
        else:
            low = first
    return math.exp(low), compute / 6 / math.exp(low)


def test_a_power_law_fitted_by_numpy_passes() -> None:
    assert exercises.find("power_law", by_polyfit).state == "pass"


def test_the_closed_form_is_the_minimum_that_a_search_finds() -> None:
    exercise = exercises.EXERCISES["compute_optimal"]
    for case in exercise.cases():
        assert exercise.answer(*case) == pytest.approx(by_search(*case), rel=1e-5)


def test_llama_takes_the_days_that_its_paper_says() -> None:
    days = exercises.EXERCISES["training_days"].answer
    used = 6 * 65.2e9 * 380 / 312e12  # 380 tokens a second on each device
    assert days(65.2e9, 1.4e12, 2048, 312e12, used) == pytest.approx(21, abs=0.5)


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        (
            "training_days",
            lambda n, d, g, p, u: 2 * n * d / (g * p * u) / 86_400,
            "forward pass alone",
        ),
        (
            "power_law",
            lambda sizes, losses: tuple(
                np.polyfit(np.log(sizes), losses, 1)[::-1] * [1, -1]
            ),
            "the loss needs its logarithm",
        ),
        (
            "compute_optimal",
            lambda c, a, b, x, y: ((c / 120) ** 0.5, 20 * (c / 120) ** 0.5),
            "rule of thumb",
        ),
        ("bytes_each", lambda n, g: 16.0 * n, "nothing is divided"),
    ],
)
def test_a_wrong_answer_is_named(name, wrong, words) -> None:
    result = exercises.find(name, wrong)
    assert result.state == "fail"
    assert words in result.items[0]
