"""The ledger of claims, and how a notebook decides one of them from what it measured.

Only the standard library and yaml are imported, since the book is built without torch.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tfcourse.course import show

LEDGER_FILE = Path(__file__).with_name("ledger.yml")
VERDICTS = tuple(show.VERDICTS)
EVIDENCE = ("experiment", "computation", "citation")
# A chapter's number; the further notebook of a long one has a letter: 10, "10b".
Key = int | str
SECTION = re.compile(r"question|main|follow-up [1-9]")


class ClaimError(AssertionError):
    """A claim of the ledger is not what the evidence shows."""


@dataclass(frozen=True)
class Claim:
    """One row of the ledger: a sentence people say, and what is true of it."""

    id: str
    chapter: Key
    section: str
    claim: str
    verdict: str
    reason: str
    source: Mapping[str, str]  # bibliography key -> place in the work
    evidence: str
    when: str | None = None
    rests_on: str | None = None

    @property
    def number(self) -> int:
        """The number in the id, by which rows are ordered."""
        return int(self.id[1:])


@dataclass(frozen=True)
class ChapterTitle:
    """What the book's own pages say of a chapter, written or not."""

    notebook: str
    title: str
    question: str


@dataclass(frozen=True)
class Ledger:
    """All rows by id, the chapters by number, and the names of the sources by key."""

    claims: Mapping[str, Claim]
    chapters: Mapping[Key, ChapterTitle]
    sources: Mapping[str, str]

    def row(self, id_: str) -> Claim:
        """Return a row; raises ValueError with the nearest known ids."""
        if id_ in self.claims:
            return self.claims[id_]
        near = difflib.get_close_matches(str(id_), self.claims, n=3, cutoff=0.3)
        raise ValueError(f"unknown claim {id_!r}; nearest known: {', '.join(near)}")

    def of_chapter(self, number: Key) -> list[Claim]:
        """Return the rows of a chapter in order."""
        return [row for row in self.claims.values() if row.chapter == number]

    def counts(self, number: Key | None = None) -> dict[str, int]:
        """Return how many rows have each verdict, in one chapter or in all."""
        rows = self.claims.values() if number is None else self.of_chapter(number)
        return {v: sum(row.verdict == v for row in rows) for v in VERDICTS}

    def cite(self, rows: Iterable[Claim], folder: str = "../book/") -> str:
        """Return the sources of some rows as Markdown links, each once.

        folder: where the bibliography's page lies, as seen from the page that cites.
        """
        cited = {(key, place) for row in rows for key, place in row.source.items()}
        order = list(self.sources)
        named = sorted(cited, key=lambda pair: (order.index(pair[0]), pair[1]))
        return "; ".join(
            f"[{self.sources[key]}, {place}]({folder}bibliography.md#{key})"
            for key, place in named
        )


# ---- reading and checking -----------------------------------------------------------


@cache
def load_ledger(path: Path = LEDGER_FILE) -> Ledger:
    """Read and check the ledger.

    Raises ValueError naming the row, the value and what is allowed.
    """
    # The parser in C, where there is one, saves each chapter a second.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    data = yaml.load(path.read_text(encoding="utf-8"), loader)
    chapters = {
        number: ChapterTitle(**entry) for number, entry in data["chapters"].items()
    }
    sources = data["sources"]
    claims: dict[str, Claim] = {}
    for entry in data["claims"]:
        row = _read_row(entry, chapters, sources)
        if claims and row.number <= max(known.number for known in claims.values()):
            raise ValueError(f"row {row.id} stands twice or out of order")
        claims[row.id] = row
    for row in claims.values():
        if row.rests_on and (row.rests_on not in claims or row.rests_on == row.id):
            raise ValueError(
                f"row {row.id}: rests_on must be null or another row's id, "
                f"got {row.rests_on!r}"
            )
    return Ledger(claims, chapters, sources)


def _read_row(
    entry: Mapping[str, Any],
    chapters: Mapping[Key, ChapterTitle],
    sources: Mapping[str, str],
) -> Claim:
    id_ = entry.get("id")
    fields = set(Claim.__dataclass_fields__)
    missing, unknown = fields - set(entry), set(entry) - fields
    if missing or unknown:
        raise ValueError(
            f"row {id_}: missing {sorted(missing)}, unknown {sorted(unknown)}; "
            f"the fields are {sorted(fields)}"
        )
    row = Claim(**entry)
    if not re.fullmatch(r"C[1-9]\d*", str(row.id)):
        raise ValueError(f"row {id_}: an id is C and a number, got {id_!r}")
    _require(row, "chapter", chapters)
    _require(row, "verdict", VERDICTS)
    _require(row, "evidence", EVIDENCE)
    if not SECTION.fullmatch(str(row.section)):
        raise ValueError(
            f"row {id_}: section must be question, main or follow-up N, "
            f"got {row.section!r}"
        )
    _check_texts(row)
    _check_source(row, sources)
    return row


