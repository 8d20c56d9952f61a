"""How an exercise is checked: run the reader's function, name the mistake it makes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

LONGEST = 160  # characters of a value that is shown to the reader


@dataclass(frozen=True)
class Exercise:
    """A function that the reader writes, and what is known about wrong versions of it.

    cases: the argument tuples it is called with; answer: a function that is right, as a
    rule the package's own; mistakes: what was done wrong, in words -> a function that
    does so. Cases must tell the answer and all mistakes from one another.
    """

    name: str
    cases: Callable[[], Sequence[tuple[Any, ...]]]
    answer: Callable[..., Any]
    mistakes: Mapping[str, Callable[..., Any]]
    tolerance: float = 1e-5


@dataclass(frozen=True)
class Result:
    """What a check found: state is open, fail or pass, as in `show.CHECK_STATES`."""

    state: str
    items: tuple[str, ...]


def judge(exercise: Exercise, function: Callable[..., Any]) -> Result:
    """Run the reader's function on every case and say what is wrong; never raises."""
    cases = exercise.cases()
    expected = [_call(exercise.answer, case) for case in cases]
    got = []
    for case in cases:
        try:
            got.append(_call(function, case))
        except NotImplementedError:
            return _not_started()
        except Exception as error:
            call = _shown_call(exercise.name, case)
            message = f"{type(error).__name__}: {error}"
            return Result("fail", (f"{call} raises {_code(message)}",))
    if all(value is None or value is Ellipsis for value in got):
        return _not_started()
    same = functools.partial(same_value, tolerance=exercise.tolerance)
    wrong = [i for i in range(len(cases)) if not same(got[i], expected[i])]
    if not wrong:
        return Result("pass", (f"right in all {len(cases)} cases",))
    first = wrong[0]
    items = [
        f"{_shown_call(exercise.name, cases[first])}: "
        f"{_difference(got[first], expected[first])}"
    ]
    for words, mistaken in exercise.mistakes.items():
        if all(map(same, got, (_call(mistaken, case) for case in cases))):
            items.insert(0, words)
            break
    return Result("fail", tuple(items))


def _not_started() -> Result:
    return Result(
        "open", ("it returns `None`: write the function above, then run this",)
    )


def _call(function: Callable[..., Any], case: tuple[Any, ...]) -> Any:
    """Call with copies and a fixed seed; the notebook's random state stays as it is."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        result = function(*copy.deepcopy(case))
    return torch.from_numpy(result) if isinstance(result, np.ndarray) else result


def same_value(first: Any, second: Any, tolerance: float) -> bool:
    """Whether two results agree: kind, shape, and values up to the tolerance.

    Results are tensors, numbers, strings, None, and lists, tuples or dicts of these.
    """
    same = functools.partial(same_value, tolerance=tolerance)
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return _kind(first) == _kind(second) and torch.allclose(
            first.double(), second.double(), tolerance, tolerance, equal_nan=True
        )
    if isinstance(second, float) and not isinstance(first, bool | str):
        try:
            return abs(float(first) - second) <= tolerance * (1 + abs(second))
        except (TypeError, ValueError):
            return False
    if isinstance(second, list | tuple):
        return (
            isinstance(first, list | tuple)
            and len(first) == len(second)
            and all(map(same, first, second))
        )
    if isinstance(second, dict):
        return (
            isinstance(first, dict)
            and first.keys() == second.keys()
            and all(same(first[key], second[key]) for key in second)
        )
    return type(first) is type(second) and bool(first == second)


def _kind(value: Any) -> str:
    """Describe what a value is; tensors by shape and by bool, whole or real numbers."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    real = value.is_floating_point() or value.is_complex()
    kind = "bool" if value.dtype == torch.bool else "float" if real else "integer"
    return f"{kind} tensor of shape {list(value.shape)}"


def _difference(got: Any, expected: Any) -> str:
    if _kind(got) != _kind(expected):
        return (
            f"got a {_kind(got)}, {_code(_shown(got))}, "
            f"expected a {_kind(expected)}, {_code(_shown(expected))}"
        )
    return f"got {_code(_shown(got))}, expected {_code(_shown(expected))}"


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(_rounded(value.tolist()))
    return repr(_rounded(value))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, list | tuple):
        return type(value)(_rounded(item) for item in value)
    return value


def _shown_call(name: str, case: tuple[Any, ...]) -> str:
    arguments = ", ".join(
        f"<{_kind(value)}>" if isinstance(value, Tensor) else repr(value)
        for value in case
    )
    return _code(f"{name}({arguments})")


def _code(text: str) -> str:
    """Return one line of code for an output: short, without marks that end it early."""
    line = " ".join(text.split()).replace("`", "'").replace("$", "＄")
    if len(line) > LONGEST:
        line = line[: LONGEST - 1] + "…"
    return f"`{line}`"
