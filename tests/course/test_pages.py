"""The generated parts of pages say what ledger and notebooks say, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from tfcourse.course import pages
from tfcourse.course.ledger import load_ledger


def notebook(records: list[dict[str, Any]], minutes: str = "25 minutes") -> str:
    output = {
        "output_type": "display_data",
        "data": {},
        "metadata": {"tfcourse": {"claims": records}},
    }
    title = {"cell_type": "markdown", "source": ["# 1 · Parts\n", f"*{minutes}*"]}
    code = {"cell_type": "code", "source": "", "outputs": [output, {"name": "stdout"}]}
    return json.dumps({"cells": [title, code]})


def record(id_: str, measured: str, ran: bool = True) -> dict[str, Any]:
    return {"id": id_, "verdict": "fails", "measured": measured, "ran": ran}


PAGE = (
    "Before.\n<!-- begin: generated {0} -->\nold\n<!-- end: generated {0} -->\nAfter.\n"
)


LIVE = {
    "config": {"num_encoder_layers": 2, "num_decoder_layers": 3, "num_heads": 4},
    "languages": {"he": {"name": "עברית", "english": "Hebrew"}},
    "training": {
        "weights": 6000,
        "steps": 3000,
        "batch": 64,
        "pairs": 60_000,
        "first": "1950-01-01",
        "last": "2049-12-31",
    },
    "beams": 4,
    "scores": {
        "days": 200,
        "asked": 51_200,
        "beam_asked": 1024,
        "greedy": 0.99999,
        "beam": 1.0,
        "by_source": {"he": 0.98765},
        "by_target": {"he": 1.0},
    },
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "book").mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "book/ledger.md").write_text(PAGE.format("claims"), encoding="utf-8")
    intro = PAGE.format("counts") + PAGE.format("chapters")
    (tmp_path / "book/intro.md").write_text(intro, encoding="utf-8")
    (tmp_path / "book/status.md").write_text(PAGE.format("status"), encoding="utf-8")
    (tmp_path / "book/live.md").write_text(PAGE.format("live"), encoding="utf-8")
    (tmp_path / "book/_static/live").mkdir(parents=True)
    (tmp_path / "book/_static/live/model.json").write_text(json.dumps(LIVE), "utf-8")
    (tmp_path / "book/_static/live/model.safetensors").write_bytes(b"0" * 12_345)
    for name, block in (
        ("book/teaching.md", "sessions"),
        ("notebooks/START_HERE.md", "notebooks"),
    ):
        (tmp_path / name).write_text(PAGE.format(block), encoding="utf-8")
    records = [record("C6", "weights | change by < 0.1."), record("C7", "", ran=False)]
    path = tmp_path / "notebooks/01_components.ipynb"
    path.write_text(notebook(records), encoding="utf-8")
    return tmp_path


def line_of(text: str, id_: str) -> str:
    return next(line for line in text.splitlines() if f'id="{id_}"' in line)


def test_pages_are_written_once_and_then_up_to_date(root: Path) -> None:
    names = (
        "book/ledger.md",
        "book/intro.md",
        "book/status.md",
        "book/live.md",
        "book/teaching.md",
        "notebooks/START_HERE.md",
    )
    written = [root / name for name in names]
    assert pages.stale_pages(root) == written
    assert pages.write_pages(root) == written
    assert pages.write_pages(root) == pages.stale_pages(root) == []
    text = written[0].read_text(encoding="utf-8")
    assert text.startswith("Before.\n<!-- begin: generated claims -->\n## 1 · ")
    assert text.endswith("|\n<!-- end: generated claims -->\nAfter.\n")
    assert "\nold\n" not in text
    assert sorted(p.name for p in (root / "book").iterdir()) == [
        "_static",
        "intro.md",
        "ledger.md",
        "live.md",
        "status.md",
        "teaching.md",
    ]


def test_the_live_page_has_the_figures_of_its_model(root: Path) -> None:
    pages.write_pages(root)
    text = (root / "book/live.md").read_text(encoding="utf-8")
    assert "An encoder of 2 layers and a decoder of 3, 4 heads in each: 6,000" in text
    assert "6,000 weights, 0.01 MB in float16, trained for 3,000 steps of 64" in text
    # What is not all of it never looks like all.
    assert "**99.99 %** letter for letter, greedily (51,200 translations)" in text
    assert '| <span lang="he">עברית</span>, Hebrew | 98.76 % | 100 % |' in text


def test_a_measured_row_says_what_was_measured_and_where(root: Path) -> None:
    pages.write_pages(root)
    line = line_of((root / "book/ledger.md").read_text(encoding="utf-8"), "C6")
    claim = load_ledger().row("C6").claim
    assert line.startswith(f'| **✗ Fails** <span id="C6">C6</span> | “{claim}” | ')
    assert (
        r"| *Measured.* Weights \| change by &lt; 0.1. "
        "[See it](../notebooks/01_components.ipynb#C6). "
        "[Vaswani 2017, equation 1](bibliography.md#vaswani2017attention) |"
    ) in line


def test_a_row_that_was_not_decided_is_not_called_measured(root: Path) -> None:
    pages.write_pages(root)
    text = (root / "book/ledger.md").read_text(encoding="utf-8")
    for id_ in ("C7", "C9"):  # recorded at a size that does not train; not recorded
        assert "*Not measured yet.*" in line_of(text, id_)
    assert "*Cited.* [Vaswani" in line_of(text, "C2")


def test_every_row_stands_once_and_depends_says_when(root: Path) -> None:
    pages.write_pages(root)
    text = (root / "book/ledger.md").read_text(encoding="utf-8")
    for row in load_ledger().claims.values():
        assert text.count(f'id="{row.id}"') == 1
        assert line_of(text, row.id).replace(r"\|", "").count("|") == 5
        assert ("*Holds when*" in line_of(text, row.id)) == (row.verdict == "depends")


def test_only_chapters_with_a_notebook_are_linked_and_counted(root: Path) -> None:
    pages.write_pages(root)
    text = (root / "book/intro.md").read_text(encoding="utf-8")
    counts = pages.counted(load_ledger().counts(1))
    assert (
        "| [**1 · Core components**](../notebooks/01_components.ipynb)<br>What are the "
        f"core components of a Transformer? | {counts} | 25 min |"
    ) in text.replace(" network?", "?")
    second = next(line for line in text.splitlines() if line.startswith("| 2 · "))
    assert second.endswith("? |  |  |")
    assert text.count("<br>") == len(load_ledger().chapters)


def test_counts_are_those_of_the_ledger(root: Path) -> None:
    pages.write_pages(root)
    text = (root / "book/intro.md").read_text(encoding="utf-8")
    counts = load_ledger().counts()
    assert f"- [{counts['holds']} hold](ledger.md)\n- [{counts['depends']} d" in text


def test_counts_agree_with_their_verbs() -> None:
    counts = {"holds": 1, "depends": 0, "fails": 2}
    assert pages.counted(counts) == "1 holds, 0 depend, 2 fail"


@pytest.mark.parametrize(
    "page",
    ["", PAGE.format("y"), PAGE.format("x") * 2, PAGE.format("x").split("old")[0]],
)
def test_a_page_without_its_markers_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="begin: generated x"):
        pages.fill(page, "x", "new")


@pytest.mark.parametrize(
    ("measured", "shown"), [("d is 3", "d is 3"), ("`x` is 3", "`x` is 3"), ("Δ", "Δ")]
)
def test_symbols_keep_their_case(root: Path, measured: str, shown: str) -> None:
    path = root / "notebooks/01_components.ipynb"
    path.write_text(notebook([record("C6", measured)]), encoding="utf-8")
    pages.write_pages(root)
    text = (root / "book/ledger.md").read_text(encoding="utf-8")
    assert f"*Measured.* {shown}. [See it]" in line_of(text, "C6")
