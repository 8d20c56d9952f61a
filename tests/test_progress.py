"""The live view: chapter, cell, elapsed and expected time, on a terminal only."""

import io
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tfcourse import progress
from tfcourse.batch import Job, Outcome
from tfcourse.headless import Notebook
from tfcourse.progress import Live, expected_times, known_times

SAID: Callable[[str, bool], None] = lambda text, is_error: None  # noqa: E731
STATUS = {
    "laptop": {"chapters": {"01_a": {"seconds": 70.0}, "02_b": {"seconds": 20.0}}},
    "smoke": {"chapters": {"01_a": {"seconds": 7.0}}},
}


def job(**parameters: object) -> Job:
    return Job(Notebook("1", "a", Path("01_a.ipynb")), parameters, Path("out"))


def outcome(chapter: str, seconds: float, state: str = "done", **given: str) -> Outcome:
    return Outcome("1", chapter, given, state, seconds, "out/01_a.ipynb")


def drawn(file: io.StringIO) -> list[str]:
    lines = re.split(r"[\r\n]+", file.getvalue())
    return [line.strip() for line in lines if line.strip()]


def test_an_earlier_report_counts_more_than_the_committed_times() -> None:
    assert known_times([], STATUS) == {
        ("01_a", "laptop"): 70.0,
        ("02_b", "laptop"): 20.0,
        ("01_a", "smoke"): 7.0,
    }
    earlier = [outcome("01_a", 31.0), outcome("02_b", 3.0, "failed")]
    earlier.append(outcome("02_b", 2.0, size="smoke"))
    times = known_times(earlier, STATUS)
    assert times["01_a", "laptop"] == 31.0
    assert times["02_b", "laptop"] == 20.0
    assert times["02_b", "smoke"] == 2.0


def test_a_folder_s_report_is_read(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("not a report")
    assert expected_times(tmp_path) == expected_times(tmp_path / "nowhere")


def test_the_line_has_chapter_cell_elapsed_and_expected_time() -> None:
    file = io.StringIO()
    with Live({("01_a", "smoke"): 75.0}, SAID, True, file) as live:
        live.move(job(size="smoke", seed=3), 4, 12)
        live.move(job(size="smoke", seed=3), 5, 12)
    last = drawn(file)[-1]
    assert last.startswith("1 size=smoke seed=3: cell 5 of 12 |")
    assert re.search(r"\| 00:0\d of about 01:15$", last)


def test_a_line_begins_before_the_number_of_cells_is_known() -> None:
    file = io.StringIO()
    with Live({}, SAID, True, file) as live:
        live.move(job(), 0, 0)
        assert re.match(r"1: cell 0 of \? .* 00:00$", drawn(file)[-1])
        live.move(job(), 3, 12)
        live._bars["1"].start_t -= 40
        live.move(job(), 4, 12)
        assert re.match(r"1: cell 4 of 12 .* 00:4\d$", drawn(file)[-1])
        live.move(job(), 0, 0)  # another try
        assert re.match(r"1: cell 0 of \? .* 00:0\d$", drawn(file)[-1])


def test_without_a_known_time_there_is_none() -> None:
    file = io.StringIO()
    with Live({("01_a", "smoke"): 75.0}, SAID, True, file) as live:
        live.move(job(), 4, 12)
    assert re.search(r"\| 00:0\d$", drawn(file)[-1])


def test_the_clock_goes_on_while_a_cell_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "TICK", 0.01)
    file = io.StringIO()
    with Live({}, SAID, True, file) as live:
        live.move(job(), 1, 2)
        first = len(drawn(file))
        end = time.monotonic() + 30
        while len(drawn(file)) < first + 3 and time.monotonic() < end:
            time.sleep(0.01)
    assert len(drawn(file)) >= first + 3


def test_nothing_is_drawn_where_no_terminal_is() -> None:
    file, said = io.StringIO(), []
    with Live({}, lambda *one: said.append(one), False, file) as live:
        live.move(job(), 1, 2)
        live.end(outcome("01_a", 3.21))
    assert file.getvalue() == ""
    assert said == [("1             done  3.2 s  out/01_a.ipynb", False)]


def test_an_end_removes_the_line_and_says_what_failed() -> None:
    file, said = io.StringIO(), []
    failed = Outcome("1", "01_a", {}, "failed", 1.0, "x", error="no kernel")
    with Live({}, lambda *one: said.append(one), True, file) as live:
        live.move(job(), 1, 2)
        live.end(failed)
        assert live._bars == {}
    assert said[1] == ("tfcourse: 01_a.ipynb: no kernel", True)
