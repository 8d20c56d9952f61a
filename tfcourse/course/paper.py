"""The whole book as one PDF: the built pages joined, and printed by Chromium.

Run as `python -m tfcourse.course.paper _build/html _build/tfcourse.pdf`. Neither torch
nor this package needs to be installed; Chromium is found by $CHROMIUM or on the path.
"""

from __future__ import annotations

import io
import mimetypes
import os
import posixpath
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Browser, Page, Playwright, Route, sync_playwright
from pypdf import PdfReader

import tfcourse

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# No sandbox: in a container there is none to be had, and only our own pages are shown.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ADDRESS = "http://book.invalid/"  # every request is answered from the folder
WIDTH = 627  # of the text in CSS pixels: A4 less the margins in tf_paper.css
# What is for a screen alone. A quiz is a list with its answer on paper; folded code
# draws figures that are there.
SCREEN_ONLY = "a.headerlink, script, button, details.tf-code"
# A formula wider than the page is set smaller, as a printer would.
FIT_FORMULAS = """width => document.querySelectorAll(
  'mjx-container[display="true"]').forEach(one => {
  const needed = one.firstElementChild.getBoundingClientRect().width;
  const room = Math.min(width, one.parentElement.clientWidth || width);
  if (needed > room + 1) one.style.fontSize = `${Math.floor(100 * room / needed)}%`;
})"""
FILL_NUMBERS = """numbers => document.querySelectorAll('[data-page]').forEach(one => {
  one.textContent = numbers[one.dataset.page] ?? '';
})"""


@dataclass(frozen=True)
class Part:
    """A part of the book: its caption, and (page, title) in reading order."""

    caption: str
    pages: Sequence[tuple[str, str]]


def find_browser() -> str | None:
    """Return the path of a Chromium: $CHROMIUM, or one that is installed."""
    names = [os.environ.get("CHROMIUM", ""), *BROWSERS]
    return next(filter(None, map(shutil.which, filter(None, names))), None)


def start_browser(playwright: Playwright) -> Browser:
    """Start the installed Chromium, or the one that playwright has fetched."""
    return playwright.chromium.launch(
        executable_path=find_browser(), args=list(ARGUMENTS)
    )


def read_parts(toc: Path) -> list[Part]:
    """Return the parts that _toc.yml lists, the first page in one without caption."""
    listed = yaml.safe_load(toc.read_text(encoding="utf-8"))
    parts = [Part("", [(listed["root"], "Start")])]
    for part in listed["parts"]:
        pages = [(one["file"], one.get("title", "")) for one in part["chapters"]]
        parts.append(Part(part["caption"], pages))
    return parts


# ---- one page of HTML ---------------------------------------------------------------


def anchor(page: str, target: str = "") -> str:
    """Return the id that a page, or an id in it, has in the joined book."""
    name = page.replace("/", "-")
    return f"{name}--{target}" if target else name


def join(html: Path, parts: Sequence[Part], settings: dict[str, Any]) -> str:
    """Return the built pages below `html` as one page, in reading order.

    Raises ValueError for a page that is not built or a link that leads nowhere.
    """
    names = [page for part in parts for page, _ in part.pages]
    soups = {page: read_page(html, page) for page in names}
    articles = {page: text_of(soup, page) for page, soup in soups.items()}
    for page, article in articles.items():
        move(article, page, set(names))
    known = {tag["id"] for one in articles.values() for tag in one.find_all(id=True)}
    known |= {tag["id"] for tag in articles.values()}
    for page, article in articles.items():
        for link in article.select('a[href^="#"]'):
            if str(link["href"])[1:] not in known:
                raise ValueError(f"a link of {page} leads nowhere: {link['href']!r}")
    heads = "".join(running_head(page, name) for p in parts for page, name in p.pages)
    body = cover(settings) + table_of_contents(parts)
    body += "".join(str(article) for article in articles.values())
    return (
        f'<!doctype html><html lang="en" data-theme="light"><head>'
        f"{head(soups)}<style>{heads}</style></head>"
        f'<body><main class="tf-paper">{body}</main></body></html>'
    )


def read_page(html: Path, page: str) -> BeautifulSoup:
    """Return a built page."""
    path = html / f"{page}.html"
    if not path.is_file():
        raise ValueError(f"{path} is not built: type `make book` first")
    return BeautifulSoup(path.read_bytes(), "html.parser")


def text_of(soup: BeautifulSoup, page: str) -> Tag:
    """Return the text of a built page, without what is for a screen alone."""
    article = soup.article
    if article is None:
        raise ValueError(f"{page}.html has no <article>")
    for tag in article.select(SCREEN_ONLY):
        tag.decompose()
    for tag in article.find_all("details"):
        tag["open"] = ""
    return article


def move(article: Tag, page: str, pages: set[str]) -> None:
    """Rename the ids of an article and point its links and images from the top."""
    for tag in article.find_all(id=True):
        tag["id"] = anchor(page, str(tag["id"]))
    article["id"] = anchor(page)
    for image in article.find_all("img", src=True):
        folder = posixpath.dirname(page)
        image["src"] = posixpath.normpath(posixpath.join(folder, str(image["src"])))
        image["loading"] = "eager"
    for link in article.find_all("a", href=True):
        url = urlsplit(str(link["href"]))
        if url.scheme or url.netloc:
            continue
        target = page
        if url.path:
            path = posixpath.join(posixpath.dirname(page), unquote(url.path))
            target = posixpath.normpath(path).removesuffix(".html")
        if target in pages:
            link["href"] = "#" + anchor(target, unquote(url.fragment))
        else:
            del link["href"]  # the search page; the id that it may have stays