def _require(row: Claim, field: str, allowed: Iterable[object]) -> None:
    value = getattr(row, field)
    if value not in allowed:
        raise ValueError(
            f"row {row.id}: {field} must be one of "
            f"{', '.join(map(str, allowed))}; got {value!r}"
        )


def _check_texts(row: Claim) -> None:
    texts = {"claim": row.claim, "reason": row.reason}
    if (row.verdict == "depends") != (row.when is not None):
        raise ValueError(
            f"row {row.id}: `when` is required for depends and null for "
            f"the other verdicts, got {row.verdict} with {row.when!r}"
        )
    if row.when is not None:
        texts["when"] = row.when
    for field, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"row {row.id}: {field} must be a text, got {text!r}")
        show.rich(text)  # raises on TeX and on open backticks


def _check_source(row: Claim, sources: Mapping[str, str]) -> None:
    if not isinstance(row.source, dict) or not row.source:
        raise ValueError(
            f"row {row.id}: source must map bibliography keys to places, "
            f"got {row.source!r}"
        )
    unknown = sorted(set(row.source) - set(sources))
    if unknown:
        near = [difflib.get_close_matches(key, sources, n=2) for key in unknown]
        raise ValueError(f"row {row.id}: unknown sources {unknown}; nearest: {near}")
    empty = [key for key, place in row.source.items() if not place]
    if empty:
        raise ValueError(f"row {row.id}: say where in {empty} it stands")


# ---- deciding -----------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """Rows that one measurement decides, with the verdict it gives them."""

    rows: tuple[Claim, ...]
    verdict: str
    holds: tuple[str, ...]
    fails: tuple[str, ...]
    measured: str
    ran: bool

    def record(self) -> list[dict[str, Any]]:
        """Return what the ledger page reads from the notebook's metadata."""
        return [
            {
                "id": row.id,
                "verdict": self.verdict if self.ran else None,
                "measured": self.measured if self.ran else "",
                "conditions": {"holds": list(self.holds), "fails": list(self.fails)},
                "ran": self.ran,
            }
            for row in self.rows
        ]


def claim(
    *ids: str,
    holds: Mapping[str, object] | None = None,
    fails: Mapping[str, object] | None = None,
    measured: str,
    ran: bool = True,
) -> None:
    """Decide claims by evidence and draw their verdict box.

    holds, fails: condition in words -> the computed bool that it was met, for the
    conditions under which the claim was seen to hold or to fail; both kinds together
    mean that it depends. measured: the numbers, in words. ran=False, for a claim about
    training in a run that trains for seconds only, draws "Not run" and judges nothing.
    Raises ClaimError when a condition is not met or the verdict is not the ledger's.
    """
    found = evidence(*ids, holds=holds, fails=fails, measured=measured, ran=ran)
    rows = found.rows
    if not ran:
        facts = {"Measured here": "Not run at this size."}
        _draw(found, None, (), facts)
        return
    facts = {"Measured here": measured}
    if found.holds:
        facts["Seen to hold"] = "; ".join(found.holds)
    if found.fails:
        facts["Seen to fail"] = "; ".join(found.fails)
    own = _without_dependents(rows)
    if found.verdict == "depends":
        facts["Holds when"] = "; ".join(_distinct(str(row.when) for row in own))
    facts["Source"] = load_ledger().cite(rows)
    _draw(found, found.verdict, _distinct(row.reason for row in own), facts)


def evidence(
    *ids: str,
    holds: Mapping[str, object] | None = None,
    fails: Mapping[str, object] | None = None,
    measured: str,
    ran: bool = True,
) -> Evidence:
    """Decide claims as `claim` does, for a row of `claim_table` instead of a box."""
    if not ids:
        raise ValueError("name at least one claim, as in claim('C6', …)")
    rows = tuple(load_ledger().row(id_) for id_ in ids)
    cited_only = [row.id for row in rows if row.evidence == "citation"]
    if cited_only:
        raise ValueError(f"{cited_only} rest on literature only: use cited(…)")
    met, failed = _conditions(ids, holds or {}), _conditions(ids, fails or {})
    if not met and not failed:
        raise ClaimError(f"{_names(ids)}: no evidence given; pass holds or fails")
    if not isinstance(measured, str) or not measured.strip():
        raise ClaimError(f"{_names(ids)}: `measured` must say what was measured")
    verdict = "depends" if met and failed else "holds" if met else "fails"
    found = Evidence(rows, verdict, tuple(met), tuple(failed), measured, bool(ran))
    if ran:
        _judge(found, met | failed)
    return found


