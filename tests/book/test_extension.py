"""What the book's extension draws, and what it refuses to build."""

import base64
import io
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup, Tag
from built_book import ROOT
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

EXTENSIONS = str(ROOT / "book" / "_ext")
SETTINGS = {
    "extensions": ["myst_nb", "sphinxcontrib.bibtex", "tfbook"],
    "bibtex_bibfiles": ["works.bib"],
    "bibtex_cite_id": "{key}",
    "myst_enable_extensions": ["dollarmath"],
    "myst_heading_anchors": 3,
    "nb_execution_mode": "off",
    "nb_code_prompt_show": "Show the code",
    "nb_code_prompt_hide": "Hide the code",
    "html_theme": "basic",
}
LEDGER = """\
---
orphan: true
---
# The ledger

## First

| Verdict | What people say | Why | Evidence |
|---|---|---|---|
| **✗ Fails** <span id="C6">C6</span> | “a” | b | *Measured.* [See](index.ipynb#C6) |
"""
WORKS = """\
---
orphan: true
---
# Works

```{bibliography}
:all:
:list: bullet
```
"""
ALT = "Line chart of 2 losses, from 4 down to 1"


@dataclass
class Built:
    """A small book: exit code, warnings, and its first page."""

    code: int
    warnings: str
    page: BeautifulSoup

    def one(self, selector: str) -> Tag:
        """Return the only element that a selector finds."""
        (found,) = self.page.select(selector)
        return found


@pytest.fixture(scope="module", autouse=True)
def extensions() -> Iterator[None]:
    """Let the book's extension be imported, as Sphinx does."""
    sys.path.append(EXTENSIONS)
    yield
    sys.path.remove(EXTENSIONS)


@pytest.fixture(scope="module")
def build(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Built]:
    """Return a function that builds a notebook of the given cells, with a ledger."""

    def run(*cells: nbformat.NotebookNode) -> Built:
        folder = tmp_path_factory.mktemp("small")
        write(folder, cells)
        return make(folder)

    return run


def write(folder: Path, cells: Iterable[nbformat.NotebookNode]) -> None:
    """Write the sources of a small book."""
    title = nbformat.v4.new_markdown_cell("# Title")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(
        cells=[title, *cells], metadata={"kernelspec": kernel}
    )
    nbformat.write(notebook, folder / "index.ipynb")
    (folder / "ledger.md").write_text(LEDGER, encoding="utf-8")
    (folder / "works.md").write_text(WORKS, encoding="utf-8")
    Image.new("L", (4, 4)).save(folder / "dot.png")
    entry = "@misc{ba2016layer, author={A. Ba}, title={Norm}, year={2016}}"
    (folder / "works.bib").write_text(entry, encoding="utf-8")


def make(source: Path) -> Built:
    """Build a folder with every warning an error."""
    warnings, out = io.StringIO(), source / "_out"
    with patch_docutils(), docutils_namespace():
        app = Sphinx(
            source,
            None,
            out,
            out / "doctrees",
            "html",
            confoverrides=SETTINGS,
            status=None,
            warning=warnings,
            warningiserror=True,
            keep_going=True,
        )
        app.config.nitpicky = True
        app.build()
    html = (out / "index.html").read_bytes()
    return Built(
        app.statuscode, warnings.getvalue(), BeautifulSoup(html, "html.parser")
    )


def text(source: str) -> nbformat.NotebookNode:
    """Return a Markdown cell."""
    return nbformat.v4.new_markdown_cell(source)


def output(**data: str) -> nbformat.NotebookNode:
    """Return an output of a code cell: html= or png=."""
    names = {"html": "text/html", "png": "image/png"}
    bundle = {names[kind]: value for kind, value in data.items()}
    return nbformat.v4.new_output("display_data", data=bundle)


def code(*outputs: nbformat.NotebookNode, tag: str = "x") -> nbformat.NotebookNode:
    """Return an executed code cell."""
    return nbformat.v4.new_code_cell(
        "1 + 1", outputs=list(outputs), execution_count=1, metadata={"tags": [tag]}
    )


def picture(grey: int = 255) -> nbformat.NotebookNode:
    """Return the output of a figure."""
    stream = io.BytesIO()
    Image.new("L", (4, 4), grey).save(stream, "PNG")
    return output(png=base64.b64encode(stream.getvalue()).decode())


