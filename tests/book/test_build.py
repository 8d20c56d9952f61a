"""The built book: complete, self-contained, every link and picture in order."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup, Tag
from built_book import Book, listed_pages
from PIL import Image

# Elements that make a browser fetch something, with the attribute that says what.
FETCHES = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "object": "data",
}


def targets(page: BeautifulSoup) -> set[str]:
    """Return the ids of a page."""
    return {str(tag["id"]) for tag in page.find_all(id=True)}


def broken_links(book: Book) -> list[str]:
    """Return `page: link` for each link inside the book that leads nowhere."""
    ids = {path: targets(page) for path, page in book.pages.items()}
    broken = []
    for path, page in book.pages.items():
        for link in page.find_all("a", href=True):
            url = urlsplit(str(link["href"]))
            if url.scheme or url.netloc:
                continue
            folder = (book.html / path).parent
            file = (folder / unquote(url.path)).resolve() if url.path else None
            inside = path if file is None else str(file.relative_to(book.html))
            exists = file is None or file.is_file()
            known = not url.fragment or unquote(url.fragment) in ids.get(inside, ())
            if not (exists and known):
                broken.append(f"{path}: {link['href']}")
    return broken


def test_build_has_no_warning(book: Book) -> None:
    assert book.code == 0, book.log


def test_every_listed_page_is_built(book: Book) -> None:
    assert len(book.pages) == len(listed_pages()) + 1
    for path, page in book.pages.items():
        assert page.h1 is not None, path
        assert page.title is not None, path


def test_the_start_leads_to_every_chapter(book: Book) -> None:
    index = (book.html / "index.html").read_text(encoding="utf-8")
    assert "url=book/intro.html" in index
    chapters = [page for page in listed_pages() if page.startswith("notebooks/")]
    article = book.pages["book/intro.html"].article
    linked = {str(link["href"]) for link in article.find_all("a", href=True)}
    assert {f"../{chapter}.html" for chapter in chapters} <= linked


def test_no_page_fetches_from_another_host(book: Book) -> None:
    for path, page in book.pages.items():
        for name, attribute in FETCHES.items():
            for tag in page.find_all(name):
                source = urlsplit(str(tag.get(attribute, "")))
                assert not source.netloc, f"{path}: {tag}"
    for sheet in (book.html / "_static").glob("*.css"):
        loads = re.findall(r"url\(\s*[\"']?(https?:|//)", sheet.read_text("utf-8"))
        assert not loads, sheet


def test_no_link_leads_nowhere(book: Book) -> None:
    assert broken_links(book) == []


def test_a_dead_link_would_be_found(book: Book) -> None:
    page = book.pages["book/notation.html"]
    dead = BeautifulSoup('<a href="glossary.html#no-such-term">x</a>', "html.parser").a
    assert isinstance(dead, Tag)
    page.article.append(dead)
    try:
        assert "book/notation.html: glossary.html#no-such-term" in broken_links(book)
    finally:
        dead.decompose()


def test_every_image_is_described(book: Book) -> None:
    images = [
        (path, image)
        for path, page in book.pages.items()
        for image in page.find_all("img")
    ]
    assert images
    for path, image in images:
        alt = str(image.get("alt", ""))
        assert len(alt.split()) >= 8, f"{path}: {alt!r}"
        assert re.search(r"\d", alt), f"{path}: no number in {alt!r}"


def test_alt_text_is_the_one_that_stands_with_the_answer(book: Book) -> None:
    for path, page in book.pages.items():
        alts = [tag["alt"] for tag in page.select(".cell_output img")]
        assert alts == [tag["data-alt"] for tag in page.select("[data-alt]")], path


def test_ids_are_unique(book: Book) -> None:
    for path, page in book.pages.items():
        ids = [str(tag["id"]) for tag in page.find_all(id=True)]
        assert len(ids) == len(set(ids)), path


def test_every_claim_box_has_its_row_in_the_ledger(book: Book) -> None:
    rows = targets(book.pages["book/ledger.html"])
    for path, page in book.pages.items():
        for link in page.select(".tf-verdict .tf-id a, .tf-claims td a"):
            url = str(link["href"])
            if "ledger.html#" in url:
                assert url.partition("#")[2] in rows, f"{path}: {url}"


def test_sentences_lead_down_to_their_evidence(book: Book) -> None:
    for path, page in book.pages.items():
        evidence = {str(tag["id"]) for tag in page.select(".text_html a[id]")}
        for link in page.select(".tf-sentences .tf-ids a"):
            claim = link.get_text()
            if claim in evidence:
                assert link["href"] == f"#{claim}", path


def test_every_quiz_has_one_of_its_options_as_key(book: Book) -> None:
    for path, page in book.pages.items():
        for quiz in page.select(".tf-quiz"):
            assert 1 <= int(str(quiz["data-key"])) <= len(quiz.select("ol > li")), path


def test_pages_without_formulas_load_no_mathjax(book: Book) -> None:
    for path, page in book.pages.items():
        loaded = any("mathjax" in str(tag["src"]) for tag in page.select("script[src]"))
        assert loaded == bool(page.select(".math")), path


@pytest.mark.parametrize("name", ["tex-mml-chtml.js", "output/chtml/fonts/woff-v2"])
def test_mathjax_comes_with_the_book(book: Book, name: str) -> None:
    assert (book.html / "_static" / "mathjax" / "es5" / name).exists()
    assert Path(book.html / "_static" / "mathjax" / "LICENSE").is_file()


def test_every_page_says_what_it_is_where_its_link_is_shared(book: Book) -> None:
    told = set()
    for page in listed_pages():
        head = book.pages[f"{page}.html"].head
        tags = {
            str(tag["property"]): str(tag["content"])
            for tag in head.select('meta[property^="og:"]')
        }
        assert tags["og:title"] == book.pages[f"{page}.html"].h1.find(string=True), page
        assert tags["og:site_name"] == "The stock answer, put to the test", page
        assert 20 < len(tags["og:description"]) <= 210, page
        assert (
            head.select_one("meta[name=description]")["content"]
            == (tags["og:description"])
        )
        image = (book.html / page).parent / tags["og:image"]
        size = (int(tags["og:image:width"]), int(tags["og:image:height"]))
        assert Image.open(image.resolve()).size == size
        told.add(tags["og:description"])
    assert len(told) == len(listed_pages())
