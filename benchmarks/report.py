"""Rows as JSON lines, as a table in the terminal, and as a page of the book."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.course import PARTS
from tfcourse.data.files import replace_text

Row = dict[str, Any]
ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "book" / "speed.md"

# What each kind of row is about: its heading in the book, and what is measured.
KINDS = {
    "train": (
        "Training step",
        "Forward, backward, gradients cut to norm 1, one step of fused AdamW.",
    ),
    "decode": (
        "Writing, one token after another",
        "Greedy continuation of a prompt of 16 random tokens, with a cache.",
    ),
    "memory": (
        "Memory of a training step",
        "The most bytes that tensors made within a step had at one moment; weights and "
        "the optimizer's state were there before. On a CPU the operations' results are "
        "counted, not what a kernel needs while it runs.",
    ),
}


def read(path: Path) -> list[Row]:
    """Return the rows of a file of JSON lines; a broken line raises `ValueError`."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            row["kind"], row["machine"]["processor"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number} is no row of a benchmark") from error
        rows.append(row)
    return rows


def append(path: Path, rows: Iterable[Row]) -> None:
    """Add rows to a file of JSON lines, whole or not at all."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    replace_text(path, before + "".join(json.dumps(row) + "\n" for row in rows))


def table(rows: Iterable[Row]) -> str:
    """Return the rows as a Markdown table, which a terminal shows as well."""
    lines = [HEAD, RULE]
    lines += [_line(row) for row in rows if "skipped" not in row]
    return "\n".join(lines)


HEAD = (
    "| Library | alike in | speed or size | half of the rounds within | theirs / ours |"
)
RULE = "|---|---|---:|---:|---:|"


def _line(row: Row) -> str:
    name = row["contender"]
    return (
        f"| {name} | {row['style']} | {_amount(row)} | {_spread(row)} | {_ratio(row)} |"
    )


def _amount(row: Row) -> str:
    if "peak_bytes" in row:
        return f"{row['peak_bytes'] / 1e6:,.1f}\N{NO-BREAK SPACE}MB"
    return f"{row['tokens_per_second']:,.0f}\N{NO-BREAK SPACE}tokens/s"


def _spread(row: Row) -> str:
    if "seconds" not in row:
        return ""
    tokens = row["tokens_per_second"] * row["seconds"]["median"]
    slow, fast = (tokens / row["seconds"][edge] for edge in ("q3", "q1"))
    return f"{slow:,.0f} to {fast:,.0f}"


def _ratio(row: Row) -> str:
    if "ratio" not in row:
        return ""
    if "cpu_ratio" not in row:
        return f"{row['ratio']:.2f}"
    return f"{row['ratio']:.2f} ({row['cpu_ratio']:.2f})"


def groups(rows: Iterable[Row]) -> Iterator[tuple[tuple[str, ...], list[Row]]]:
    """Yield the rows of each comparison: those that ran in turns with one another.

    Where one was made again, the last counts.
    """
    found: dict[tuple[str, ...], dict[tuple[str, str], Row]] = {}
    for row in rows:
        if row["kind"] not in KINDS:
            continue
        key = tuple(row[part] for part in ("kind", "title", "precision", "mode"))
        name = (row.get("contender", ""), row.get("style", ""))
        if "skipped" in row:
            found[key] = {name: row}
            continue
        group = found.setdefault(key, {})
        if name in group or any("skipped" in old for old in group.values()):
            group.clear()
        group[name] = row
    yield from ((key, list(group.values())) for key, group in found.items())


def summary(rows: Iterable[Row]) -> str:
    """Return one line a comparison: how ours stands to the best of the peers."""
    lines = [
        "| What | Shape | peers' best | its time or size / ours | / ours packed "
        "| / ours in parts |",
        "|---|---|---|---:|---:|---:|",
    ]
    for (kind, title, precision, mode), group in groups(rows):
        peers = [row for row in group if _is_peer(row)]
        if peers:
            best = min(peers, key=_steadiest)
            lines.append(
                f"| {KINDS[kind][0]} | {title}, {precision}, {mode} "
                f"| {best['contender']} | {_ratio(best)} "
                f"| {_worst(peers, 'packed_ratio')} | {_worst(peers, 'parts_ratio')} |"
            )
    return "\n".join(lines)


def _worst(peers: list[Row], column: str) -> str:
    """Return the ratio of the peer that is the best beside a way of ours."""
    found = [row[column] for row in peers if column in row]
    return f"{min(found):.2f}" if found else ""


def _steadiest(row: Row) -> float:
    """Return the ratio that other programs disturb least."""
    return float(row["cpu_ratio"] if "cpu_ratio" in row else row["ratio"])


def _is_peer(row: Row) -> bool:
    return "ratio" in row and not row["contender"].startswith("tfcourse")


INTRODUCTION = """# How fast it is

*Written by `python -m benchmarks page` from the results in `benchmarks/results`.*

A package that teaches should not be slower than what people would pick instead.
Here `tfcourse` is timed beside `torch.nn.Transformer*`, Hugging Face's GPT-2, BERT,
Marian and T5, x-transformers, and nanoGPT where its file was at hand.

- Before anything is timed, the peer's weights are loaded into our model: as many
  trainable parameters, and the same logits. The models of a comparison agree in the
  details of one style: *biased* is what GPT-2, BERT, Marian and `torch.nn` share,
  *plain* what x-transformers builds, which has no biases, and *t5* is T5's. Ours is
  timed in each.
