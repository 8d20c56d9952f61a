"""The page of a sweep: what each claim measured at each of its points.

A notebook records of a claim what it measured in words. The numbers are taken from
these words: where the words are the same at several points but for the numbers, each
number that differs is drawn. Where the words differ, the page shows them instead.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from tfcourse.batch import REPORT, Outcome, read_report
from tfcourse.course import show
from tfcourse.course.ledger import Ledger, load_ledger
from tfcourse.course.pages import claim_records
from tfcourse.data.files import replace_text

PAGE = "sweep.html"
RAISED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
# As `show.num` and its like write them: 1,024, −0.34, 2.5×10⁻⁷, 10⁻⁶.
NUMBER = re.compile(r"(?<![\w.])−?\d[\d,]*(?:\.\d+)?(?:×10[⁻⁰-⁹¹²³]+)?[⁻⁰-⁹¹²³]*")
GAP = "\ufffc"  # what no text has in it, unlike an ellipsis
BOUND = re.compile(r" or (?:more|less)\b")  # of a rounded percentage, and not of 100 %
CONTRADICTED = re.compile(r"ClaimError: claims? ([C\d, ]+):(?:.*Measured: (.*))?", re.S)
PANELS = 6  # of one figure; further numbers are in the table
STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto;
  padding: 1rem; }
img { max-width: 100%; height: auto; background: white; border-radius: 4px; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem;
  border-bottom: 1px solid gray; }
section { margin-block: 2rem; }
"""


@dataclass(frozen=True)
class Seen:
    """A claim at one point of a sweep: shown, not run or contradicted, and the words
    of what was measured."""

    point: Mapping[str, Any]
    state: str
    measured: str


def write_summary(folder: Path) -> Path:
    """Write `sweep.html` from the report in a folder, and return where it is.

    Raises ValueError where there is no report.
    """
    outcomes = read_report(folder)
    if not outcomes:
        raise ValueError(f"{folder} has no {REPORT} of a run")
    page = folder / PAGE
    replace_text(page, page_of(outcomes, load_ledger()))
    return page


# ---- what was seen ------------------------------------------------------------------


def collect(outcomes: Sequence[Outcome]) -> dict[str, list[Seen]]:
    """Return {claim: what was seen of it}, in the order of the outcomes."""
    found: dict[str, list[Seen]] = {}
    for one in outcomes:
        for record in _records(Path(one.output)):
            state = "shown" if record["ran"] else "not run"
            seen = Seen(one.parameters, state, record["measured"])
            found.setdefault(record["id"], []).append(seen)
        if said := CONTRADICTED.search(one.error or ""):
            for id_ in re.findall(r"C\d+", said[1]):
                seen = Seen(one.parameters, "contradicted", (said[2] or "").strip())
                found.setdefault(id_, []).append(seen)
    return found


def _records(path: Path) -> list[Mapping[str, Any]]:
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError):
        return []
    return list(claim_records(cells))


def numbers(text: str) -> list[float]:
    """Return the numbers in a text, in order, as `course.show` writes them."""
    return [_value(found[0]) for found in NUMBER.finditer(BOUND.sub("", text))]


def words(text: str) -> str:
    """Return a text with `GAP` for each of its numbers."""
    return NUMBER.sub(GAP, BOUND.sub("", text))


def _value(text: str) -> float:
    plain = text.replace(",", "").replace("−", "-")
    mantissa, _, power = plain.partition("×")
    exponent = re.fullmatch(r"10([⁻⁰-⁹¹²³]+)", power or mantissa)
    if exponent is None:
        return float(mantissa)
    factor = 10.0 ** int(exponent[1].translate(RAISED))
    return float(mantissa) * factor if power else factor


def series(seen: Sequence[Seen]) -> tuple[list[Seen], dict[str, list[float]]]:
    """Return the points that can be compared, and {what: its value at each of them}.

    These are the points with the most frequent words; of the numbers, those that are
    not the same everywhere, each named by the words around it.
    """
    measured = [one for one in seen if one.measured]
    if not measured:
        return [], {}
    usual = Counter(words(one.measured) for one in measured).most_common(1)[0][0]
    alike = [one for one in measured if words(one.measured) == usual]
    columns = list(zip(*(numbers(one.measured) for one in alike), strict=True))
    named: dict[str, list[float]] = {}
    for name, values in zip(_names(usual), columns, strict=True):
        if len(set(values)) > 1:
            while name in named:
                name += " "
            named[name] = list(values)
    return alike, named


def _names(usual: str) -> list[str]:
    """Return for each `GAP` in a text the clause it stands in, where it is `[…]`."""
    names = []
    for place in (found.start() for found in re.finditer(GAP, usual)):
        begin = max(usual.rfind(mark, 0, place) + 1 for mark in ("; ", ", "))
        ends = [end for mark in ("; ", ", ") if (end := usual.find(mark, place)) > 0]
        before, after = usual[begin:place], usual[place + 1 : min([*ends, place + 40])]
        if len(before) > 60:
            before = f"… {before[-60:].partition(' ')[2]}"
        names.append(f"{before}[…]{after}".replace(GAP, "…").strip())
    return names


# ---- the axis of a figure -----------------------------------------------------------


