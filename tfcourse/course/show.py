"""What cells print: verdicts, experiments, tables, quizzes, checks, sources, numbers.

Text given to these functions may hold `code`, *emphasis*, **strong** and
[links](page.md), as Markdown writes them; everything else is escaped. Mathematics is
plain Unicode: JupyterLab would typeset a dollar sign in an output, the book would not.

Only the standard library is imported at the top, since the book is built without torch.
"""

from __future__ import annotations

import html
import inspect
import io
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

VERDICTS = {
    "holds": ("✓", "Holds"),
    "depends": ("◐", "Depends"),
    "fails": ("✗", "Fails"),
}
CHECK_STATES = {
    "open": ("○", "Not started"),
    "fail": ("✗", "Not yet"),
    "pass": ("✓", "Solved"),
}
ANSWER_STARTS = ("Yes", "No", "Only if")
LEDGER_PAGE = "../book/ledger.md"  # as seen from notebooks/

# header cells, then rows of cells; the first cell of a row names it
Table = tuple[Sequence[object], Sequence[Sequence[object]]]


# ---- text ---------------------------------------------------------------------------


def rich(text: str) -> str:
    """Return `text` as escaped HTML with elements for code, em, strong and links.

    Raises ValueError on a dollar sign (see the module's first lines) and on a backtick
    that is not closed.
    """
    if "$" in text:
        raise ValueError(
            f"outputs show no TeX; write the formula in plain Unicode: {text!r}"
        )
    parts = html.escape(text).split("`")
    if len(parts) % 2 == 0:
        raise ValueError(f"a backtick is not closed in {text!r}")
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = f"<code>{part}</code>"
            continue
        part = re.sub(r"\*\*(\S(?:[^*]*\S)?)\*\*", r"<strong>\1</strong>", part)
        part = re.sub(r"\[([^\]]+)\]\(([^()\s]+)\)", r'<a href="\2">\1</a>', part)
        parts[i] = re.sub(
            r"(?<![\w*])\*(\S(?:[^*]*\S)?)\*(?![\w*])", r"<em>\1</em>", part
        )
    return "".join(parts)


