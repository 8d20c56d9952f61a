"""A check passes the right answer and names the known mistake in a wrong one."""

from typing import Any

import numpy as np
import pytest
import torch

from tfcourse.course import exercises
from tfcourse.course.exercise import Exercise, Result, judge
from tfcourse.course.exercises import EXERCISES

DOUBLE = Exercise(
    name="double",
    cases=lambda: [(1.5,), (4.0,), (0.0,)],
    answer=lambda x: 2 * x,
    mistakes={"it squares": lambda x: x * x, "it adds 2": lambda x: x + 2},
)


# ---- every exercise of the course ---------------------------------------------------


@pytest.mark.parametrize("name", EXERCISES)
def test_the_answer_passes(name: str) -> None:
    assert judge(EXERCISES[name], EXERCISES[name].answer).state == "pass"


@pytest.mark.parametrize(
    ("name", "words"),
    [(name, words) for name, e in EXERCISES.items() for words in e.mistakes],
)
def test_each_mistake_is_told_from_the_answer_and_the_others(
    name: str, words: str
) -> None:
    exercise = EXERCISES[name]
    result = judge(exercise, exercise.mistakes[words])
    assert (result.state, result.items[0]) == ("fail", words)


@pytest.mark.parametrize("name", EXERCISES)
def test_a_check_does_not_say_solved_of_a_stub_or_of_nonsense(name: str) -> None:
    assert judge(EXERCISES[name], lambda *arguments: None).state == "open"
    assert judge(EXERCISES[name], lambda *arguments: "x").state == "fail"
    assert judge(EXERCISES[name], lambda: 1).state == "fail"


def causal_mask_by_hand(length: int) -> torch.Tensor:
    index = torch.arange(length)
    return index[None, :] <= index[:, None]


def test_a_mask_written_another_way_passes() -> None:
    assert exercises.find("causal_mask", causal_mask_by_hand).state == "pass"
    in_numpy = exercises.find("causal_mask", lambda n: np.tri(n, dtype=bool))
    assert in_numpy.state == "pass"


# ---- the mechanism ------------------------------------------------------------------


def test_a_mistake_is_named_with_got_and_expected() -> None:
    assert judge(DOUBLE, lambda x: x**2) == Result(
        "fail", ("it squares", "`double(1.5)`: got `2.25`, expected `3.0`")
    )


def test_an_unknown_mistake_shows_the_first_wrong_case() -> None:
    result = judge(DOUBLE, lambda x: 3.0 if x == 1.5 else 7.0)
    assert result == Result("fail", ("`double(4.0)`: got `7.0`, expected `8.0`",))


def never_written(x: float) -> float:
    raise NotImplementedError


@pytest.mark.parametrize("stub", [lambda x: None, lambda x: ..., never_written])
def test_a_stub_is_not_started(stub: Any) -> None:
    assert judge(DOUBLE, stub).state == "open"


def test_what_the_function_raises_is_told_not_raised() -> None:
    result = judge(DOUBLE, lambda x: 1 / x)
    assert result.items == ("`double(0.0)` raises `ZeroDivisionError: float division"
        " by zero`",)  # fmt: skip


def test_a_wrong_kind_of_result_is_told() -> None:
    exercise = Exercise("ones", lambda: [(2,)], lambda n: torch.ones(n), {})
    said = judge(exercise, lambda n: [1.0, 1.0]).items[0]
    assert said == (
        "`ones(2)`: got a list, `[1.0, 1.0]`, expected a float tensor of shape [2], "
        "`[1.0, 1.0]`"
    )
    said = judge(exercise, lambda n: torch.ones(n, 1)).items[0]
    assert "float tensor of shape [2, 1]" in said


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        (torch.ones(2), torch.ones(2).double(), True),
        (torch.ones(2), torch.ones(2).long(), False),
        (torch.tensor([torch.nan]), torch.tensor([torch.nan]), True),
        (torch.tensor([1.0]), torch.tensor([1.1]), False),
        (1, 1.0, True),
        (torch.tensor(1.0), 1.0, True),
        (True, 1.0, False),
        ("1", 1.0, False),
        (None, 1.0, False),
        (1.0, 1, False),
        ([1, "a"], (1, "a"), True),
        ([1], [1, 2], False),
        ([1, torch.ones(1)], [1, torch.zeros(1)], False),
        ({"a": 1.0}, {"a": 1.000001}, True),
        ({"a": 1.0}, {"b": 1.0}, False),
        ("a", "a", True),
        (1, True, False),
    ],
)
def test_results_are_compared_by_kind_and_value(
    got: Any, expected: Any, same: bool
) -> None:
    exercise = Exercise("f", lambda: [()], lambda: expected, {})
    state = judge(exercise, lambda: got).state
    assert (state == "pass") is same


def test_the_function_gets_copies_and_a_fixed_seed() -> None:
    data = torch.zeros(3)

    def noisy(x: torch.Tensor) -> torch.Tensor:
        return x.add_(torch.rand(3))

    before = torch.get_rng_state()
    exercise = Exercise("noisy", lambda: [(data,), (data,)], noisy, {})
    assert judge(exercise, noisy).state == "pass"
    assert data.tolist() == [0, 0, 0]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_check_is_found_by_name_and_displayed(displayed: Any) -> None:
    def causal_mask(length: int) -> torch.Tensor:
        return ~causal_mask_by_hand(length)

    exercises.check(causal_mask)
    assert 'class="tf-check tf-fail"' in displayed.html
    assert "it is inverted" in displayed.html
    exercises.check(test_a_check_is_found_by_name_and_displayed)
    assert "known: <code>causal_mask</code>" in displayed.html


@pytest.mark.parametrize("text", ["costs $5", "a ` b", "<b>", "x" * 500])
def test_whatever_the_reader_returns_can_be_displayed(
    displayed: Any, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setitem(EXERCISES, "double", DOUBLE)

    def double(x: float) -> str:
        return text

    exercises.check(double)
    assert len(displayed.html) < 600
    assert "<b>" not in displayed.html
