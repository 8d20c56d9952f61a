"""The book, built once from the repository as it is, and a browser to look at it."""

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from built_book import Book, build

from tfcourse.course.paper import BROWSERS, find_browser, start_browser


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Book:
    """Build the book once for all tests."""
    return build(tmp_path_factory.mktemp("book"))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Print nothing for a request."""


@pytest.fixture(scope="session")
def address(book: Book) -> Iterator[str]:
    """Serve the book on this machine, and return the address of its folder."""
    handler = functools.partial(_Quiet, directory=str(book.html))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Start the browser, without a window and without requests of its own."""
    if find_browser() is None:
        pytest.skip(f"no Chromium here: set CHROMIUM, or install {BROWSERS[0]}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = start_browser(playwright)
        yield started
        started.close()
