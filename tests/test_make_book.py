"""`make book` executes the stale chapters before it renders, and only those.

The Makefile runs in a folder of its own, with programs that write down how they were
called in place of Python and Jupyter Book.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = """\
#!/bin/sh
echo "python $*" >> calls
case "$*" in
    "-m tfcourse.course.fresh") cat stale;;
    "-m tfcourse.course.refresh"*) exit $(cat refused 2>/dev/null || echo 0);;
esac
"""
RENDERED = "#!/bin/sh\necho book >> calls\nmkdir -p _build/html\n"
RENDERED += "touch _build/html/index.html\n"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the Makefile, and an environment that has what the book needs."""
    folder = tmp_path.resolve()
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "notebooks").mkdir()
    for name in ("pyproject.toml", "constraints.txt", "notebooks/01_a.ipynb"):
        (folder / name).touch()
    programs = folder / ".venv/bin"
    programs.mkdir(parents=True)
    for name, text in (("python", PYTHON), ("jupyter-book", RENDERED)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (folder / ".venv/.made").write_text(f"{folder}\n")
    (folder / ".venv/.book").touch()
    return folder


def make(project: Path) -> tuple[int, list[str]]:
    """Return the exit code of `make book`, and which programs it called."""
    calls = project / "calls"
    calls.write_text("")
    done = subprocess.run(["make", "book"], cwd=project, capture_output=True)
    heard = calls.read_text().splitlines()
    calls.unlink()
    return done.returncode, heard


def test_a_fresh_book_is_rendered_and_nothing_else(project: Path) -> None:
    (project / "stale").write_text("\n")
    fresh = "python -m tfcourse.course.fresh"
    assert make(project) == (0, [fresh, "book"])


def test_stale_chapters_are_executed_first_with_everything_installed(
    project: Path,
) -> None:
    (project / "stale").write_text("1 10b\n")
    code, calls = make(project)
    assert code == 0
    fresh, installed, refreshed, rendered = calls
    assert fresh == "python -m tfcourse.course.fresh"
    assert "pip" in installed
    assert "--editable" in installed
    assert refreshed == "python -m tfcourse.course.refresh 1 10b"
    assert rendered == "book"


def test_a_chapter_that_fails_leaves_the_book_unrendered(project: Path) -> None:
    (project / "stale").write_text("1\n")
    (project / "refused").write_text("1")
    code, calls = make(project)
    assert code != 0
    assert "book" not in calls
