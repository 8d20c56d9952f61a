"""Every committed chapter keeps what `notebook_checks` asks of it."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from notebook_checks import CHECKS, Committed, solutions

from tfcourse.course import exercises
from tfcourse.course.fresh import changes
from tfcourse.course.ledger import load_ledger
from tfcourse.course.pages import stale_pages

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9][0-9]*_*.ipynb"))


def test_the_chapters_of_the_ledger_are_there() -> None:
    rows = load_ledger().claims.values()
    titles = load_ledger().chapters
    expected = {titles[row.chapter].notebook for row in rows}
    assert expected == {path.stem for path in CHAPTERS}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_chapter(check: Callable[[Committed], Iterator[str]], path: Path) -> None:
    faults = list(check(Committed.read(path, load_ledger())))
    assert not faults, "\n".join([path.name, *faults])


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_printed_solutions_pass_and_stubs_are_open(path: Path) -> None:
    chapter = Committed.read(path, load_ledger())
    found = list(solutions(chapter))
    assert len(found) >= 3
    for name, stub, solution in found:
        for code, state in ((stub, "open"), (solution, "pass")):
            space = _imports(chapter)
            exec(code, space)
            result = exercises.find(name, space[name])
            assert result.state == state, f"{path.name}, {name}: {result.items}"


def _imports(chapter: Committed) -> dict[str, object]:
    """Run the notebook's import statements, which a solution may rely on."""
    space: dict[str, object] = {}
    for cell in chapter.code:
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(compile(ast.Module([node], []), "imports", "exec"), space)
    return space


def test_generated_pages_are_up_to_date() -> None:
    stale = [str(path.relative_to(ROOT)) for path in stale_pages(ROOT)]
    assert stale == [], "run: python -m tfcourse.course.pages"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_outputs_belong_to_the_package_as_it_is(path: Path) -> None:
    assert changes(path) == [], f"run: make refresh CHAPTERS={path.stem[:3]}"


def test_every_source_of_the_ledger_is_in_the_bibliography() -> None:
    text = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    keys = set(re.findall(r"^@\w+\{([^,\s]+),", text, flags=re.M))
    assert set(load_ledger().sources) - keys == set()
