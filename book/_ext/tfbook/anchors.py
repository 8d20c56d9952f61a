"""Anchors that Markdown links may name, and the links of HTML outputs.

MyST finds headings only. Rows of the ledger, the evidence of a claim and works of the
bibliography are registered here, so that links to them are checked like any other.
"""

import posixpath
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from .report import warn

ROW_ID = re.compile(r'<span id="([\w-]+)"')
LEDGER_LINK = re.compile(r'<a (href="[^"]*ledger\.(?:md|html)#(C\d+)")')
SOURCE_LINK = re.compile(r'href="([^":#?]+)\.(?:md|ipynb)(?:#([^"]*))?"')


def setup(app: Sphinx) -> None:
    """Connect to reading (anchors of a page), to its end, and to resolving links."""
    app.connect("doctree-read", register_rows)
    app.connect("doctree-read", register_evidence, priority=600)
    # sphinxcontrib-bibtex names its citations in the same event, so come after it.
    app.connect("env-updated", register_works, priority=900)
    app.connect("doctree-resolved", point_down_to_evidence)
    app.connect("doctree-resolved", rewrite_links, priority=600)


def register(env: BuildEnvironment, docname: str, slug: str, anchor: str) -> None:
    """Make `docname.md#slug` a known target whose id in the page is `anchor`."""
    slugs: dict[str, Any] = env.metadata[docname].setdefault("myst_slugs", {})
    slugs[slug] = (0, anchor, slug)


def register_rows(app: Sphinx, doctree: nodes.document) -> None:
    """Register the ids that stand in a page as `<span id="…">`: rows of the ledger."""
    for raw in doctree.findall(nodes.raw):
        for row_id in ROW_ID.findall(raw.astext()):
            register(app.env, app.env.docname, row_id, row_id)


def register_evidence(app: Sphinx, doctree: nodes.document) -> None:
    """Give the first box or row of a claim in a notebook's outputs the claim's id."""
    seen: set[str] = set()

    def with_id(link: re.Match[str]) -> str:
        href, claim_id = link.groups()
        if claim_id in seen:
            return link.group(0)
        seen.add(claim_id)
        return f'<a id="{claim_id}" {href}'

    for raw in doctree.findall(is_output):
        raw.children = [nodes.Text(LEDGER_LINK.sub(with_id, raw.astext()))]
    for claim_id in seen:
        register(app.env, app.env.docname, claim_id, claim_id)


def is_output(node: nodes.Node) -> bool:
    """Tell whether a node is an HTML output of a cell."""
    return isinstance(node, nodes.raw) and "text_html" in node["classes"]


def register_works(app: Sphinx, env: BuildEnvironment) -> None:
    """Register each work of the bibliography under its key."""
    for work in env.get_domain("cite").citations:
        docname = work.bibliography_key.docname
        register(env, docname, work.key, work.citation_id)


def point_down_to_evidence(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Let the ids of *What people say* lead down the page where it has the evidence."""
    slugs = app.env.metadata[docname].get("myst_slugs", {})
    for inline in doctree.findall(nodes.inline):
        if "tf-ids" not in inline["classes"]:
            continue
        for link in inline.findall(nodes.reference):
            page, _, claim_id = link.get("refuri", "").partition("#")
            if page.endswith("ledger.html") and claim_id in slugs:
                link["refuri"] = f"#{claim_id}"


def rewrite_links(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Let links to `.md` and `.ipynb` in HTML outputs lead to the built pages."""

    def built(link: re.Match[str]) -> str:
        folder = posixpath.dirname(docname)
        target = posixpath.normpath(posixpath.join(folder, link.group(1)))
        uri = page_uri(app, docname, target, link.group(2), raw)
        return f'href="{uri}"' if uri else link.group(0)

    for raw in doctree.findall(nodes.raw):
        if raw.get("format") == "html":
            raw.children = [nodes.Text(SOURCE_LINK.sub(built, raw.astext()))]


def page_uri(
    app: Sphinx, docname: str, target: str, slug: str | None, node: nodes.Element
) -> str | None:
    """Return the address of a page or of an anchor in it; warn where it is unknown."""
    if target not in app.env.found_docs:
        warn(
            f"an HTML output links to an unknown page: {target!r}",
            docname,
            node,
            "link",
        )
        return None
    uri = app.builder.get_relative_uri(docname, target)
    if not slug:
        return uri
    slugs = app.env.metadata[target].get("myst_slugs", {})
    if slug not in slugs:
        message = f"an HTML output links to an unknown anchor of {target!r}: {slug!r}"
        warn(message, docname, node, "link")
        return uri
    return f"{uri}#{slugs[slug][1]}"
