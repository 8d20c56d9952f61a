"""Give the parts of a page that have a fixed place the classes for their look.

The ten headings of a chapter are the same in every chapter, word for word; they and
a few opening words (`30 seconds.`, `Exercise 1.1`) are all that is recognised.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx

from .anchors import ROW_ID

HEADINGS = {
    "What people say": "tf-say",
    "Say this instead": "tf-instead",
    "Put to the test": "tf-tests",
    "Follow-ups": "tf-follow-ups",
    "Broken on purpose": "tf-broken",
    "Exercises": "tf-exercises",
    "Quiz": "tf-quizzes",
    "When they push back": "tf-push-back",
    "What to remember": "tf-remember",
    "Where to start": "tf-start",
}
TALLY = re.compile(r"(\d+) ((hold|depend|fail)s?)")


def setup(app: Sphinx) -> None:
    """Connect to the events after a page was read and after its links are known."""
    app.connect("doctree-read", name_sections)
    app.connect("doctree-resolved", draw_tally)


def name_sections(app: Sphinx, doctree: nodes.document) -> None:
    """Add the classes of a page's sections, opening lines and exercises."""
    for section in doctree.findall(nodes.section):
        title = section[0].astext()
        if title in HEADINGS:
            section["classes"].append(HEADINGS[title])
        if re.match(r"Exercise \d", title):
            section["classes"].append("tf-exercise")
    mark_facts(doctree)
    for paragraph in doctree.findall(nodes.paragraph):
        if re.match(r"30 seconds\.", paragraph.astext()):
            paragraph["classes"].append("tf-thirty")
    for bullets in doctree.findall(nodes.bullet_list):
        if "tf-start" in bullets.parent["classes"]:
            bullets["classes"].append("tf-cards")
    for table in doctree.findall(nodes.table):
        if any(ROW_ID.search(raw.astext()) for raw in table.findall(nodes.raw)):
            table["classes"].append("tf-ledger")


def mark_facts(doctree: nodes.document) -> None:
    """Mark the line of facts: italics alone, right under the page's title."""
    section = next(doctree.findall(nodes.section), None)
    if section is None or len(section) < 2:
        return
    line = section[1]
    words = [type(child) for child in line.children if child.astext().strip()]
    if isinstance(line, nodes.paragraph) and words == [nodes.emphasis]:
        line["classes"].append("tf-facts")


def draw_tally(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Turn the list of counts of the landing page into bars that link to the ledger."""
    for bullets in list(doctree.findall(nodes.bullet_list)):
        matches = [match for one in bullets if (match := TALLY.fullmatch(one.astext()))]
        links = list(bullets.findall(nodes.reference))
        if len(bullets) == len(matches) == len(links) == 3:
            bars = "".join(map(tally_bar, matches, links))
            html = f'<ul class="tf-tally">{bars}</ul>'
            bullets.replace_self(nodes.raw("", html, format="html"))


def tally_bar(match: re.Match[str], link: nodes.reference) -> str:
    """Return one bar, as wide as its count, that opens the ledger filtered."""
    count, word, stem = match.groups()
    verdict = f"{stem}s"
    return (
        f'<li class="tf-{verdict}" style="flex-grow: {count}">'
        f'<a href="{link["refuri"]}?verdict={verdict}">'
        f"<strong>{count}</strong> {word}</a></li>"
    )
