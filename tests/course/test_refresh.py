"""Chapters are executed in place, twice to the same bytes, and never half."""

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tfcourse.course import fresh, pages, refresh

PAGE = "<!-- begin: generated {0} -->\n<!-- end: generated {0} -->\n"
START = """from tfcourse.course import chapter, plots, show
from tfcourse.course.ledger import claim
run = chapter.start(1, size="smoke", device="cpu", seed=0)
import torch"""
CLAIM = """q, k = torch.randn(2, 4, 8)
same = torch.allclose(q @ k.mT, (k @ q.mT).mT)
claim("C6", fails={"no value": same}, measured=show.num((q @ k.mT)[0, 0]))"""
FIGURE = """figure, ax = plots.figure()
plots.line(ax, [1, 2], q[0, :2], "blue")
show.experiment(figure, "1.1", "Is it?", "No.", "A line from 1 to 2, "
                "which means nothing at all")
import os
print(hash("a"), os.environ["OMP_NUM_THREADS"], flush=True)
print("more")
q.sum() > 0"""


@pytest.fixture
def root(tmp_path: Path, write_chapter: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "book").mkdir()
    inside = {"book/ledger.md": ("claims",), "book/intro.md": ("counts", "chapters")}
    monkeypatch.setattr(pages, "BLOCKS", inside)
    for page, blocks in inside.items():
        text = "".join(PAGE.format(block) for block in blocks)
        (tmp_path / page).write_text(text, encoding="utf-8")
    write_chapter("01_components", START, CLAIM, FIGURE)
    return tmp_path


def test_two_runs_give_the_same_bytes_and_the_pages_follow(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = refresh.refresh(root)
    first = path.read_bytes()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    refresh.refresh(root, ["1"])
    assert path.read_bytes() == first
    cells = json.loads(first)["cells"]
    assert [c.get("execution_count") for c in cells] == [None, 1, 2, 3, 4]
    assert b"iopub" not in first
    assert fresh.changes(path) == []
    path.write_text(
        path.read_text().replace("torch.randn(2, 4, 8)", "torch.randn(2, 4, 9)")
    )
    assert fresh.changes(path) == ["cells"]
    ledger = (root / "book/ledger.md").read_text(encoding="utf-8")
    assert "[See it](../notebooks/01_components.ipynb#C6)" in ledger
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_failing_chapter_stays_as_it_was(
    root: Path, write_chapter: Any, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = write_chapter("01_components", START, CLAIM.replace("fails=", "holds="))
    before = path.read_bytes()
    monkeypatch.chdir(root)
    assert refresh.main(["1"]) == 1
    assert "claim C6: the evidence says 'holds'" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_chapters_are_found_by_number(root: Path, write_chapter: Any) -> None:
    for name in ("10_future", "04_applications", "04a_more"):
        write_chapter(name)
    (root / "notebooks/notes.ipynb").write_text("{}")
    folder = root / "notebooks"
    names = [path.name[:3] for path in refresh.find_notebooks(folder)]
    assert names == ["01_", "04_", "04a", "10_"]
    found = [path.name[:3] for path in refresh.find_notebooks(folder, ["4a"])]
    assert found == ["04a"]
    with pytest.raises(
        ValueError, match=r"chapter \['3'\]; there are: \['1', '4', '4a', '10'\]"
    ):
        refresh.find_notebooks(folder, ["1", "3"])


def test_an_unknown_chapter_ends_the_command_with_the_known(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as ended:
        refresh.main(["7"])
    assert ended.value.code == 2
    assert "no notebook for chapter ['7']; there are: ['1']" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "steady"),
    [
        ("def f(): ...\n\nexercises.check(f)", True),
        ('show.quiz("1", "Which?", [("a", x > 1), ("b", x < 1)], "So it is.")', True),
        ("show.source(f)\ncited('C3')", True),
        ('show.quiz("1", "Which?", [(f"{x}", x > 1), ("b", x < 1)], "So.")', False),
        (
            'show.quiz("1", "Which?", [(show.num(x), x > 1), ("b", x < 1)], "So.")',
            False,
        ),
        ('claim("C6", fails={"so": x > 1}, measured="1")', False),
        ("exercises.check(f)\nx", False),
        ("for x in y: print(x)\nexercises.check(f)", False),
        ("x = 1", False),
    ],
)
def test_outputs_are_compared_where_no_machine_changes_them(
    source: str, steady: bool
) -> None:
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["hide-input"]})
    for _ in range(2):
        refresh.mark(nbformat.v4.new_notebook(cells=[cell]))
        assert cell.metadata["tags"] == ["hide-input"] + [refresh.CHECKED] * steady


def test_what_differs_between_runs_is_removed() -> None:
    v4 = nbformat.v4
    cell = v4.new_code_cell("x", execution_count=7, metadata={"collapsed": False})
    cell.metadata |= {"execution": {"iopub": "now"}, "tags": ["hide-input"]}
    cell.outputs = [v4.new_output("execute_result", {"text/plain": "1"})]
    notebook = v4.new_notebook(cells=[v4.new_code_cell(""), cell])
    notebook.metadata |= {"widgets": {}, "kernelspec": {"name": "my-env"}}
    refresh.clean(notebook, keep_outputs=True)
    assert cell.metadata == {"tags": ["hide-input"]}
    assert (cell.execution_count, cell.outputs[0].execution_count) == (1, 1)
    assert notebook.cells[0].execution_count is None
    assert notebook.metadata.kernelspec == refresh.KERNEL
    assert "widgets" not in notebook.metadata
    refresh.clean(notebook)
    assert (cell.outputs, cell.execution_count) == ([], None)
