"""What the tests know of the book: its pages, and one build of it."""

import functools
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[2]


def listed_pages() -> list[str]:
    """Return the pages that _toc.yml lists, the root first, without suffix."""
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    root = yaml.safe_load(toc)["root"]
    return [root, *re.findall(r"file: (\S+)", toc)]


@dataclass(frozen=True)
class Book:
    """A build: its exit code, what it printed, and the folder of its pages."""

    code: int
    log: str
    html: Path

    @functools.cached_property
    def pages(self) -> dict[str, BeautifulSoup]:
        """Every page that a reader can come to, by its path."""
        paths = [f"{page}.html" for page in listed_pages()]
        return {
            path: BeautifulSoup((self.html / path).read_bytes(), "html.parser")
            for path in [*paths, "search.html"]
        }


def build(out: Path) -> Book:
    """Build the repository as it is, as `make book` does, but into another folder."""
    program = Path(sys.executable).with_name("jupyter-book")
    options = ("--all", "-W", "-n", "--keep-going")
    done = subprocess.run(
        [program, "build", *options, "--path-output", out, ROOT],
        capture_output=True,
        text=True,
        check=False,
    )
    return Book(done.returncode, done.stdout + done.stderr, out / "_build" / "html")
