"""Put the questions of the chapters into the drill's page, and the cards beside it.

The page has one line `<!-- the questions -->`; its Markdown is made while it is read.
"""

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

# The book is built without the package being installed, and with its own in any case.
ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from tfcourse.course.cards import write_cards  # noqa: E402
from tfcourse.course.ledger import load_ledger  # noqa: E402
from tfcourse.course.questions import drill_block, load_questions  # noqa: E402

PAGE = "book/drill"
PLACE = "<!-- the questions -->"
CARDS = ("transformers.apkg", "transformers.csv")


def setup(app: Sphinx) -> None:
    """Connect to reading the page, to writing it, and to the end of the build."""
    app.connect("source-read", put_questions)
    app.connect("html-page-context", add_script)
    app.connect("build-finished", add_cards)


def put_questions(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace the marked place of the drill's page by all questions."""
    if docname != PAGE:
        return
    if source[0].count(PLACE) != 1:
        raise ValueError(f"{PAGE} needs {PLACE!r} once")
    folder, ledger = Path(app.srcdir) / "notebooks", load_ledger()
    block = drill_block(load_questions(ledger, folder), ledger)
    source[0] = source[0].replace(PLACE, block)
    for path in folder.glob("*.ipynb"):
        app.env.note_dependency(str(path))


def add_script(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Load the drill's script on its page, and nowhere else."""
    if pagename == PAGE:
        app.add_js_file("drill.js", defer="defer")


def add_cards(app: Sphinx, error: Exception | None) -> None:
    """Write the cards that the page offers beside it."""
    if (
        error is not None
        or app.builder.format != "html"
        or PAGE not in app.env.found_docs
    ):
        return
    folder = Path(app.outdir, PAGE).parent
    for name in CARDS:
        write_cards(folder / name, Path(app.srcdir) / "notebooks")
