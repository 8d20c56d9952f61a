"""What a page shows of itself where somebody shares a link to it: Open Graph tags.

Those who read the tags want whole addresses, and a build does not know its own: it is
told by `html_baseurl` or by the environment variable BOOK_URL. Without, the image's
address is relative to the page, and `og:url` is left out.
"""

import os
import posixpath
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

IMAGE, IMAGE_SIZE = "_static/social.png", (1200, 630)
IMAGE_ALT = (
    "The title, The stock answer, put to the test, over the 3 verdicts: holds, "
    "depends, fails"
)
MOST_CHARACTERS = 200


def setup(app: Sphinx) -> None:
    """Connect to the event before a page is rendered, after the title's repair."""
    app.connect("html-page-context", add_tags, priority=700)


def add_tags(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Put the tags into the head of a page that has a text of its own."""
    if doctree is None:
        return
    base = (app.config.html_baseurl or os.environ.get("BOOK_URL", "")).rstrip("/")
    url = f"{base}/{pagename}.html" if base else ""
    folder = posixpath.dirname(pagename) or "."
    image = f"{base}/{IMAGE}" if base else posixpath.relpath(IMAGE, folder)
    name = app.config.html_title
    about = summary(doctree) or name
    facts = {
        "og:type": "article",
        "og:site_name": name,
        "og:title": title_of(doctree) or name,
        "og:description": about,
        "og:url": url,
        "og:image": image,
        "og:image:width": str(IMAGE_SIZE[0]),
        "og:image:height": str(IMAGE_SIZE[1]),
        "og:image:alt": IMAGE_ALT,
    }
    tags = [f'<meta name="description" content="{escape(about)}" />']
    tags += [
        f'<meta property="{name}" content="{escape(value)}" />'
        for name, value in facts.items()
        if value
    ]
    tags.append('<meta name="twitter:card" content="summary_large_image" />')
    context["metatags"] = context.get("metatags", "") + "\n" + "\n".join(tags)


def title_of(doctree: nodes.document) -> str:
    """Return the first title of a page."""
    title = next(doctree.findall(nodes.title), None)
    return title.astext() if title is not None else ""


def summary(doctree: nodes.document) -> str:
    """Return the first paragraph that is not the line of facts, cut at a word."""
    for paragraph in doctree.findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        if text and "tf-facts" not in paragraph["classes"]:
            if len(text) <= MOST_CHARACTERS:
                return text
            return text[:MOST_CHARACTERS].rpartition(" ")[0].rstrip(",;:. ") + " …"
    return ""