def cited(*ids: str) -> None:
    """Draw the verdict box of claims that rest on the literature only."""
    rows = _cited_rows(ids)
    facts = {"Source": load_ledger().cite(rows), "Measured here": "Nothing."}
    if rows[0].verdict == "depends":
        facts = {"Holds when": "; ".join(_distinct(str(r.when) for r in rows))} | facts
    found = Evidence(rows, rows[0].verdict, (), (), "", True)
    _draw(found, found.verdict, _distinct(row.reason for row in rows), facts)


def claim_table(*entries: Evidence | str) -> None:
    """Draw lesser claims as one table of `evidence(…)`; a bare id is a cited row."""
    lines, records = [], []
    for entry in entries:
        if isinstance(entry, str):
            rows = _cited_rows((entry,))
            entry = Evidence(rows, rows[0].verdict, (), (), "", True)
            text = f"{rows[0].reason} *Cited:* {load_ledger().cite(rows)}."
        else:
            text = entry.measured if entry.ran else "Not run at this size."
            reasons = _distinct(row.reason for row in _without_dependents(entry.rows))
            text = f"{' '.join(reasons)} *Measured:* {text}"
        badge = show.mark(entry.verdict) if entry.ran else "<strong>Not run</strong>"
        quotes = [row.claim for row in entry.rows]
        lines.append((badge, [row.id for row in entry.rows], quotes, text))
        records += entry.record()
    show.verdict_table(lines, {"tfcourse": {"claims": records}})


def _cited_rows(ids: tuple[str, ...]) -> tuple[Claim, ...]:
    rows = tuple(load_ledger().row(id_) for id_ in ids)
    measured = [row.id for row in rows if row.evidence != "citation"]
    if measured or not rows:
        raise ValueError(f"{measured} are measured in the course: use claim(…)")
    _same_verdict(rows)
    return rows


def _conditions(
    ids: Iterable[str], conditions: Mapping[str, object]
) -> dict[str, bool]:
    return {
        text: show.truth(value, f"{_names(ids)}: condition {text!r}")
        for text, value in conditions.items()
    }


def _judge(found: Evidence, conditions: Mapping[str, bool]) -> None:
    ids = [row.id for row in found.rows]
    unmet = [text for text, met in conditions.items() if not met]
    if unmet:
        raise ClaimError(
            f"{_names(ids)}: not met: {'; '.join(unmet)}. Measured: {found.measured}"
        )
    _same_verdict(found.rows)
    if found.verdict != found.rows[0].verdict:
        raise ClaimError(
            f"{_names(ids)}: the evidence says {found.verdict!r}, the ledger says "
            f"{found.rows[0].verdict!r}. "
            f"Seen to hold: {'; '.join(found.holds) or 'nowhere'}. "
            f"Seen to fail: {'; '.join(found.fails) or 'nowhere'}. "
            f"Measured: {found.measured}"
        )


def _same_verdict(rows: tuple[Claim, ...]) -> None:
    if len({row.verdict for row in rows}) > 1:
        listed = ", ".join(f"{row.id} {row.verdict}" for row in rows)
        raise ClaimError(f"one box, one verdict; the ledger says {listed}")


def _draw(
    found: Evidence,
    verdict: str | None,
    reasons: Iterable[str],
    facts: Mapping[str, str],
) -> None:
    quotes = {row.id: row.claim for row in found.rows}
    record = {"tfcourse": {"claims": found.record()}}
    show.verdict(quotes, verdict, reasons, facts, record)


def _without_dependents(rows: tuple[Claim, ...]) -> list[Claim]:
    """Leave out rows that rest on another row of the same box: it speaks for them."""
    ids = {row.id for row in rows}
    return [row for row in rows if row.rests_on not in ids]


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _names(ids: Iterable[str]) -> str:
    listed = list(ids)
    return f"claim{'s' * (len(listed) > 1)} {', '.join(listed)}"
