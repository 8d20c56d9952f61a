"""Chapters run without a browser: found, their parameters checked, executed."""

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from tfcourse import headless
from tfcourse.headless import chapters, check_parameters, run_chapter, title

Write = Callable[..., Path]


def outputs(path: Path) -> str:
    """Return what the notebook's cells printed."""
    cells = nbformat.read(path, as_version=4).cells
    printed = [out.get("text", "") for c in cells for out in c.get("outputs", [])]
    return "".join(printed)


def test_chapters_are_found_in_order_and_drafts_are_not(write_chapter: Write) -> None:
    folder = write_chapter("10_last").parent
    for name in ("02_second", "04_long", "04a_longer", "99-draft", "Untitled"):
        (folder / f"{name}.ipynb").touch()
    assert list(chapters(folder)) == ["2", "4", "4a", "10"]
    assert chapters(folder)["10"].name == "last"


def test_a_folder_without_chapters_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=str(tmp_path)):
        chapters(tmp_path)


def test_the_repositorys_chapters_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = Path(__file__).parents[1] / "notebooks"
    assert {one.path.parent for one in chapters().values()} == {here}


def test_without_a_repository_the_working_directory_is_searched(
    write_chapter: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_chapter("03_here")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(headless, "__file__", str(tmp_path / "site" / "headless.py"))
    assert chapters()["3"].path == path


def test_the_title_is_the_question_without_the_number(write_chapter: Write) -> None:
    path = write_chapter("03_attention")
    assert title(chapters(path.parent)["3"]) == "What is attention?"


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({}, {}),
        ({"size": "smoke", "seed": "7"}, {"size": "smoke", "seed": 7}),
        ({"seed": 7, "rate": 1, "plot": True}, {"seed": 7, "rate": 1.0, "plot": True}),
        ({"rate": "1e-3", "plot": "false"}, {"rate": 1e-3, "plot": False}),
    ],
)
def test_parameters_are_read_in_their_declared_types(
    write_chapter: Write, given: dict[str, object], read: dict[str, object]
) -> None:
    declared = (
        'size: str = "laptop"  # smoke | laptop | gpu\n'
        "seed: int = 0\nrate: float = 0.1  # step length\nplot: bool = True\n"
    )
    checked = check_parameters(write_chapter("01_a", parameters=declared), given)
    assert checked == read
    assert [type(v) for v in checked.values()] == [type(v) for v in read.values()]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sise": "smoke"}, "unknown parameter sise .*; known: size, device, seed"),
        ({"size": "huge"}, "unknown size 'huge'; known: smoke, laptop, gpu"),
        ({"size": 3}, "unknown size 3; known: smoke, laptop, gpu"),
        ({"device": "tpu"}, "unknown device 'tpu'; known: auto, cpu, cuda, mps"),
        ({"seed": "first"}, "seed must be of type int, not 'first'"),
        ({"seed": 1.5}, "seed must be of type int, not 1.5"),
        ({"seed": True}, "seed must be of type int, not True"),
    ],
)
def test_wrong_parameters_are_refused_with_the_known_ones(
    write_chapter: Write, given: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_parameters(write_chapter("01_a"), given)


@pytest.mark.parametrize(
    ("declared", "given", "message"),
    [
        ('text: str = ""', {"text": 3}, "text must be of type str, not 3"),
        ("plot: bool = True", {"plot": "yes"}, "plot must be of type bool, not 'yes'"),
        ("steps = 10", {"steps": 3}, "steps has no type .* str, int, float, bool"),
        (None, {}, "01_a.ipynb has no cell tagged 'parameters'"),
    ],
)
def test_what_a_notebook_does_not_declare_cannot_be_set(
    write_chapter: Write, declared: str | None, given: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_parameters(write_chapter("01_a", parameters=declared), given)


def test_a_chapter_runs_with_its_parameters_in_its_own_folder(
    write_chapter: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = "import os; print(size, seed + 1, os.path.basename(os.getcwd()))"
    path = write_chapter("01_a", report)
    source = path.read_bytes()
    monkeypatch.chdir(tmp_path)
    result = run_chapter(
        chapters(path.parent)["1"], Path("out"), {"size": "smoke", "seed": 6}
    )
    assert result.error is None
    assert result.seconds > 0
    assert result.output == tmp_path / "out" / "01_a.ipynb"
    assert outputs(result.output) == "smoke 7 notebooks\n"
    assert list((tmp_path / "out").iterdir()) == [result.output]
    assert path.read_bytes() == source


def test_a_failing_cell_is_named_and_what_it_got_to_is_kept(
    write_chapter: Write, tmp_path: Path
) -> None:
    broken = 'class ClaimError(Exception): ...\nraise ClaimError("C10 fails")'
    path = write_chapter("01_a", 'print("before")', broken, 'print("after")')
    (tmp_path / "01_a.ipynb").write_text("an earlier run")
    result = run_chapter(chapters(path.parent)["1"], tmp_path, {"seed": 1})
    assert result.error == (
        "cell [4] `class ClaimError(Exception): ...` raised ClaimError: C10 fails"
    )
    assert result.output == tmp_path / "01_a.failed.ipynb"
    assert outputs(result.output) == "before\n"
    assert (tmp_path / "01_a.ipynb").read_text() == "an earlier run"


def test_a_good_run_removes_what_an_earlier_failure_left(
    write_chapter: Write, tmp_path: Path
) -> None:
    path = write_chapter("01_a", "print(1)")
    (tmp_path / "01_a.failed.ipynb").write_text("an earlier run")
    result = run_chapter(chapters(path.parent)["1"], tmp_path, {})
    assert sorted(tmp_path.glob("*.ipynb")) == [result.output]


def test_a_kernel_that_dies_is_a_failure(write_chapter: Write, tmp_path: Path) -> None:
    path = write_chapter(
        "01_a", 'print("before", flush=True)', "import os; os._exit(1)"
    )
    result = run_chapter(chapters(path.parent)["1"], tmp_path, {})
    assert result.error is not None
    assert "DeadKernelError" in result.error
    assert outputs(tmp_path / "01_a.failed.ipynb") == "before\n"


def test_a_running_chapter_is_written_seldom_and_whole_in_the_end(
    write_chapter: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from papermill import engines

    written = []
    write = engines.write_ipynb
    monkeypatch.setattr(
        engines, "write_ipynb", lambda nb, path: (written.append(path), write(nb, path))
    )
    path = write_chapter("01_a", *[f"print({number})" for number in range(20)])
    result = run_chapter(chapters(path.parent)["1"], tmp_path, {})
    assert len(written) < 20  # twice a cell by papermill itself
    assert outputs(result.output) == "".join(f"{number}\n" for number in range(20))


def test_a_folder_that_cannot_be_written_is_a_failure(
    write_chapter: Write, tmp_path: Path
) -> None:
    path = write_chapter("01_a")
    (tmp_path / "file").touch()
    result = run_chapter(chapters(path.parent)["1"], tmp_path / "file", {})
    assert result.error is not None
    assert str(tmp_path / "file") in result.error


def test_the_notebooks_themselves_are_never_overwritten(write_chapter: Write) -> None:
    path = write_chapter("01_a")
    with pytest.raises(ValueError, match="choose another folder"):
        run_chapter(chapters(path.parent)["1"], path.parent, {})


def test_every_chapter_has_the_course_s_parameters() -> None:
    found = chapters()
    assert {"1", "6"} <= set(found)
    for chapter in found.values():
        for size in ("smoke", "laptop", "gpu"):
            for device in ("auto", "cpu", "cuda", "mps"):
                given = {"size": size, "device": device, "seed": 1}
                assert check_parameters(chapter.path, given) == given
        with pytest.raises(ValueError, match="known: smoke, laptop, gpu"):
            check_parameters(chapter.path, {"size": "huge"})
        with pytest.raises(ValueError, match="known: auto, cpu, cuda, mps"):
            check_parameters(chapter.path, {"device": "tpu"})
