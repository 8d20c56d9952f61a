"""The status page has what reports measured, and refuses half a measurement."""

import json
from pathlib import Path
from typing import Any

import pytest

from tfcourse.course import pages
from tfcourse.course.status import as_text, read_status, status_block, taken_in

FILLED = "<!-- begin: generated status -->\n<!-- end: generated status -->\n"


def entry(chapter: str, **changes: Any) -> dict[str, Any]:
    return {
        "job": chapter,
        "chapter": chapter,
        "parameters": {"size": "smoke"},
        "state": "done",
        "kept": False,
        "seconds": 61.4,
        "memory": 1234.5,
        "claims": {"shown": ["C1", "C2"], "not run": ["C3"], "contradicted": []},
    } | changes


def report(*entries: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "system": "Linux-6",
        "processors": 2,
        "python": "3.11.7",
        "torch": "2.9.0",
        "at_once": 2,
        "seconds": 130.2,
        "chapters": list(entries),
    } | changes


def test_a_report_becomes_a_table() -> None:
    status = taken_in({}, report(entry("01_a"), entry("02_b", memory=None, seconds=9)))
    block = status_block(status)
    assert "## Size `smoke`" in block
    assert "2 notebooks in 2 min 10 s, 2 at once, on 2 processors" in block
    line = "| [01_a](../notebooks/01_a.ipynb) | 1 min 1 s | 1,234 MB | 2 | 1 |"
    assert line in block
    assert "| [02_b](../notebooks/02_b.ipynb) | 9 s |  | 2 | 1 |" in block
    assert status_block({}) == "Nothing was measured yet."


def test_sizes_stand_side_by_side_and_the_newest_counts() -> None:
    default = entry("01_a", parameters={})
    status = taken_in({}, report(default))
    status = taken_in(status, report(entry("01_a")))
    status = taken_in(status, report(entry("01_a", seconds=5.0)))
    assert list(status) == ["smoke", "laptop"]
    assert status["smoke"]["chapters"]["01_a"]["seconds"] == 5.0


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([], "not measured from start to end: all"),
        ([entry("01_a", state="failed")], "not measured from start to end: 01_a"),
        ([entry("01_a", kept=True)], "not measured from start to end: 01_a"),
        ([entry("01_a"), entry("02_b", parameters={})], "at one size"),
        ([entry("01_a"), entry("01_a")], "each chapter once"),
    ],
)
def test_half_a_measurement_is_refused(entries: list[Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        taken_in({}, report(*entries))


def test_one_command_takes_reports_in_and_writes_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pages, "BLOCKS", {"book/status.md": ("status",)})
    for folder in ("book", "notebooks", "run"):
        (tmp_path / folder).mkdir()
    page = tmp_path / "book/status.md"
    page.write_text(FILLED)
    (tmp_path / "run/report.json").write_text(json.dumps(report(entry("01_a"))))
    assert pages.main(["--measured", "run"]) == 0
    assert "1 min 1 s" in page.read_text()
    assert read_status(tmp_path) == taken_in({}, report(entry("01_a")))
    assert (tmp_path / "book/status.json").read_text() == as_text(read_status(tmp_path))
    with pytest.raises(SystemExit) as ended:
        pages.main(["--measured", "nowhere"])
    assert ended.value.code == 2
    assert "nowhere" in capsys.readouterr().err


def test_notebooks_say_what_a_run_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pages, "BLOCKS", {})
    for folder in ("book", "notebooks", "run"):
        (tmp_path / folder).mkdir()
    notebook = tmp_path / "notebooks/01_a.ipynb"
    texts = ["30 minutes to read · 7 seconds to run", "5 seconds to run"]
    cells = [{"cell_type": "markdown", "source": [text]} for text in texts]
    notebook.write_text(json.dumps({"cells": cells}, ensure_ascii=False))
    for parameters, seconds in ({"size": "smoke"}, 7), ({}, 70):
        entries = [entry("01_a", parameters=parameters, seconds=61.4)]
        (tmp_path / "run/report.json").write_text(json.dumps(report(*entries)))
        assert pages.main(["--measured", "run"]) == 0
        found = [
            cell["source"][0] for cell in json.loads(notebook.read_text())["cells"]
        ]
        assert found == [f"30 minutes to read · {seconds} seconds to run", texts[1]]
