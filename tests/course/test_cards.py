"""The cards read back: complete, stable, and legible without the book."""

import csv
import json
import re
import sqlite3
import zipfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tfcourse.course import cards
from tfcourse.course.ledger import load_ledger
from tfcourse.course.pages import read_notebooks
from tfcourse.course.questions import load_questions

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LEDGER = load_ledger()
ALL = cards.all_cards(LEDGER, NOTEBOOKS)
BY_ID = {one.id: one for one in ALL}


def rows(path: Path, query: str) -> list[Any]:
    """Return what a query finds in the database of a package."""
    with zipfile.ZipFile(path) as package:
        assert json.loads(package.read("media")) == {}
        database = Path(package.extract("collection.anki2", path.with_suffix("")))
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def ids(path: Path) -> tuple[set[int], set[int], dict[str, str]]:
    """Return the ids of decks and note types, and {our id: id of the note}."""
    ((decks, types),) = rows(path, "select decks, models from col")
    notes = rows(path, "select flds, guid from notes")
    named = {fields.split("\x1f")[0]: guid for fields, guid in notes}
    return set(map(int, json.loads(decks))), set(map(int, json.loads(types))), named


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cards") / "transformers.apkg"
    assert cards.write_cards(path, NOTEBOOKS) == len(ALL)
    return path


def test_every_claim_and_every_question_has_a_card(package: Path) -> None:
    notes = rows(package, "select flds, tags from notes")
    tags = {fields.split("\x1f")[0]: tags.split() for fields, tags in notes}
    questions = {one.id for one in load_questions(LEDGER, NOTEBOOKS)}
    assert set(tags) == set(LEDGER.claims) | questions
    assert len(notes) == len(LEDGER.claims) + len(questions)
    assert rows(package, "select count(*) from cards") == [(len(notes),)]
    for row in LEDGER.claims.values():
        wanted = {f"verdict::{row.verdict}", f"chapter::{row.chapter}", "kind::claim"}
        assert set(tags[row.id]) == wanted, row.id
    kinds = {tag for one in questions for tag in tags[one] if tag.startswith("kind")}
    assert {"kind::short", "kind::follow-up", "kind::push-back"} < kinds


def test_a_claim_asks_for_the_verdict_and_tells_why() -> None:
    written = read_notebooks(NOTEBOOKS).records
    for row in LEDGER.claims.values():
        front, back = BY_ID[row.id].front, BY_ID[row.id].back
        assert front.endswith("<p>Holds, depends or fails, and why?</p>")
        assert not re.search(r"[✓◐✗]", front)
        assert f'<p class="{row.verdict}"><b>' in back
        assert ("<strong>Holds when:</strong>" in back) == (row.verdict == "depends")
        assert "<strong>Source:</strong>" in back
        if row.evidence == "citation":
            assert "nothing; cited from the literature." in back
        else:
            measured = written[row.id][1]["measured"]
            assert cards.to_html(f"**Measured:** {measured}") in back
    card = BY_ID["C6"]
    assert "Vaswani 2017, equation 1" in card.back
    assert LEDGER.row("C6").claim in card.front


def test_cards_are_legible_without_the_book() -> None:
    for one in ALL:
        both = one.front + one.back
        assert "$" not in both, one.id
        assert "href" not in both, one.id
        assert "**" not in both, one.id
        assert both.count(r"\(") == both.count(r"\)"), one.id
        assert both.count(r"\[") == both.count(r"\]"), one.id
    board = BY_ID["1-whiteboard-where-do-the-values-enter"]
    assert r"\[\text{Attention}(Q, K, V) = " in board.back
    assert r"\(d_k\)" in board.back


def test_formulas_and_signs_survive_as_html() -> None:
    shown = cards.to_html("If $a < b$ and `x < y`, [see](a.md): 1 < 2.\n\n$$\nc\n$$")
    assert r"\(a &lt; b\)" in shown
    assert "<code>x &lt; y</code>, see: 1 &lt; 2." in shown
    assert r"\[c\]" in shown


def test_an_update_keeps_every_id(package: Path, tmp_path: Path) -> None:
    changed = [replace(one, front="new", back="texts", tags="x") for one in ALL]
    later = tmp_path / "later.apkg"
    later.write_bytes(cards.apkg(reversed(changed)))
    assert ids(later) == ids(package)
    assert rows(later, "select distinct tags from notes") == [(" x ",)]
    decks, types, notes = ids(package)
    assert {cards.DECK} < decks  # Anki's default deck is the other
    assert types == {cards.NOTE_TYPE}
    assert len(set(notes.values())) == len(ALL)


def test_the_ids_are_those_of_the_first_release(package: Path) -> None:
    assert (cards.DECK, cards.NOTE_TYPE) == (1732809617, 1732809618)
    assert ids(package)[2]["C6"] == "cV#27%Q,mh"


def test_a_later_export_has_later_time_stamps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for stamp in ("1700000000", "1700000000", "1800000000"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", stamp)
        made.append(cards.apkg(ALL[:3]))
    assert made[0] == made[1]
    path = tmp_path / "c.apkg"
    path.write_bytes(made[2])
    assert rows(path, "select distinct mod from notes") == [(1800000000,)]


def test_csv_has_the_same_cards(tmp_path: Path) -> None:
    path = tmp_path / "transformers.csv"
    assert cards.write_cards(path, NOTEBOOKS) == len(ALL)
    with path.open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [cards.Card(**row) for row in read] == ALL
    assert sorted(one.name for one in tmp_path.iterdir()) == ["transformers.csv"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cards.txt", r"a file \.apkg or \.csv, not '.*cards\.txt'"),
        ("cards", r"a file \.apkg or \.csv"),
        ("nowhere/cards.csv", "no such folder"),
        ("file/cards.apkg", "no such folder"),
        ("folder.csv", "folder.csv' cannot be written: Is a directory"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match=message):
        cards.write_cards(tmp_path / name, NOTEBOOKS)
    assert {one.name for one in tmp_path.iterdir()} == {"file", "folder.csv"}


def test_a_failed_export_keeps_the_file_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cards.csv"
    path.write_text("before")

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ValueError, match="No space left on device"):
        cards.write_cards(path, NOTEBOOKS)
    assert path.read_text() == "before"
