"""Writes the parts of the book's pages that the ledger and the notebooks determine.

    python -m tfcourse.course.pages [--measured DIR...]

A page has places for them, `<!-- begin: generated NAME -->` to `<!-- end: … -->`; the
prose around them is written by hand. Only the standard library and yaml are imported,
since the book is built without torch.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfcourse.course import show
from tfcourse.course.ledger import Claim, Ledger, load_ledger
from tfcourse.course.status import (
    DEFAULT,
    FILE,
    Status,
    as_text,
    read_status,
    status_block,
    taken_in,
)
from tfcourse.data.files import replace_text

BLOCKS = {
    "book/ledger.md": ("claims",),
    "book/intro.md": ("counts", "chapters"),
    "book/status.md": ("status",),
    "book/live.md": ("live",),
    "book/teaching.md": ("sessions",),
    "notebooks/START_HERE.md": ("notebooks",),
}
LIVE = "book/_static/live"  # what `tfcourse.course.live` exports


@dataclass(frozen=True)
class Written:
    """What the committed notebooks say: claims recorded, chapters and their minutes."""

    records: Mapping[str, tuple[str, Mapping[str, Any]]]  # id -> notebook, record
    minutes: Mapping[str, int]  # notebook -> minutes to read
    # notebook -> seconds to run at size `laptop`, minutes for all exercises
    work: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def write_pages(root: Path) -> list[Path]:
    """Bring the generated blocks below `root` up to date; return the changed pages."""
    changed = []
    for path, text in _pages(root).items():
        if text != path.read_text(encoding="utf-8"):
            replace_text(path, text)
            changed.append(path)
    return changed


def stale_pages(root: Path) -> list[Path]:
    """Return the pages whose generated blocks are not up to date; writes nothing."""
    return [
        path
        for path, text in _pages(root).items()
        if text != path.read_text(encoding="utf-8")
    ]


def read_notebooks(folder: Path) -> Written:
    """Read the records of claims and the minutes to read from executed chapters."""
    records: dict[str, tuple[str, Mapping[str, Any]]] = {}
    minutes, work = {}, {}
    for path in sorted(folder.glob("[0-9][0-9]*_*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found = re.search(r"(\d+) minutes", "".join(cells[0]["source"]))
        minutes[path.stem] = int(found[1]) if found else 0
        work[path.stem] = work_of(cells)
        for record in claim_records(cells):
            records[record["id"]] = (path.stem, record)
    return Written(records, minutes, work)


def work_of(cells: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Return a chapter's seconds to run and its exercises' minutes, as it says."""
    seconds = re.search(r"(\d+) seconds to run", "".join(cells[0]["source"]))
    texts = ["".join(one["source"]) for one in cells if one["cell_type"] == "markdown"]
    exercise = re.compile(r"^### Exercise .*\n+\*(\d+) minutes", re.MULTILINE)
    minutes = sum(int(m) for text in texts for m in exercise.findall(text))
    return int(seconds[1]) if seconds else 0, minutes


