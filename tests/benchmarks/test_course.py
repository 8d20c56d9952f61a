"""A chapter's time is divided among its parts; a failing cell is not passed over."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from small_shapes import MACHINE
from typer.testing import CliRunner

import benchmarks.__main__ as command
from benchmarks import course, report
from tfcourse.training import loop

# A clock of its own, so that what passes is known: only `pass_time` moves it on.
START = """import time
from tfcourse.training.loop import fit
clock = [time.perf_counter()]
time.perf_counter = lambda: clock[0]
def pass_time(seconds): clock[0] += seconds
class chapter: start = pass_time
chapter.start(2)"""
TRAIN = """class Slow(list):
    def __len__(self):
        pass_time(8)
        return 0
try:
    fit(None, Slow(), steps=1)
except ValueError:
    pass_time(4)"""
DRAW = "class show: experiment = pass_time\nshow.experiment(16)"


def notebook(folder: Path, *sources: str) -> Path:
    cells = [
        new_markdown_cell("# 2 · A question?"),
        new_code_cell('size: str = "laptop"', metadata={"tags": ["parameters"]}),
        *map(new_code_cell, sources),
    ]
    path = folder / "02_small.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_each_cell_counts_for_its_part(tmp_path: Path) -> None:
    check = 'assert size == "smoke"'
    path = notebook(tmp_path, START, TRAIN, DRAW, check)
    found = course.measure(path, "smoke")
    assert (found["chapter"], found["size"]) == ("02_small", "smoke")
    assert found["training"] == pytest.approx(8)  # though it was refused
    assert 4 <= found["rest"] < 12  # the parameters' cell passes by the real clock
    assert found["figures"] == pytest.approx(16)
    assert found["imports"] >= 2
    assert found["start"] > 0


def test_a_failing_cell_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)02_small\.ipynb at size smoke.*1 \+"):
        course.measure(notebook(tmp_path, "assert False, '1 + 1'"), "smoke")


def test_time_within_fit_is_collected_and_fit_is_given_back(monkeypatch) -> None:
    monkeypatch.setattr(loop, "fit", lambda value: value)
    plain = loop.fit
    with course.training_timed() as trained:
        assert [loop.fit(3), loop.fit(4)] == [3, 4]
    assert len(trained) == 2
    assert loop.fit is plain


def seconds(chapter: str, size: str, each: float) -> dict[str, Any]:
    parts = dict.fromkeys(course.PARTS, each)
    row = {"kind": "course", "chapter": chapter, "size": size, "machine": MACHINE}
    return row | parts


def test_the_page_sums_up_the_parts_of_each_chapter() -> None:
    rows = [
        seconds("02_b", "smoke", 9.0),
        seconds("02_b", "smoke", 2.0),  # made again
        seconds("01_a", "smoke", 1.0),
        seconds("01_a", "laptop", 3.0),
    ]
    page = report.page(rows, "the plan")
    smoke = page.partition("### Size `smoke`")[2].partition("###")[0]
    assert smoke.strip().splitlines()[2:] == [
        "| 01_a | 1.0 | 1.0 | 1.0 | 1.0 | 1.0 | 5.0 |",
        "| 02_b | 2.0 | 2.0 | 2.0 | 2.0 | 2.0 | 10.0 |",
        "| all | 3.0 | 3.0 | 3.0 | 3.0 | 3.0 | 15.0 |",
    ]
    assert "The course itself" not in report.page([], "the plan")


def test_the_command_names_what_it_knows(monkeypatch, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    monkeypatch.setattr(
        course, "measure", lambda path, size: seconds(path.stem, size, 1.0)
    )
    arguments = ["course", "1", "10b", "--sizes", "smoke", "--out", str(out)]
    assert CliRunner().invoke(command.app, arguments).exit_code == 0
    chapters = [row["chapter"] for row in report.read(out)]
    assert chapters == ["01_components", "10b_beyond_text"]
    refused = CliRunner().invoke(command.app, ["course", "77"])
    assert refused.exit_code == 2
    assert "77" in refused.output