def plain(markup: str) -> str:
    """Return the text of an HTML fragment, a line for each block, for terminals."""
    text = re.sub(r"</(?:p|li|dd|tr|div|summary|caption|pre)>", "\n", markup)
    text = re.sub(r"</dt>", ": ", re.sub(r"</t[hd]>|<br>", " ", text))
    text = html.unescape(re.sub(r"<[^>]+>", "", text))
    lines = (re.sub(r"\s+", " ", line).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def emit(markup: str, metadata: Mapping[str, Any] | None = None) -> None:
    """Display an HTML fragment as one output, with its text as the fallback."""
    from IPython.display import display

    bundle = {"text/html": markup, "text/plain": plain(markup)}
    display(bundle, raw=True, metadata=dict(metadata or {}))


# ---- numbers ------------------------------------------------------------------------


def num(value: Any, digits: int = 3) -> str:
    """Return a number as a reader wants it: `1,024`, `0.34`, `2.5×10⁻⁷`, `0`.

    `value` is anything `float` accepts (a one-element tensor too). Integers keep all
    their digits, other numbers `digits` significant ones. Raises ValueError when the
    value is a bool or not finite.
    """
    value = value.item() if hasattr(value, "item") else value
    if (
        isinstance(value, bool)
        or value != value
        or value in (float("inf"), -float("inf"))
    ):
        raise ValueError(f"num formats finite numbers, got {value!r}")
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    rounded = float(f"{value:.{digits - 1}e}")
    if rounded == 0:
        return "0"
    exponent = int(f"{rounded:e}".split("e")[1])
    if exponent < -4:
        mantissa = f"{rounded / 10**exponent:.{digits - 1}f}".rstrip("0").rstrip(".")
        return f"{mantissa}×{power_of_ten(exponent)}".replace("-", "−")
    decimals = max(0, digits - 1 - exponent)
    return f"{rounded:,.{decimals}f}".replace("-", "−")


def power_of_ten(exponent: int) -> str:
    """Return 10 to an integer power with a raised exponent, as in `10⁻⁶`."""
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def under(value: Any, limit: float) -> str:
    """Return "under `limit`" after checking that it is so.

    Rounding errors differ between machines in every digit, so a chapter prints the
    limit they stay under and never the error itself. Raises ValueError when `value` is
    not below `limit`.
    """
    if not 0 <= float(value) < limit:
        raise ValueError(f"{float(value):g} is not between 0 and the limit {limit:g}")
    exponent = f"{limit:e}".split("e")
    if float(exponent[0]) == 1 and int(exponent[1]) < -2:
        return f"under {power_of_ten(int(exponent[1]))}"
    return f"under {limit:g}"


def seconds(value: float) -> str:
    """Return a duration in seconds for prose: `under 0.1 s`, `3.4 s`, `2 min 5 s`."""
    if value < 0:
        raise ValueError(f"a duration is not negative, got {value}")
    if value < 0.1:
        return "under 0.1 s"
    if value < 9.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def percent(fraction: Any, decimals: int = 0) -> str:
    """Return a fraction as `97 %`; what is not quite all is never rounded to 100 %."""
    value = 100 * float(fraction)
    text = f"{value:.{decimals}f}"
    step = 10.0**-decimals
    if value < 100 and float(text) >= 100:
        text = f"{100 - step:.{decimals}f}"
    if value > 0 and float(text) == 0:
        return f"under {step:.{decimals}f} %"
    return f"{text} %"


def at_least(fractions: Iterable[Any], decimals: int = 0) -> str:
    """Return what all fractions reach, rounded down, as `97 % or more`; or `100 %`."""
    worst = min(float(value) for value in fractions)
    step = 100 * 10**decimals
    rounded = math.floor(worst * step + 1e-9) / step
    return percent(rounded, decimals) + " or more" * (worst < 1)


def at_most(fractions: Iterable[Any], decimals: int = 0) -> str:
    """Return what no fraction exceeds, rounded up, as `52 % or less`; or `0 %`."""
    best = max(float(value) for value in fractions)
    step = 100 * 10**decimals
    rounded = math.ceil(best * step - 1e-9) / step
    return percent(rounded, decimals) + " or less" * (best > 0)


# ---- tables -------------------------------------------------------------------------


def table_html(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Return a table with scoped headers; numbers are formatted by `num`.

    Raises ValueError when a row has another length than the header, and when a column
    has no name: a screen reader has nothing else to say of it.
    """
    if not all(str(name).strip() for name in header):
        raise ValueError(f"each column needs a name, got {list(header)!r}")
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} cells under {len(header)}: {row!r}")
    head = "".join(f'<th scope="col">{_cell(name)}</th>' for name in header)
    body = "\n".join(
        f'<tr><th scope="row">{_cell(row[0])}</th>'
        + "".join(f"<td>{_cell(value)}</td>" for value in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    )


def _cell(value: object) -> str:
    return rich(value) if isinstance(value, str) else num(value)


def table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
    """Display a small table; the first cell of each row is its name."""
    emit(f'<div class="tf-table">{table_html(header, rows)}</div>')


# ---- verdicts -----------------------------------------------------------------------


def mark(verdict: str) -> str:
    """Return the mark of a verdict as HTML: glyph and word, never colour alone."""
    glyph, word = VERDICTS[verdict]
    return (
        f'<strong class="tf-mark tf-{verdict}">'
        f'<span class="tf-g">{glyph} </span>{word}</strong>'
    )


def claim_links(ids: Sequence[str]) -> str:
    """Return links to rows of the ledger, separated by commas."""
    return ", ".join(f'<a href="{LEDGER_PAGE}#{id_}">{id_}</a>' for id_ in ids)


def verdict(
    quotes: Mapping[str, str],
    verdict: str | None,
    reasons: Iterable[str],
    facts: Mapping[str, str],
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Display a verdict box.

    quotes: id -> the claim in our words; reasons: one paragraph each; facts: the lines
    below (measured here, holds when, source); verdict None: not run at this size.
    """
    ids = list(quotes)
    label = f"claim{'s' * (len(ids) > 1)}"
    head = mark(verdict) if verdict else '<strong class="tf-mark">Not run</strong>'
    name = f"{label.capitalize()} {', '.join(ids)}: {verdict or 'not run at this size'}"
    quoted = "\n".join(f"<p>“{rich(text)}”</p>" for text in quotes.values())
    why = "\n".join(f'<p class="tf-why">{rich(text)}</p>' for text in reasons)
    listed = "".join(
        f"<dt>{html.escape(term)}</dt><dd>{rich(text)}</dd>"
        for term, text in facts.items()
    )
    emit(
        f'<div class="tf-verdict tf-{verdict or "notrun"}" role="note"'
        f' aria-label="{html.escape(name)}">\n'
        f'<p class="tf-head">{head} <span class="tf-id">{label} '
        f"{claim_links(ids)}</span></p>\n"
        f"<blockquote>{quoted}</blockquote>\n{why}\n<dl>{listed}</dl>\n</div>",
        metadata,
    )


def verdict_table(
    rows: Sequence[tuple[str, Sequence[str], Sequence[str], str]],
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Display lesser claims as a table.

    Each row: mark as HTML, ids, claims in our words, evidence in one line.
    """
    body = "\n".join(
        f"<tr><td>{badge}<br>{claim_links(ids)}</td><td>"
        + "<br>".join(f"“{rich(quote)}”" for quote in quotes)
        + f"</td><td>{rich(evidence)}</td></tr>"
        for badge, ids, quotes, evidence in rows
    )
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("Verdict", "What people say", "Evidence")
    )
    emit(
        f'<div class="tf-claims"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>",
        metadata,
    )


# ---- experiments --------------------------------------------------------------------


def experiment(
    figure: Any,
    number: str,
    question: str,
    answer: str,
    alt: str,
    table: Table | None = None,
) -> None:
    """Display a question, the figure that settles it and the answer: three outputs.

    figure: a matplotlib Figure; table: header and rows of the numbers drawn. Raises
    ValueError when the question does not end with "?", the answer does not begin with
    Yes, No or Only if, or the alternative text is short or has no number.
    """
    _check_experiment(question, answer, alt)
    emit(
        f'<div class="tf-ask"><p class="tf-kicker"><strong>Experiment '
        f'{html.escape(number)}</strong></p><p class="tf-question">{rich(question)}</p>'
        "</div>"
    )
    _emit_figure(figure)
    details = (
        f"\n<details><summary>The numbers</summary>{table_html(*table)}</details>"
        if table
        else ""
    )
    emit(
        f'<div class="tf-answer" data-alt="{html.escape(alt)}">'
        f"<p><strong>Answer.</strong> {rich(answer)}</p>{details}</div>"
    )


def _check_experiment(question: str, answer: str, alt: str) -> None:
    if not question.endswith("?"):
        raise ValueError(
            f'an experiment asks a question that ends with "?": {question!r}'
        )
    if not re.match(rf"(?:{'|'.join(ANSWER_STARTS)})\b", answer):
        raise ValueError(
            f"an answer begins with one of {', '.join(ANSWER_STARTS)}: {answer!r}"
        )
    if len(alt) < 40 or not re.search(r"\d", alt):
        raise ValueError(
            "an alternative text has at least 40 characters and a number, "
            f"got {len(alt)}: {alt!r}"
        )


def _emit_figure(figure: Any) -> None:
    from IPython.display import display

    width, height = (round(100 * inches) for inches in figure.get_size_inches())
    display(
        {"image/png": figure_png(figure), "text/plain": f"Figure, {width} by {height}"},
        raw=True,
        metadata={"image/png": {"width": width, "height": height}},
    )


def figure_png(figure: Any) -> bytes:
    """Return a figure as a small PNG of 128 colours, the same bytes at every run."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=200, metadata={"Software": None})
    small = io.BytesIO()
    with Image.open(drawn) as image:
        colours = image.convert("RGB").quantize(128, dither=Image.Dither.NONE)
        colours.save(small, format="png", optimize=True)
    return small.getvalue()


# ---- quiz, exercise, source ---------------------------------------------------------


def quiz(
    number: str, question: str, options: Iterable[tuple[str, object]], explain: str
) -> None:
    """Display a quiz whose key was computed: options are (text, is it true).

    Raises ValueError unless exactly one option is true and there are two or more.
    """
    answers = [(text, truth(right, f"option {text!r}")) for text, right in options]
    keys = [place for place, (_, right) in enumerate(answers, start=1) if right]
    if len(answers) < 2 or len(keys) != 1:
        raise ValueError(
            f"quiz {number} needs two options or more and exactly one true one, "
            f"got {len(answers)} options of which true: {keys}"
        )
    key = keys[0]
    listed = "".join(f"<li>{rich(text)}</li>" for text, _ in answers)
    emit(
        f'<div class="tf-quiz" data-key="{key}"><p class="tf-q"><strong>Quiz '
        f"{html.escape(number)}.</strong> {rich(question)}</p>\n<ol>{listed}</ol>\n"
        f"<details><summary>Answer</summary><p><strong>{key}.</strong> "
        f"{rich(answers[key - 1][0])}. {rich(explain)}</p></details></div>"
    )


def truth(value: Any, what: str) -> bool:
    """Return a Python, numpy or torch bool as a Python bool; refuse everything else.

    Raises ValueError naming `what` for numbers, None and arrays of several elements.
    """
    if isinstance(value, bool):
        return value
    if getattr(value, "size", None) == 1 or getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, bool):
        return value
    raise ValueError(
        f"{what} must be one bool, computed from data (of an array, its .all()); "
        f"got {type(value).__name__}: {value!r}"
    )


def check(name: str, state: str, items: Iterable[str]) -> None:
    """Display the result of an exercise's check: state is open, fail or pass."""
    glyph, word = CHECK_STATES[state]
    listed = "".join(f"<li>{rich(item)}</li>" for item in items)
    emit(
        f'<div class="tf-check tf-{state}"><p><strong>{glyph} {word}</strong> '
        f"<code>{html.escape(name)}</code></p>\n<ul>{listed}</ul></div>"
    )


def source(*objects: Any) -> None:
    """Display the package's own source of functions or classes, as highlighted code.

    A fenced Markdown output is the one form that JupyterLab, GitHub and the book all
    draw as code. The first line names the file.
    """
    from IPython.display import display

    pieces = []
    for thing in objects:
        text = textwrap.dedent(inspect.getsource(thing)).rstrip()
        parts = Path(inspect.getfile(inspect.unwrap(thing))).parts
        start = max(i for i, part in enumerate(parts) if part == "tfcourse")
        pieces.append(f"# {'/'.join(parts[start:])}\n{text}")
    code = "\n\n\n".join(pieces)
    display({"text/markdown": f"```python\n{code}\n```", "text/plain": code}, raw=True)
