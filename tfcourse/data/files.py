"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Give the path of a new file beside `path`, which takes its place at the end.

    If the block fails, the new file is removed and `path` stays as it was. Folders that
    lack are made. Two processes that do this at once do not disturb each other.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def replace_text(path: Path | str, text: str) -> None:
    """Write a file of UTF-8 text, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