def head(soups: dict[str, BeautifulSoup]) -> str:
    """Return styles of the book and its MathJax, as the built pages load them."""
    kept: dict[str, None] = {}
    for page, soup in soups.items():
        for tag in soup.select("head > link[rel=stylesheet], head > script"):
            name = "href" if tag.name == "link" else "src"
            if tag.name == "script" and "mathjax" not in str(tag).lower():
                continue
            if tag.get(name):
                path = posixpath.join(posixpath.dirname(page), str(tag[name]))
                tag[name] = posixpath.normpath(path)
            kept[str(tag)] = None
    own = '<link rel="stylesheet" href="_static/tf_paper.css">'
    return f'<meta charset="utf-8"><base href="{ADDRESS}">{"".join(kept)}{own}'


def running_head(page: str, title: str) -> str:
    """Return the style that writes a page's title over its sheets of paper."""
    name = anchor(page)
    text = title.replace("\\", "\\\\").replace('"', '\\"')
    return (
        f"[id='{name}'] {{ page: {'p-' + name} }}"
        f'@page {"p-" + name} {{ @top-left {{ content: "{text}" }} }}'
    )


def cover(settings: dict[str, Any]) -> str:
    """Return the first sheet: title, authors, version, licence."""
    return (
        f'<header class="tf-cover"><p class="tf-title">{escape(settings["title"])}</p>'
        f"<p>{escape(settings['author'])}</p>"
        f"<p>Version {tfcourse.__version__} · {escape(str(settings['copyright']))}</p>"
        "<p>Text and figures: CC BY 4.0. Code: MIT.</p></header>"
    )


def table_of_contents(parts: Sequence[Part]) -> str:
    """Return the list of pages; the numbers come when the book has been set once."""
    rows = []
    for part in parts:
        if part.caption:
            rows.append(f"<li class='tf-part'>{escape(part.caption)}</li>")
        for page, title in part.pages:
            name = anchor(page)
            rows.append(
                f'<li><a href="#{name}">{escape(title)}</a>'
                f'<span class="tf-leader"></span><span data-page="{name}"></span></li>'
            )
    title = '<p class="tf-title">Contents</p>'
    return f'<nav class="tf-contents">{title}<ul>{"".join(rows)}</ul></nav>'


# ---- paper --------------------------------------------------------------------------


def print_page(browser: Browser, text: str, html: Path) -> bytes:
    """Print one page of HTML, its files from the folder `html`; no request leaves.

    It is set twice: the first time tells which sheet each page of the book begins on.
    Raises ValueError when a file is missing or a request would go elsewhere.
    """
    page = browser.new_page(viewport={"width": WIDTH, "height": 900})
    missing: list[str] = []
    page.route("**/*", lambda route: answer(route, text, html, missing))
    page.set_default_timeout(1_800_000)  # half an hour: a busy machine is slow
    page.emulate_media(media="print", color_scheme="light")
    page.goto(ADDRESS)
    page.evaluate("window.MathJax?.startup?.promise")
    page.evaluate("document.fonts.ready.then(() => true)")
    page.evaluate(FIT_FORMULAS, WIDTH)
    if missing:
        raise ValueError(f"the book would fetch what it does not have: {missing}")
    page.evaluate(FILL_NUMBERS, first_sheets(to_pdf(page)))
    pdf = to_pdf(page)
    page.close()
    return pdf


def answer(route: Route, text: str, html: Path, missing: list[str]) -> None:
    """Answer a request of the browser with the page, or with a file of the book."""
    url = urlsplit(route.request.url)
    file = html / unquote(url.path).lstrip("/")
    if not route.request.url.startswith(ADDRESS):
        missing.append(route.request.url)
        route.abort()
    elif url.path == "/":
        route.fulfill(body=text, content_type="text/html; charset=utf-8")
    elif file.is_file():
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        route.fulfill(body=file.read_bytes(), content_type=kind)
    else:
        missing.append(url.path)
        route.fulfill(status=404)


def to_pdf(page: Page) -> bytes:
    """Return the page as a PDF with an outline and tags for screen readers."""
    return page.pdf(
        prefer_css_page_size=True, print_background=True, outline=True, tagged=True
    )


def first_sheets(pdf: bytes) -> dict[str, int]:
    """Return {id: number of the sheet that it stands on}, counted from 1."""
    reader = PdfReader(io.BytesIO(pdf))
    found = {}
    for name, place in reader.named_destinations.items():
        number = reader.get_destination_page_number(place)
        if number is not None:
            found[name.lstrip("/")] = number + 1
    return found


def print_book(root: Path, html: Path, out: Path) -> int:
    """Print the book built in `html` from the repository `root`; return its sheets."""
    settings = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    text = join(html, read_parts(root / "_toc.yml"), settings)
    with sync_playwright() as playwright:
        browser = start_browser(playwright)
        pdf = print_page(browser, text, html)
        browser.close()
    beside = out.with_name(f".{out.name}.new")
    beside.write_bytes(pdf)
    os.replace(beside, out)
    return len(PdfReader(io.BytesIO(pdf)).pages)


def main() -> None:
    """Print the book: the folder of its pages, and the file to write."""
    if len(sys.argv) != 3:
        print("paper: give the folder of the built pages and a file", file=sys.stderr)
        raise SystemExit(2)
    html, out = map(Path, sys.argv[1:])
    try:
        sheets = print_book(Path.cwd(), html, out)
    except ValueError as error:
        print(f"paper: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"{out}: {sheets} pages, {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
