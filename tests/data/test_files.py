"""A file is replaced whole or not at all."""

from pathlib import Path

import pytest

from tfcourse.data import files
from tfcourse.data.files import replace_text, replacing


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    for content in ("first", "second"):
        old = path.read_text() if path.exists() else None
        with replacing(path) as beside:
            beside.write_text(content)
            assert (path.read_text() if path.exists() else None) == old
            assert beside.parent == path.parent
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as beside:
            beside.write_text("half of")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_at_once_do_not_write_into_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_text_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.md"
    replace_text(path, "“old”")
    assert path.read_bytes() == "“old”".encode()

    def full(*arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        replace_text(path, "new")
    assert path.read_text(encoding="utf-8") == "“old”"
    assert list(tmp_path.iterdir()) == [path]