def claim_records(cells: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield what a notebook's executed cells record of each claim."""
    for output in (o for cell in cells for o in cell.get("outputs", [])):
        yield from output.get("metadata", {}).get("tfcourse", {}).get("claims", [])


def _pages(root: Path) -> dict[Path, str]:
    ledger, written = load_ledger(), read_notebooks(root / "notebooks")
    blocks: dict[str, Callable[[], str]] = {
        "claims": lambda: claims_block(ledger, written),
        "counts": lambda: counts_block(ledger),
        "chapters": lambda: chapters_block(ledger, written),
        "status": lambda: status_block(read_status(root)),
        "live": lambda: live_block(root / LIVE),
        "sessions": lambda: sessions_block(ledger, written),
        "notebooks": lambda: notebooks_block(ledger, written),
    }
    pages = {}
    for name, inside in BLOCKS.items():
        text = (root / name).read_text(encoding="utf-8")
        for block in inside:
            text = fill(text, block, blocks[block]())
        pages[root / name] = text
    return pages


def fill(page: str, name: str, block: str) -> str:
    """Return a page with a block put between its markers.

    Raises ValueError when the page does not have both markers once, in order.
    """
    begin = f"<!-- begin: generated {name} -->"
    end = f"<!-- end: generated {name} -->"
    if (
        page.count(begin) != 1
        or page.count(end) != 1
        or end not in page.split(begin)[1]
    ):
        raise ValueError(f"the page needs {begin!r} and then {end!r}, each once")
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n{block.strip()}\n{end}{after}"


# ---- the blocks ---------------------------------------------------------------------


def counted(counts: Mapping[str, int]) -> str:
    """Return counts in words, as in `7 hold, 15 depend, 1 fails`."""
    return ", ".join(
        f"{number} {verdict if number == 1 else verdict.rstrip('s')}"
        for verdict, number in counts.items()
    )


def counts_block(ledger: Ledger) -> str:
    """Return the tally of all rows as a list of links to the ledger."""
    return "\n".join(
        f"- [{part}](ledger.md)" for part in counted(ledger.counts()).split(", ")
    )


def chapters_block(ledger: Ledger, written: Written) -> str:
    """Return the table of chapters; those without a notebook have no link."""
    lines = ["| Chapter | Verdicts | Time |", "|---|---|---|"]
    for number, chapter in ledger.chapters.items():
        name = f"{number} · {chapter.title}"
        counts = minutes = ""
        if chapter.notebook in written.minutes:
            name = f"[**{name}**](../notebooks/{chapter.notebook}.ipynb)"
            counts = counted(ledger.counts(number))
            minutes = f"{written.minutes[chapter.notebook]} min"
        cells = (f"{name}<br>{chapter.question}", counts, minutes)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def sessions_block(ledger: Ledger, written: Written) -> str:
    """Return the table of what a class needs of time for each chapter, with a sum."""
    lines = ["| Chapter | Sentences | Read | Exercises |", "|---|--:|--:|--:|"]
    sums = [0, 0, 0]
    for number, chapter in ledger.chapters.items():
        if chapter.notebook not in written.minutes:
            continue
        name = f"{number} · {chapter.title}"
        parts = (
            len(ledger.of_chapter(number)),
            written.minutes[chapter.notebook],
            written.work[chapter.notebook][1],
        )
        sums = [total + part for total, part in zip(sums, parts, strict=True)]
        link = f"[{name}](../notebooks/{chapter.notebook}.ipynb)"
        lines.append(f"| {link} | {parts[0]} | {parts[1]} min | {parts[2]} min |")
    hours = [f"{minutes / 60:.1f} h" for minutes in sums[1:]]
    return "\n".join([*lines, f"| All | {sums[0]} | {hours[0]} | {hours[1]} |"])


def notebooks_block(ledger: Ledger, written: Written) -> str:
    """Return the list of chapters for JupyterLab, in order, with what each takes."""
    lines = ["| Chapter | Read | Run at `laptop` | Exercises |", "|---|--:|--:|--:|"]
    for number, chapter in ledger.chapters.items():
        if chapter.notebook in written.minutes:
            seconds, exercises = written.work[chapter.notebook]
            lines.append(
                f"| [{number} · {chapter.title}]({chapter.notebook}.ipynb) "
                f"| {written.minutes[chapter.notebook]} min | {seconds} s "
                f"| {exercises} min |"
            )
    return "\n".join(lines)


def claims_block(ledger: Ledger, written: Written) -> str:
    """Return the ledger as one heading and one table for each chapter that has rows."""
    parts = []
    for number, chapter in ledger.chapters.items():
        rows = ledger.of_chapter(number)
        if rows:
            lines = [
                f"## {number} · {chapter.title}\n",
                f"{len(rows)} sentences: {counted(ledger.counts(number))}.\n",
                "| Verdict | What people say | Why | Evidence |",
                "|---|---|---|---|",
                *(_claim_line(ledger, row, written) for row in rows),
            ]
            parts.append("\n".join(lines))
    return "\n\n".join(parts)


def live_block(folder: Path) -> str:
    """Return what the model in the page was trained on, and how often it is right."""
    about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    trained, scores, config = about["training"], about["scores"], about["config"]
    size = (folder / "model.safetensors").stat().st_size / 1e6
    lines = [
        f"An encoder of {config['num_encoder_layers']} layers and a decoder of "
        f"{config['num_decoder_layers']}, {config['num_heads']} heads in each: "
        f"{trained['weights']:,} weights, {size:.2f} MB in float16, trained for "
        f"{trained['steps']:,} steps of {trained['batch']} pairs, of "
        f"{trained['pairs']:,}: dates from {trained['first'][:4]} to "
        f"{trained['last'][:4]}, with the day of the week or without. Of "
        f"{scores['days']} days that it has never seen, each in every pair of "
        f"languages, it translates **{_share(scores['greedy'])}** letter for letter, "
        f"greedily ({scores['asked']:,} translations), and {_share(scores['beam'])} "
        f"with {about['beams']} beams (of {scores['beam_asked']:,}).\n",
        "| Language | From it | Into it |",
        "|---|---:|---:|",
    ]
    for code, language in about["languages"].items():
        shares = (_share(scores[side][code]) for side in ("by_source", "by_target"))
        name = f'<span lang="{code}">{language["name"]}</span>, {language["english"]}'
        lines.append(f"| {name} | {' | '.join(shares)} |")
    return "\n".join(lines)


def _share(value: float) -> str:
    """Return a share in per cent; what is not all of it never looks like all."""
    return "100 %" if value == 1 else f"{math.floor(10_000 * value) / 100:.2f} %"


def _claim_line(ledger: Ledger, row: Claim, written: Written) -> str:
    glyph, word = show.VERDICTS[row.verdict]
    why = f"{row.reason} *Holds when* {row.when}." if row.when else row.reason
    sources = ledger.cite([row], folder="")
    cells = (
        f'**{glyph} {word}** <span id="{row.id}">{row.id}</span>',
        _in_table(f"“{row.claim}”"),
        _in_table(why),
        f"{_evidence(row, written)} {_in_table(sources)}",
    )
    return f"| {' | '.join(cells)} |"


def _evidence(row: Claim, written: Written) -> str:
    if row.evidence == "citation":
        return "*Cited.*"
    notebook, record = written.records.get(row.id, ("", {}))
    if not record.get("ran"):
        return "*Not measured yet.*"
    measured = _in_table(record["measured"]).rstrip(".")
    link = f"[See it](../notebooks/{notebook}.ipynb#{row.id})"
    if re.match(r"[a-z]{2}", measured):  # a word, not a symbol such as d or `mask`
        measured = measured[0].upper() + measured[1:]
    return f"*Measured.* {measured}. {link}."


def _in_table(text: str) -> str:
    """Return text for a cell of a Markdown table: no bars, no HTML, one line."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def take_in(root: Path, folders: Sequence[Path]) -> None:
    """Put the reports of `tfcourse run` in these folders into the book's status."""
    status = read_status(root)
    for folder in folders:
        text = (folder / "report.json").read_text(encoding="utf-8")
        status = taken_in(status, json.loads(text))
    if folders:
        replace_text(root / FILE, as_text(status))
        put_times(root, status)


def put_times(root: Path, status: Status) -> None:
    """Say at the top of each notebook what a run of it took, rounded up to 10 s.

    That is at the notebook's own size. No output depends on this text.
    """
    for name, one in status.get(DEFAULT, {}).get("chapters", {}).items():
        path = root / "notebooks" / f"{name}.ipynb"
        text = path.read_text(encoding="utf-8")
        taken = f"{math.ceil(one['seconds'] / 10) * 10} seconds to run"
        changed = re.sub(r"\d+ seconds to run", taken, text, count=1)
        if changed != text:
            replace_text(path, changed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--measured",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="folders in which `tfcourse run` reported, for the status page",
    )
    try:
        take_in(Path.cwd(), parser.parse_args(arguments).measured)
    except (OSError, ValueError, KeyError) as error:
        parser.error(f"no report that can be used: {error}")
    for page in write_pages(Path.cwd()):
        print(f"written: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
