"""Repairs of the stock theme: what axe finds on each page, and the tab's title."""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from .icons import draw_icons, icon_script

# In the text of a page. Folded code has a label that hides its visible words.
BODY_REPAIRS = {
    '<details class="admonition hide above-input">\n'
    '<summary aria-label="Toggle hidden content">\n'
    '<p class="collapsed admonition-title">{show}</p>\n'
    '<p class="expanded admonition-title">{hide}</p>\n': (
        '<details class="tf-code">\n<summary>\n'
        '<span class="tf-when-closed">{show}</span>'
        '<span class="tf-when-open">{hide}</span>\n'
    ),
}
# Around it. The same for two buttons; the sidebar's title is outside all landmarks.
FRAME_REPAIRS = {
    ' title="Search" aria-label="Search" data-bs-placement="bottom" '
    'data-bs-toggle="tooltip">\n <i': ">\n <i",
    ' data-mode="light" title="Light"': ' data-mode="light"',
    ' data-mode="dark"  title="Dark"': ' data-mode="dark"',
    ' data-mode="auto"  title="System Settings"': ' data-mode="auto"',
    'id="pst-primary-sidebar" class="': (
        'id="pst-primary-sidebar" role="region" aria-label="Book" class="'
    ),
}


def setup(app: Sphinx) -> None:
    """Connect to the events before a page is rendered and after all were written."""
    app.connect("html-page-context", repair_body)
    app.connect("html-page-context", drop_mathjax, priority=900)
    app.connect("build-finished", repair_frames)


def repair_body(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Repair a page's text; keep the book's name out of its own page's title."""
    words = {
        "show": app.config.nb_code_prompt_show,
        "hide": app.config.nb_code_prompt_hide,
    }
    for stock, better in BODY_REPAIRS.items():
        body = context.get("body", "")
        context["body"] = body.replace(stock.format(**words), better.format(**words))
    if pagename == app.config.root_doc:
        context["title"] = "Start"


def drop_mathjax(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Load no MathJax, over 1 MB, where there is no formula.

    Sphinx loads it on a page without formulas if a page below it has some, which is
    always so for the first page.
    """
    if 'class="math' not in context.get("body", ""):
        scripts = context["script_files"]
        scripts[:] = [one for one in scripts if "mathjax" not in str(one.filename)]


def repair_frames(app: Sphinx, error: Exception | None) -> None:
    """Repair what the theme's templates wrote around the text of every page."""
    if error is not None or app.builder.format != "html":
        return
    script = icon_script(app)
    for docname in [*app.env.found_docs, "search"]:
        page = Path(app.builder.get_outfilename(docname))
        html = page.read_text(encoding="utf-8")
        for stock, better in FRAME_REPAIRS.items():
            html = html.replace(stock, better)
        html = draw_icons(html, script)
        page.write_text(html, encoding="utf-8")
