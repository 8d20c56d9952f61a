"""`python -m benchmarks`: time tfcourse beside its peers, and write what was found."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks import course as own
from benchmarks import gpt2 as gpu
from benchmarks import report
from benchmarks.decoding import time_decoding
from benchmarks.limits import bf16_is_native
from benchmarks.shapes import SHAPES, Shape
from benchmarks.timing import machine
from benchmarks.training import Setting, about, measure_memory, time_training
from tfcourse.course.chapter import SIZES
from tfcourse.data.files import replace_text
from tfcourse.headless import chapters

app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)
KINDS = ("train", "decode", "memory")
PRECISIONS = ("fp32", "bf16")
MODES = ("eager", "compiled")
NEW, BATCHES = 128, (1, 16)
EMULATED = "bf16 has no instructions on this machine and would be emulated"


def chosen(option: str, given: str, known: tuple[str, ...]) -> list[str]:
    """Return what a list with commas names; a name that is not known ends with 2."""
    names = [name.strip() for name in given.split(",") if name.strip()] or list(known)
    wrong = [name for name in names if name not in known]
    if wrong:
        raise typer.BadParameter(f"{option} {wrong[0]!r}: known are {', '.join(known)}")
    return names


@app.command()
def run(
    kinds: Annotated[str, typer.Option(help="of train,decode,memory")] = "",
    shapes: Annotated[str, typer.Option(help=f"of {','.join(SHAPES)}")] = "",
    precisions: Annotated[str, typer.Option(help="of fp32,bf16")] = "",
    modes: Annotated[str, typer.Option(help="of eager,compiled")] = "eager",
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="of the CPU")] = 2,
    rounds: Annotated[int, typer.Option(min=3)] = 20,
    limit: Annotated[float, typer.Option(min=0, help="seconds a comparison")] = 120.0,
    nanogpt: Annotated[Path | None, typer.Option(help="its model.py")] = None,
    emulated: Annotated[bool, typer.Option(help="bf16 even where it is slow")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON lines are added here")] = None,
) -> None:
    """Make the comparisons that the options name; print a table of each."""
    device = chosen("--device", device, ("cpu", "cuda"))[0]
    if device == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("--device cuda: PyTorch finds no CUDA here")
    torch.set_num_threads(threads)
    settings = [
        Setting(precision, mode == "compiled", device, rounds, limit, nanogpt)  # type: ignore[arg-type]
        for precision in chosen("--precisions", precisions, PRECISIONS)
        for mode in chosen("--modes", modes, MODES)
    ]
    named = [SHAPES[name] for name in chosen("--shapes", shapes, tuple(SHAPES))]
    for kind in chosen("--kinds", kinds, KINDS):
        for setting in settings:
            for shape in named:
                for rows in compare(kind, shape, setting, emulated=emulated):
                    _show(rows, device, out)


def compare(
    kind: str, shape: Shape, setting: Setting, *, emulated: bool = False
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each comparison of a kind, or one that says why there is none.

    Decoding is of the largest decoder, in fp32; memory is measured eagerly.
    """
    torch.manual_seed(0)
    if kind == "decode" and (
        shape.name != "decoder-384" or setting.precision != "fp32"
    ):
        return
    if kind == "memory" and setting.compiled:
        return
    doubtful = setting.precision == "bf16" and not emulated
    if doubtful and not bf16_is_native(setting.device):
        yield [about(kind, shape, setting) | {"skipped": EMULATED}]
        return
    if kind == "train":
        yield time_training(shape, setting)
    elif kind == "memory":
        yield measure_memory(shape, setting)
    else:
        for batch in BATCHES:
            yield time_decoding(shape, setting, batch=batch, new=NEW)


def _show(rows: list[dict[str, Any]], device: str, out: Path | None) -> None:
    rows = [row | {"machine": machine(device)} for row in rows]
    first = rows[0]
    parts = (first[part] for part in ("kind", "title", "precision", "mode"))
    print(f"\n{', '.join(parts)}")
    print(first["skipped"] if "skipped" in first else report.table(rows), flush=True)
    if out is not None:
        report.append(out, rows)


@app.command("gpt2")
def gpt2_command(
    out: Annotated[Path | None, typer.Option(help="JSON lines are added here")] = None,
) -> None:
    """Measure GPT-2 124M against a GPU's ceilings; without one, say what would run."""
    if not torch.cuda.is_available():
        print(f"PyTorch finds no CUDA here. {gpu.plan()}")
        return
    rows = [row | {"machine": machine("cuda")} for row in gpu.measure()]
    for row in rows:
        print(json.dumps(row))
    if out is not None:
        report.append(out, rows)


@app.command("course")
def course_command(
    keys: Annotated[list[str] | None, typer.Argument(help="e.g. 1 10b")] = None,
    sizes: Annotated[str, typer.Option(help="of smoke,laptop")] = "smoke,laptop",
    out: Annotated[Path | None, typer.Option(help="JSON lines are added here")] = None,
) -> None:
    """Measure where the time of chapters goes, one after another; all by default."""
    known = chapters()
    named = chosen("KEYS", ",".join(keys or ()), tuple(known))
    for size in chosen("--sizes", sizes, SIZES):
        for key in named:
            row = own.measure(known[key].path, size) | {"machine": machine("cpu")}
            print(json.dumps(row), flush=True)
            if out is not None:
                report.append(out, [row])


@app.command()
def page(
    results: Annotated[list[Path] | None, typer.Argument()] = None,
) -> None:
    """Write the book's page from files of results, by default the committed ones."""
    files = results or sorted(report.RESULTS.glob("*.jsonl"))
    rows = [row for path in files for row in report.read(path)]
    if not rows:
        raise typer.BadParameter(f"no results in {report.RESULTS}")
    replace_text(report.PAGE, report.page(rows, gpu.plan()))
    print(f"{report.PAGE}: {len(rows)} rows of {len(files)} files")


if __name__ == "__main__":
    app()
