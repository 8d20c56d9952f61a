"""Outputs are stale when what they depend on has changed, and only then."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tfcourse.course import fresh

Write = Callable[..., Path]
ROOT = Path(__file__).parents[2]
CELL = """\
from tfcourse.course import exercises, show
from tfcourse.course.ledger import claim
from tfcourse.data.bpe import merge
claim("C6", fails={"so": 1 > 0}, measured="1")
def causal_mask(n): ...
exercises.check(causal_mask)
show.source(merge)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package, which a test may change."""
    copied = tmp_path / "tfcourse"
    shutil.copytree(fresh.PACKAGE, copied, ignore=shutil.ignore_patterns("*.pyc"))
    monkeypatch.setattr(fresh, "PACKAGE", copied)
    forget()
    yield copied
    monkeypatch.undo()
    forget()


def forget() -> None:
    for cached in (fresh._module, fresh._imports, fresh._exercises, fresh._hash):
        cached.cache_clear()


@pytest.fixture
def chapter(package: Path, write_chapter: Write) -> Path:
    """A chapter whose metadata say what it depends on."""
    path = write_chapter("01_a", CELL)
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["metadata"]["tfcourse"] = {fresh.KEY: fresh.depends_on(path)}
    path.write_text(json.dumps(notebook), encoding="utf-8")
    assert fresh.changes(path) == []
    return path


def edited(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    forget()


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("course/show.py", 'ANSWER_STARTS = ("Yes"', 'ANSWER_STARTS = ("Oh"', "show"),
        ("data/tokenizers.py", "PAD, ", "PAD, OTHER, ", "data.tokenizers"),
        ("data/bpe.py", "\n\n\ndef ", "\n\n\n# a note\ndef ", "data.bpe"),
        ("course/exercise_masks.py", '"causal_mask"', '"causal_" "masks"', "masks"),
        ("course/exercises.py", "known = ", "known = '' + ", "course.exercises"),
    ],
)
def test_a_change_of_what_it_imports_is_seen(
    package: Path, chapter: Path, file: str, old: str, new: str, changed: str
) -> None:
    edited(package / file, old, new)
    assert any(name.endswith(changed) for name in fresh.changes(chapter))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("course/show.py", "\n\n\ndef ", "\n\n\n# a note\ndef "),
        ("course/show.py", '"""Return a number as', '"""Give a number as'),
        ("course/exercise_beyond.py", '"cut_patches"', '"cut_in_patches"'),
        ("generation.py", "\n\n\ndef ", "\n\n\nTHREE = 3\n\n\ndef "),
        ("batch.py", "GRACE = 15.0", "GRACE = 16.0"),
    ],
)
def test_comments_and_what_it_does_not_use_are_no_change(
    package: Path, chapter: Path, file: str, old: str, new: str
) -> None:
    edited(package / file, old, new)
    assert fresh.changes(chapter) == []


def test_an_import_that_comes_or_goes_is_a_change(package: Path, chapter: Path) -> None:
    old = "from itertools import groupby\n"
    edited(package / "data/tokenizers.py", old, f"{old}import tfcourse.batch\n")
    assert "tfcourse.batch" in fresh.changes(chapter)


def test_cells_and_rows_of_the_ledger_count_and_prose_does_not(
    chapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = chapter.read_text(encoding="utf-8")
    chapter.write_text(text.replace("What is a?", "What is b?"), encoding="utf-8")
    assert fresh.changes(chapter) == []
    chapter.write_text(text.replace("1 > 0", "2 > 0"), encoding="utf-8")
    assert fresh.changes(chapter) == ["cells"]
    chapter.write_text(text, encoding="utf-8")
    file = chapter.parents[1] / "ledger.yml"
    shutil.copy(ROOT / "tfcourse/course/ledger.yml", file)
    real = fresh.load_ledger
    monkeypatch.setattr(fresh, "load_ledger", lambda: real(file))
    assert fresh.changes(chapter) == []
    real.cache_clear()
    edited(file, "query, key and value vectors", "query and value vectors")
    assert fresh.changes(chapter) == ["ledger"]


def test_a_notebook_that_was_never_refreshed_is_stale(write_chapter: Write) -> None:
    folder = write_chapter("01_a", "import math").parent
    write_chapter("10b_c", "import math")
    said = ["never executed by `make refresh`"]
    assert fresh.stale(folder) == {"1": said, "10b": said}


def test_the_hashes_are_the_same_with_every_version_of_python() -> None:
    program = """def f(x: int = 3, *, y: str = "'") -> str:
    'Doc.'
    async def g(): await h(*x, **y)
    with a as b, c: del b
    match x:
        case [1, *_]: return f'{x:>{3}} {x!r}' 'a'
    return lambda z: (z := 1.5e3) if z else b'\\0'
"""
    written = fresh._written(fresh.ast.parse(program))
    # As Python 3.11, 3.12 and 3.13 give it: the book is built with each.
    assert fresh._short(written) == "f73498fc187d"
