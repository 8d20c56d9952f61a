"""Give every image of a cell the alt text that its answer carries, and insist on it."""

import re
from html import unescape

from docutils import nodes
from sphinx.application import Sphinx

from .report import warn

DATA_ALT = re.compile(r'data-alt="([^"]*)"')
IMG = re.compile(r"<img\b[^>]*>")
IMG_ALT = re.compile(r'\balt="([^"]*)"')
FILE_NAME = re.compile(r"\S+\.(png|jpe?g|gif|svg|webp)$", re.IGNORECASE)
FEWEST_WORDS = 3


def setup(app: Sphinx) -> None:
    """Copy alt texts when a page was read, check them when it is written."""
    app.connect("doctree-read", copy_alt)
    app.connect("doctree-resolved", check_alt)


def copy_alt(app: Sphinx, doctree: nodes.document) -> None:
    """Copy each `data-alt` of a cell's outputs to the image of the same rank."""
    for cell in doctree.findall(is_cell):
        outputs = [raw.astext() for raw in cell.findall(nodes.raw)]
        alts = [alt for output in outputs for alt in DATA_ALT.findall(output)]
        for image, alt in zip(cell.findall(nodes.image), alts, strict=False):
            image["alt"] = unescape(alt)
            # The file shows no more than the page: no link to it.
            image["classes"].append("no-scaled-link")


def is_cell(node: nodes.Node) -> bool:
    """Tell whether a node is a whole notebook cell."""
    return isinstance(node, nodes.container) and "cell" in node["classes"]


def check_alt(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Warn, so that a build with -W fails, of each image nobody has described."""
    for image in doctree.findall(nodes.image):
        if not is_description(image.get("alt", "")):
            refuse(image, docname, image.get("alt", ""))
    for raw in doctree.findall(nodes.raw):
        for tag in IMG.findall(raw.astext()):
            found = IMG_ALT.search(tag)
            alt = unescape(found.group(1)) if found else ""
            if not is_description(alt):
                refuse(raw, docname, alt)


def is_description(alt: str) -> bool:
    """Tell a description from an empty text, a single word or a file name."""
    return len(alt.split()) >= FEWEST_WORDS and not FILE_NAME.match(alt)


def refuse(node: nodes.Element, docname: str, alt: str) -> None:
    """Report an image whose alt text says nothing."""
    message = f"an image needs an alt text that says what is seen, not {alt!r}"
    warn(message, docname, node, "alt")
