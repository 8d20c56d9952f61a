"""Cards for Anki, and the same as CSV: every claim of the ledger, every question.

The ids of deck, note type and notes never change: they are what Anki finds a learner's
history by. A note's id is the claim's or the question's, whatever its texts are.
"""

from __future__ import annotations

import csv
import html
import io
import os
import sqlite3
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import astuple, dataclass, fields
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import genanki
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from tfcourse.course import show
from tfcourse.course.ledger import Claim, Ledger, load_ledger
from tfcourse.course.pages import Written, read_notebooks
from tfcourse.course.questions import KINDS, Question, load_questions
from tfcourse.data.files import replacing

DECK, NOTE_TYPE = 1_732_809_617, 1_732_809_618
NAME = "The stock answer, put to the test"
FRONT = "{{Front}}"
BACK = "{{FrontSide}}<hr id=answer>{{Back}}"
STYLE = """
.card { color: #1c2126; background: #fff; font-family: sans-serif; font-size: 18px;
  line-height: 1.5; text-align: left; max-width: 35em; margin: 0 auto; padding: 12px; }
.kind { color: #4d5866; font-size: 15px; }
.said { font-family: serif; font-size: 20px; }
.holds { color: #006a72; } .depends { color: #946000; } .fails { color: #8f1238; }
.nightMode.card { color: #e3e7ea; background: #14171a; }
.nightMode .kind { color: #a8b2bd; }
.nightMode .holds { color: #5cc6d0; } .nightMode .depends { color: #f2c968; }
.nightMode .fails { color: #f4708d; }
"""


@dataclass(frozen=True)
class Card:
    """One card: texts are HTML, with formulas as Anki's MathJax reads them."""

    id: str
    front: str
    back: str
    tags: str


def write_cards(out: Path, notebooks: Path) -> int:
    """Write all cards to `out` (.apkg for Anki, or .csv); return how many.

    notebooks: the folder of the executed chapters. Raises ValueError for another
    suffix, a folder without chapters, and a place that cannot be written to.
    """
    writers: dict[str, Callable[[list[Card]], bytes]] = {".apkg": apkg, ".csv": as_csv}
    if out.suffix not in writers:
        known = " or ".join(writers)
        raise ValueError(f"cards are written to a file {known}, not {str(out)!r}")
    if not out.parent.is_dir():
        raise ValueError(f"{str(out)!r} cannot be written: there is no such folder")
    cards = all_cards(load_ledger(), notebooks)
    try:
        with replacing(out) as beside:
            beside.write_bytes(writers[out.suffix](cards))
    except OSError as error:
        raise ValueError(f"{str(out)!r} cannot be written: {error.strerror}") from error
    return len(cards)


def all_cards(ledger: Ledger, notebooks: Path) -> list[Card]:
    """Return the cards of the ledger in its order, then those of the questions."""
    questions, written = load_questions(ledger, notebooks), read_notebooks(notebooks)
    return [
        *(claim_card(ledger, row, written) for row in ledger.claims.values()),
        *(question_card(ledger, one) for one in questions),
    ]


# ---- what is on a card --------------------------------------------------------------


def claim_card(ledger: Ledger, row: Claim, written: Written) -> Card:
    """Return the card that asks for a sentence's verdict."""
    glyph, word = show.VERDICTS[row.verdict]
    facts = {"Holds when": row.when, "Measured": _measured(row, written)}
    facts["Source"] = ledger.cite([row])
    front = (
        f"{_kind('What people say', ledger, row.chapter)}"
        f'<div class="said">{to_html(f"“{row.claim}”")}</div>'
        "<p>Holds, depends or fails, and why?</p>"
    )
    back = f'<p class="{row.verdict}"><b>{glyph} {word}</b></p>{to_html(row.reason)}'
    back += "".join(
        to_html(f"**{name}:** {text}") for name, text in facts.items() if text
    )
    tags = f"chapter::{row.chapter} verdict::{row.verdict} kind::claim"
    return Card(row.id, front, back, tags)


def question_card(ledger: Ledger, one: Question) -> Card:
    """Return the card of a question; a whiteboard asks for the formula that follows."""
    front = _kind(KINDS[one.kind], ledger, one.chapter) + to_html(f"**{one.text}**")
    if one.kind == "whiteboard":
        front += f"{to_html(one.setting)}<p>Write down the formula that follows.</p>"
    tags = f"chapter::{one.chapter} kind::{one.kind}"
    return Card(one.id, front, to_html(one.answer), tags)


def _kind(name: str, ledger: Ledger, chapter: Any) -> str:
    title = html.escape(ledger.chapters[chapter].title)
    return f'<p class="kind">{name} · {chapter} · {title}</p>'


def _measured(row: Claim, written: Written) -> str:
    if row.evidence == "citation":
        return "nothing; cited from the literature."
    _, record = written.records.get(row.id, ("", {}))
    return record["measured"] if record.get("ran") else "nothing yet."


def _formula(text: str, options: Mapping[str, Any]) -> str:
    opening, closing = (r"\[", r"\]") if options["display_mode"] else (r"\(", r"\)")
    return f"{opening}{html.escape(text.strip(), quote=False)}{closing}"


def _reader() -> MarkdownIt:
    """Return a reader of Markdown that keeps only the words of a link.

    Cards lie outside the book, where its links would lead nowhere.
    """
    reader = MarkdownIt("commonmark", {"html": False})
    reader.use(dollarmath_plugin, renderer=_formula)
    for rule in ("link_open", "link_close"):
        reader.add_render_rule(rule, lambda *_: "")
    return reader


READER = _reader()


def to_html(markdown: str) -> str:
    """Return Markdown as HTML, with formulas in the marks of Anki."""
    return str(READER.render(markdown)).strip()


# ---- files --------------------------------------------------------------------------


def apkg(cards: Iterable[Card]) -> bytes:
    """Return cards as a package for Anki: a zip with a database.

    Anki updates a note when its time stamp is newer, so the stamp is the present, or
    the seconds of $SOURCE_DATE_EPOCH for bytes that can be repeated.
    """
    deck = genanki.Deck(DECK, NAME)
    for one in cards:
        deck.add_note(
            genanki.Note(
                model=_note_type(),
                fields=[one.id, one.front, one.back],
                tags=one.tags.split(),
                guid=genanki.guid_for("tfcourse", one.id),
            )
        )
    stamp = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    files = {"collection.anki2": _database(deck, stamp), "media": b"{}"}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as package:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)  # of 1980, whenever it is written
            package.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def _database(deck: genanki.Deck, stamp: float) -> bytes:
    """Return the package's database; genanki's own writer leaves a temporary file."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "collection.anki2")
        with closing(sqlite3.connect(path)) as connection, connection:
            ids = count(int(stamp * 1000))
            genanki.Package(deck).write_to_db(connection.cursor(), stamp, ids)
        return path.read_bytes()


def _note_type() -> genanki.Model:
    return genanki.Model(
        NOTE_TYPE,
        NAME,
        fields=[{"name": "Id"}, {"name": "Front"}, {"name": "Back"}],
        templates=[{"name": "Card", "qfmt": FRONT, "afmt": BACK}],
        css=STYLE,
    )


def as_csv(cards: Iterable[Card]) -> bytes:
    """Return cards as CSV in UTF-8, the first line the names of the columns."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(field.name for field in fields(Card))
    writer.writerows(astuple(one) for one in cards)
    return stream.getvalue().encode("utf-8")
