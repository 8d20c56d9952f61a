"""The history draws itself and survives JSON; the log has each step once."""

import json
import math
from pathlib import Path

import pytest
from matplotlib import pyplot

from tfcourse.training.history import Best, History, Log, StepResult


def some_history(steps: int = 4) -> History:
    history = History()
    for step in range(1, steps + 1):
        history.add(step, 0.1 * step, StepResult(1 / step, 2.0 / 3, 5))
    return history


def test_json_gives_the_history_back() -> None:
    history = some_history()
    history.evaluations.append((4, 0.1 + 0.2))
    history.add(5, 0.5, StepResult(0.2, math.inf, 5))
    again = History()
    again.load_json(json.loads(json.dumps(history.to_json())))
    assert again.to_json() == history.to_json()
    assert again.evaluations == [(4, 0.1 + 0.2)]
    assert "began" not in history.to_json()
    again.add(6, 0.5, StepResult(0.2, 1.0, 5))
    assert again.seconds > history.seconds


def test_the_plot_shows_losses_and_evaluations() -> None:
    history = some_history()
    _, ax = pyplot.subplots()
    assert history.plot(ax, color="red") is ax
    (line,) = ax.lines
    assert list(line.get_xdata()) == history.steps
    assert list(line.get_ydata()) == history.losses
    assert line.get_color() == "red"
    assert ax.get_xlabel() == "step"
    assert len(ax.figure.axes) == 1
    history.evaluations = [(2, 0.5), (4, 0.75)]
    history.plot(ax)
    right = ax.figure.axes[1]
    assert list(right.lines[0].get_xdata()) == [2, 4]
    assert list(right.lines[0].get_ydata()) == [0.5, 0.75]
    pyplot.close()


def test_the_plot_goes_to_the_current_axes() -> None:
    _, ax = pyplot.subplots()
    assert some_history().plot() is ax
    pyplot.close()


def test_a_number_that_is_not_finite_is_null(tmp_path: Path) -> None:
    log, history = Log(tmp_path / "log"), History()
    log.start(history)
    history.add(1, 0.1, StepResult(1.5, math.inf, 3))
    log.add(history)
    (line,) = (tmp_path / "log").read_text().splitlines()
    found = json.loads(line, parse_constant=pytest.fail)
    assert found["gradient_norm"] is None
    assert found["loss"] == 1.5


def test_a_line_has_the_evaluation_of_its_step_and_of_no_other(tmp_path: Path) -> None:
    file, history = tmp_path / "log", History()
    log = Log(file)
    log.start(history)
    for step in range(1, 5):
        history.add(step, 0.1, StepResult(1.0, 1.0, 3))
        if step in (2, 4):
            history.evaluations.append((step, 0.5 * step if step == 2 else math.inf))
        log.add(history)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    found = [line.get("evaluation", "none") for line in lines]
    assert found == ["none", 1.0, "none", None]


def test_a_resumed_log_drops_what_comes_after_and_half_a_line(tmp_path: Path) -> None:
    file, history = tmp_path / "log", History()
    log = Log(file)
    log.start(history)
    for step in range(1, 7):
        history.add(step, 0.1, StepResult(float(step), 1.0, 3))
        log.add(history)
    file.write_text(file.read_text() + '{"step": 7, "lo')
    resumed = some_history(4)
    log.start(resumed)
    resumed.add(5, 0.1, StepResult(50.0, 1.0, 3))
    log.add(resumed)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["loss"] for line in lines] == [1.0, 2.0, 3.0, 4.0, 50.0]
    assert list(tmp_path.iterdir()) == [file]


def test_a_new_run_begins_a_new_log(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text('{"step": 1}\n')
    Log(file).start(History())
    assert file.read_text() == ""


def test_impossible_values_are_named() -> None:
    with pytest.raises(ValueError, match="every must be at least 1 step, not 0"):
        Log("log", every=0)
    with pytest.raises(ValueError, match=r"patience must be .* not 0"):
        Best(patience=0)


def test_a_run_without_evaluations_is_not_over() -> None:
    assert not Best(patience=1).is_over(some_history())