- All contenders of a table run in one process and take turns, so that what slows the
  machine slows all of them. What is given is the median of the rounds, and the quarter
  below and above it.
- Every peer trains with the same fused AdamW and the shortest loop; ours with the
  course's own step, which also checks that the loss is finite.
- The last column is the peer's time, or memory, divided by ours: above 1, ours is
  ahead. It is the median over the rounds of the ratio within a round; in brackets the
  same of the time that the process computed, on which other programs have little
  influence. *Explicit attention* is ours by the equation that the course reads, in
  place of the library's kernel.
- *Packed*, where rows are padded, is the same step of ours with
  `Compute(packed=True)`: short rows share a row, masks hide them from each other, and
  less padding is computed. The gradient is the same.
- *Parts by length* is `Compute(parts=4)`, for less memory: a quarter of the rows, of
  like length, goes through the model at a time, cut where the longest ends, and the
  gradients are added up.
- Packing and parts are the training loop's work. Peers come without a loop, and theirs
  here does neither; whoever writes one can do both with some of them. In the first
  table each of these columns takes the peer that does best beside it.
- Where ours has two ways to write, the better one counts.
"""


def page(rows: list[Row], plan: str) -> str:
    """Return the book's page of speed; `plan` is what would run on a GPU."""
    parts = [INTRODUCTION, _machines(rows), "## In one table", summary(rows)]
    for kind, (heading, meaning) in KINDS.items():
        found = [(key, group) for key, group in groups(rows) if key[0] == kind]
        if found:
            parts += [f"## {heading}", meaning]
        for (_, title, precision, mode), group in found:
            parts.append(f"### {title}, {precision}, {mode}")
            parts.append(_comparison(group))
    parts += _course(rows)
    parts += ["## GPT-2 124M on a GPU", _on_a_gpu(rows) or NO_GPU, plan]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _comparison(group: list[Row]) -> str:
    """Return the table of a comparison, or why there is none."""
    if "skipped" in group[0]:
        return f"Not measured: {group[0]['skipped']}."
    if "rounds" not in group[0]:
        return table(group)
    return f"{group[0]['rounds']} rounds.\n\n{table(group)}"


def _course(rows: list[Row]) -> list[str]:
    """Say where each chapter's time goes; of a chapter's rows the last counts."""
    found = {
        (row["size"], row["chapter"]): row for row in rows if row["kind"] == "course"
    }
    said = [COURSE] if found else []
    for size in dict.fromkeys(size for size, _ in found):
        chosen = [row for (of, _), row in sorted(found.items()) if of == size]
        lines = [f"| Notebook | {' | '.join(PARTS)} | all |"]
        lines.append("|---" + "|---:" * (len(PARTS) + 1) + "|")
        lines += [_chapter(row["chapter"], [row]) for row in chosen]
        lines.append(_chapter("all", chosen))
        said += [f"### Size `{size}`", "\n".join(lines)]
    return said


def _chapter(name: str, rows: list[Row]) -> str:
    seconds = [sum(row[part] for row in rows) for part in PARTS]
    shown = " | ".join(f"{value:.1f}" for value in (*seconds, sum(seconds)))
    return f"| {name} | {shown} |"


COURSE = """## The course itself

Seconds of each notebook, one after another, each in a process of its own on one thread.
*Start* is that of Python and PyTorch, *imports* the cell with which a chapter begins,
*training* what passes within `fit`, *figures* the cells that draw one, and *rest* all
other computing: probes, evaluations, generation, exercises, training by hand, and
timings that are themselves the subject. A Jupyter kernel adds about a second.
[Status](status.md) has time and memory of whole runs."""

NO_GPU = "Not measured: no GPU was at hand. `python -m benchmarks gpt2` runs it:"


def _on_a_gpu(rows: list[Row]) -> str:
    """Return how near a step and a token come to the ceilings, or nothing."""
    lines = ["| | tokens/s | of the ceiling |", "|---|---:|---:|"]
    for row in rows:
        if row["kind"] in ("mfu", "bandwidth"):
            name = "training step" if row["kind"] == "mfu" else f"writing, {row['how']}"
            part = row.get("model_flops_utilisation", row.get("bandwidth_utilisation"))
            lines.append(f"| {name} | {row['tokens_per_second']:,.0f} | {part:.0%} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _machines(rows: list[Row]) -> str:
    shown = []
    for row in rows:
        found = row["machine"]
        what = found.get("gpu") or found["processor"]
        shown.append(
            f"{what}, {found['cores']} cores, {found['threads']} threads "
            f"(OMP_WAIT_POLICY {found['wait_policy']}), "
            f"{found['instructions']}; Python {found['python']}, "
            f"torch {found['torch']}, transformers {found['transformers']}, "
            f"x-transformers {found['x-transformers']}"
        )
    loads = [row["machine"]["load"] for row in rows]
    # What is measured is itself a load of as many as it has threads.
    busy = (
        f"Other programs ran on the machine meanwhile: {min(loads):.1f} to "
        f"{max(loads):.1f} processes waited for its cores. What differs by less than a "
        "tenth may then as well be equal."
        if loads and max(loads) > rows[0]["machine"]["cores"] + 1
        else ""
    )
    lines = [f"- {line}" for line in dict.fromkeys(shown)]
    return "\n".join(["Measured on:", "", *lines, "", busy])