def axis(points: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """Return the parameter that is drawn across, and those that tell lines apart.

    Across goes the swept number with the most values; without one, the name is empty
    and the points stand side by side.
    """
    names = list(dict.fromkeys(name for point in points for name in point))
    values = {name: {point.get(name) for point in points} for name in names}
    swept = [name for name in names if len(values[name]) > 1]
    numeric = [
        name
        for name in swept
        if all(type(value) in (int, float) for value in values[name])
    ]
    across = max(numeric, key=lambda name: len(values[name]), default="")
    return across, [name for name in swept if name != across]


def draw(alike: Sequence[Seen], named: Mapping[str, Sequence[float]]) -> bytes:
    """Return a PNG with a panel for each number: its values over the sweep."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from tfcourse.course import plots

    plots.use_style()
    across, others = axis([one.point for one in alike])
    shown = list(named.items())[:PANELS]
    figure = Figure(figsize=(5.4, 0.5 + 1.5 * len(shown)))
    panels = figure.subplots(len(shown), sharex=True, squeeze=False)[:, 0]
    colours = [name for name in plots.SERIES if name != "ink"]
    lines = list(dict.fromkeys(_line(one, others) for one in alike))
    for panel, (name, values) in zip(panels, shown, strict=True):
        for number, line in enumerate(lines):
            chosen = [i for i, one in enumerate(alike) if _line(one, others) == line]
            x = [alike[i].point[across] if across else i for i in chosen]
            style = {"linestyle": ""} if len(lines) > len(colours) or not across else {}
            plots.line(
                panel,
                x,
                [values[i] for i in chosen],
                colours[number % len(colours)],
                label=line,
                **style,
            )
        for i in (i for i, one in enumerate(alike) if one.state == "contradicted"):
            at = alike[i].point[across] if across else i
            panel.plot(at, values[i], "x", color=plots.INK, markersize=11)
        panel.set_title(fill(name, 62), fontsize=9.5, loc="left")
    if not across or all(type(one.point[across]) is int for one in alike):
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[-1].set_xlabel(across or "point, in the order of the table")
    if 1 < len(lines) <= len(colours):
        panels[0].legend(fontsize=9)
    return show.figure_png(figure)


def _line(one: Seen, others: Sequence[str]) -> str:
    return ", ".join(f"{name}={one.point.get(name)}" for name in others)


# ---- the page -----------------------------------------------------------------------


def page_of(outcomes: Sequence[Outcome], ledger: Ledger) -> str:
    """Return the page as HTML that needs nothing else."""
    found = collect(outcomes)
    states = Counter(one.state for one in outcomes)
    counted = ", ".join(f"{number} {state}" for state, number in states.items())
    order = sorted(found, key=lambda id_: (_place(ledger, id_), id_))
    rows = [[id_, *_counts(found[id_])] for id_ in order]
    overview = show.table_html(["claim", *STATES], rows) if rows else ""
    body = "\n".join(_section(id_, found[id_], ledger) for id_ in order)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Claims over a sweep</title><style>{STYLE}</style></head>\n<body><main>"
        f"<h1>Claims over a sweep</h1>\n<p>{len(outcomes)} runs: {counted}. "
        "The numbers are taken from the words in which a notebook says what it "
        "measured.</p>\n"
        f"<details><summary>All {len(order)} claims</summary>{overview}</details>\n"
        f"{body}\n</main></body></html>\n"
    )


STATES = ("shown", "not run", "contradicted")


def _place(ledger: Ledger, id_: str) -> int:
    known = list(ledger.claims)
    return known.index(id_) if id_ in known else len(known)


def _counts(seen: Sequence[Seen]) -> list[int]:
    return [sum(one.state == state for one in seen) for state in STATES]


def _section(id_: str, seen: Sequence[Seen], ledger: Ledger) -> str:
    row = ledger.claims.get(id_)
    sentence = f"<p>“{show.rich(row.claim)}”</p>" if row else ""
    verdict = f"In the ledger: {row.verdict}. " if row else ""
    counts = ", ".join(
        f"{number} {state}"
        for state, number in zip(STATES, _counts(seen), strict=True)
        if number
    )
    alike, named = series(seen)
    return (
        f'<section id="{id_}"><h2>{id_}</h2>{sentence}<p>{verdict}'
        f"Over the sweep: {counts}.</p>\n"
        f"{_figure(id_, alike, named)}{_otherwise(seen, alike)}{_table(seen)}</section>"
    )


def _figure(
    id_: str, alike: Sequence[Seen], named: Mapping[str, Sequence[float]]
) -> str:
    if not named:
        same = "<p>All numbers are the same at every point.</p>"
        return same if len(alike) > 1 else ""
    ranges = "; ".join(
        f"{name}: {show.num(min(values))} to {show.num(max(values))}"
        for name, values in named.items()
    )
    picture = base64.b64encode(draw(alike, named)).decode()
    alt = html.escape(f"{id_} over {len(alike)} points. {ranges}")
    left = len(named) - PANELS
    more = f"<p>{left} more numbers are in the table.</p>" if left > 0 else ""
    return f'<img src="data:image/png;base64,{picture}" alt="{alt}">{more}'


def _otherwise(seen: Sequence[Seen], alike: Sequence[Seen]) -> str:
    count = sum(bool(one.measured) for one in seen) - len(alike)
    other = "Other words, and perhaps other numbers, are in the table for"
    return f"<p>{other} {count} of the points.</p>" if count else ""


def _table(seen: Sequence[Seen]) -> str:
    rows = [(_named(one.point), one.state, _printable(one.measured)) for one in seen]
    table = show.table_html(["point", "state", "measured"], rows)
    return f"<details><summary>What was measured</summary>{table}</details>"


def _named(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in point.items()) or "as the notebook has it"


def _printable(text: str) -> str:
    """Return a text that `show.rich` takes, also where an error cut it short."""
    text = text.replace("$", "")
    return (text if text.count("`") % 2 == 0 else text.replace("`", "")) or "–"
