"""Give the bold verdicts of plain Markdown the classes that the style sheet draws.

Authors write `**✗ Fails**`; in a quotation it becomes a verdict box, at the start of
the items of a numbered list a list of sentences, anywhere else just the mark.
"""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

VERDICTS = {"✓ Holds": "holds", "◐ Depends": "depends", "✗ Fails": "fails"}
COUNTS = re.compile(r"(\d+) holds?, (\d+) depends?, (\d+) fails?")


def setup(app: Sphinx) -> None:
    """Connect to the event after each page was read."""
    app.connect("doctree-read", mark_verdicts)


def mark_verdicts(app: Sphinx, doctree: nodes.document) -> None:
    """Mark every bold verdict of a page, and the box or list that it opens."""
    for strong in list(doctree.findall(nodes.strong)):
        verdict = VERDICTS.get(strong.astext())
        if verdict is None:
            continue
        draw_mark(strong, verdict)
        paragraph = strong.parent
        if leading(paragraph) is not strong:
            continue
        if isinstance(paragraph.parent, nodes.block_quote):
            draw_box(paragraph.parent, verdict)
        elif isinstance(paragraph.parent.parent, nodes.enumerated_list):
            draw_sentence(paragraph, verdict)
    for text in list(doctree.findall(nodes.Text)):
        if in_table(text) and (match := COUNTS.search(text)):
            draw_counts(text, match)


def leading(paragraph: nodes.Element) -> nodes.Node | None:
    """Return the first child that is not blank (MyST puts empty texts in front)."""
    return next((child for child in paragraph if child.astext().strip()), None)


def draw_mark(strong: nodes.strong, verdict: str) -> None:
    """Separate glyph and word: the page draws an icon in place of the glyph."""
    glyph, word = strong.astext().split(" ", 1)
    strong["classes"] += ["tf-mark", f"tf-{verdict}"]
    strong.children = []
    strong += [nodes.inline("", f"{glyph} ", classes=["tf-g"]), nodes.Text(word)]


def draw_box(quotation: nodes.block_quote, verdict: str) -> None:
    """Make a quotation whose first line is a verdict a verdict box."""
    quotation["classes"] += ["tf-verdict", f"tf-{verdict}"]
    head = quotation[0]
    head["classes"].append("tf-head")
    wrap(head, after_mark(head), "tf-id")
    for paragraph in quotation[1:]:
        if paragraph.astext().startswith("“"):
            paragraph["classes"].append("tf-claim")


def draw_sentence(paragraph: nodes.paragraph, verdict: str) -> None:
    """Make `1. **✗ Fails** “sentence” [C6](…)` a row: mark, sentence, ids."""
    item = paragraph.parent
    item["classes"].append(f"tf-{verdict}")
    if "tf-sentences" not in item.parent["classes"]:
        item.parent["classes"].append("tf-sentences")
    rest = after_mark(paragraph)
    first_id = len(rest)
    while first_id and is_id(rest[first_id - 1]):
        first_id -= 1
    wrap(paragraph, rest[:first_id], "tf-quote")
    wrap(paragraph, rest[first_id:], "tf-ids")


def after_mark(paragraph: nodes.Element) -> list[nodes.Node]:
    """Return what follows the mark, without the dot or blank that separates it."""
    rest = paragraph[paragraph.index(leading(paragraph)) + 1 :]
    if rest and isinstance(rest[0], nodes.Text):
        text = nodes.Text(rest[0].lstrip(" ·"))
        paragraph.replace(rest[0], text)
        rest[0] = text
    return rest


def is_id(node: nodes.Node) -> bool:
    """Tell whether a node belongs to the claim ids that end a sentence."""
    if isinstance(node, nodes.Text):
        return not node.strip(" ,\n")
    return isinstance(node, nodes.reference | addnodes.pending_xref)


def wrap(parent: nodes.Element, children: list[nodes.Node], name: str) -> None:
    """Put consecutive children of a node into one inline element of class `name`."""
    if not children:
        return
    inline = nodes.inline(classes=[name])
    parent.insert(parent.index(children[0]), inline)
    for child in children:
        parent.remove(child)
        inline += child


def in_table(text: nodes.Text) -> bool:
    """Tell whether a text stands in the cell of a table."""
    return isinstance(text.parent.parent, nodes.entry)


def draw_counts(text: nodes.Text, match: re.Match[str]) -> None:
    """Show `7 hold, 14 depend, 2 fail` as icons; the words stay for who listens."""
    counts = nodes.inline(classes=["tf-counts"])
    for verdict, number in zip(VERDICTS.values(), match.groups(), strict=True):
        count = nodes.inline(classes=["tf-count", f"tf-{verdict}"])
        count += nodes.Text(number)
        count += nodes.inline("", f" {verdict.rstrip('s')} ", classes=["tf-hidden"])
        counts += count
    before, after = text[: match.start()], text[match.end() :]
    parts = [nodes.Text(before), counts, nodes.Text(after)]
    text.parent.replace(text, [part for part in parts if part.astext()])