def answer(alt: str) -> nbformat.NotebookNode:
    """Return the output that carries a figure's alt text."""
    return output(html=f'<div class="tf-answer" data-alt="{alt}"><p>Yes.</p></div>')


def box(links: str) -> nbformat.NotebookNode:
    """Return the output of a verdict box with the given links."""
    return output(html=f'<div class="tf-verdict tf-fails"><p>{links}</p></div>')


# ---- what it refuses ----------------------------------------------------------------

FAULTS = {
    "no alt text": (code(picture()), "needs an alt text"),
    "an empty one": (code(picture(), answer("")), "needs an alt text"),
    "a file name": (code(picture(), answer("a/loss_curve.png")), "needs an alt text"),
    "one for two figures": (code(picture(), picture(0), answer(ALT)), "alt text"),
    "Markdown image": (text("![](dot.png)"), "needs an alt text"),
    "image in HTML": (code(output(html='<img src="x.png">')), "needs an alt text"),
    "Markdown link to no page": (text("[a](nowhere.md)"), "nowhere.md"),
    "Markdown link to no row": (text("[a](ledger.md#C7)"), "C7"),
    "Markdown link to no work": (text("[a](works.md#ba2017layer)"), "ba2017layer"),
    "HTML link to no page": (code(box('<a href="nowhere.md">a</a>')), "nowhere"),
    "HTML link to no row": (code(box('<a href="ledger.md#C7">a</a>')), "C7"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_refuses(build: Callable[..., Built], fault: str) -> None:
    cell, message = FAULTS[fault]
    evidence = code(box('<a href="ledger.md#C6">C6</a>'))
    built = build(evidence, cell)
    assert built.code != 0
    assert message in built.warnings
    assert built.warnings.count("WARNING") == 1, built.warnings


def test_accepts_what_is_right(build: Callable[..., Built]) -> None:
    links = '<a href="ledger.md#C6">C6</a> <a href="works.md#ba2016layer">Ba</a>'
    built = build(
        code(box(links)),
        code(picture(), answer(ALT)),
        text("[a](ledger.md#C6) [b](works.md#ba2016layer) [c](ledger.md#first)"),
    )
    assert (built.code, built.warnings) == (0, "")


# ---- what it draws ------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(build: Callable[..., Built]) -> Built:
    """Build a chapter that has everything the extension recognises."""
    built = build(
        text("*Chapter 1 · 23 claims: 7 hold, 15 depend, 1 fails*"),
        text(
            "## What people say\n\n"
            "1. **✗ Fails** “Scores use *values*.” [C6](ledger.md#C6)\n"
            "2. **◐ Depends** “Order.” [C6](ledger.md#C6), [C6](ledger.md#first)\n"
        ),
        text("## Say this instead\n\n**30 seconds.** A layer has two parts."),
        text("## Put to the test\n\n| n |\n|---|\n| 7 hold, 1 depends, 0 fail |"),
        code(
            box('<a href="ledger.md#C6">C6</a> <a href="works.md#ba2016layer">Ba</a>')
        ),
        code(picture(), answer("Chart of a &lt; b &amp; c"), tag="hide-input"),
        text(
            "## Exercises\n\n### Exercise 1.1 · mask\n\n- **✓ Holds**: in a plain list"
        ),
        text("> **✓ Holds** · claim [C6](ledger.md#C6)\n>\n> “It does.”\n>\n> Why."),
    )
    assert (built.code, built.warnings) == (0, "")
    return built


def test_draws_the_line_of_facts(drawn: Built) -> None:
    assert drawn.one(".tf-facts").get_text().startswith("Chapter 1")


def test_draws_sentences(drawn: Built) -> None:
    first, second = drawn.page.select("ol.tf-sentences > li")
    assert first["class"] == ["tf-fails"]
    assert first.select_one(".tf-mark.tf-fails").get_text() == "✗ Fails"
    assert first.select_one(".tf-quote").get_text().strip() == "“Scores use values.”"
    assert [link["href"] for link in second.select(".tf-ids a")] == [
        "#C6",  # the evidence on this page; what is not evidence stays as it was
        "ledger.html#first",
    ]


def test_draws_a_box_of_a_quotation(drawn: Built) -> None:
    quotation = drawn.one("blockquote.tf-verdict.tf-holds")
    head = quotation.select_one(".tf-head")
    assert head.select_one(".tf-g").get_text() == "✓ "
    assert head.select_one(".tf-id").get_text() == "claim C6"
    assert quotation.select_one(".tf-claim").get_text() == "“It does.”"


def test_marks_a_verdict_in_a_plain_list_and_no_more(drawn: Built) -> None:
    item = drawn.one(".tf-exercise ul li")
    assert item.select_one(".tf-mark.tf-holds") is not None
    assert item.get("class") is None


def test_draws_counts_in_tables_only(drawn: Built) -> None:
    counts = drawn.one(".tf-counts")
    numbers = [count.contents[0] for count in counts.select(".tf-count")]
    assert numbers == ["7", "1", "0"]
    assert counts.find_parent("td") is not None


def test_names_sections_and_exercises(drawn: Built) -> None:
    assert drawn.one("section.tf-say h2").get_text().startswith("What people say")
    assert drawn.one("section.tf-exercises section.tf-exercise") is not None
    assert drawn.one("p.tf-thirty") is not None


def test_copies_the_alt_text(drawn: Built) -> None:
    image = drawn.one("img")
    assert image["alt"] == "Chart of a < b & c"
    assert image.find_parent("a") is None


def test_links_of_outputs_lead_to_pages(drawn: Built) -> None:
    links = drawn.page.select(".text_html .tf-verdict a")
    assert [link["href"] for link in links] == [
        "ledger.html#C6",
        "works.html#ba2016layer",
    ]
    assert links[0]["id"] == "C6"


def test_folded_code_is_named_by_its_words(drawn: Built) -> None:
    summary = drawn.one("details.tf-code > summary")
    assert summary.get("aria-label") is None
    words = [span.get_text() for span in summary.select("span")]
    assert words == ["Show the code", "Hide the code"]


def test_a_drill_without_a_place_for_its_questions_is_refused() -> None:
    from tfbook.drill import PAGE, PLACE, put_questions

    for page in ("# Drill", f"{PLACE}\n{PLACE}"):
        with pytest.raises(ValueError, match=f"needs '{PLACE}' once"):
            put_questions(None, PAGE, [page])
    other = ["# Another page"]
    put_questions(None, "book/other", other)
    assert other == ["# Another page"]


@pytest.mark.parametrize(
    ("url", "image"),
    [
        ("", "_static/social.png"),
        ("https://example.org/book/", "https://example.org/book/_static/social.png"),
    ],
)
def test_tags_for_sharing_take_the_first_text_and_whole_addresses(
    build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch, url: str, image: str
) -> None:
    monkeypatch.setenv("BOOK_URL", url)
    page = build(
        text("*Chapter 1 · 5 minutes*"), text("Say “A & B” " + "long " * 60)
    ).page
    tags = {tag["property"]: tag["content"] for tag in page.select("meta[property]")}
    assert tags["og:title"] == "Title"
    assert tags["og:description"].startswith("Say “A & B” long")
    assert tags["og:description"].endswith("long …")
    assert len(tags["og:description"]) <= 202
    assert tags["og:image"] == image
    assert tags.get("og:url") == (f"{url}index.html" if url else None)


ICON_SCRIPT = (
    'regular={bars:[9,9,[],"f0c9","M9"]},'
    'solid={"file-bars":[8,8,[],"f0","M8"],bars:[448,512,["navicon"],"f0c9","M0 96"]}'
)


def test_icons_are_drawn_and_their_script_is_gone() -> None:
    from tfbook.icons import draw_icons

    page = (
        '<script defer src="../_static/scripts/fontawesome.js?digest=5"></script>'
        '<i class="switch fa-solid fa-bars fa-lg" data-mode="dark"></i>'
        '<i class="a"></i>'
    )
    assert draw_icons(page, ICON_SCRIPT) == (
        '<svg class="tf-icon switch fa-solid fa-bars fa-lg" data-mode="dark" '
        'aria-hidden="true" viewBox="0 0 448 512"><path d="M0 96"/></svg>'
        '<i class="a"></i>'
    )


@pytest.mark.parametrize(
    ("classes", "said"),
    [("fa-solid fa-xy", "has no icon 'xy'"), ("fa-lg", "not the name of one icon")],
)
def test_an_icon_that_is_not_there_ends_the_build(classes: str, said: str) -> None:
    from sphinx.errors import ExtensionError
    from tfbook.icons import draw_icons

    with pytest.raises(ExtensionError, match=said):
        draw_icons(f'<i class="{classes}"></i>', ICON_SCRIPT)
