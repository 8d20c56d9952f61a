"""Where a chapter's time goes: starting, importing, training, drawing, and the rest."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, cast

import nbformat
import psutil

ROOT = Path(__file__).parents[1]
PARTS = ("start", "imports", "training", "figures", "rest")
# What the cells of a part call; a cell that calls none of these is of the rest.
MARKS = {"imports": "chapter.start(", "figures": "show.experiment("}


def measure(notebook: Path, size: str) -> dict[str, Any]:
    """Return the seconds of each part of a chapter, run in a process of its own.

    A failing cell raises `RuntimeError` with what the process said.
    """
    command = [sys.executable, "-m", "benchmarks.course", str(notebook), size]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{notebook.name} at size {size}: {done.stderr.strip()}")
    return cast("dict[str, Any]", json.loads(done.stdout.splitlines()[-1]))


def parts(notebook: Path, size: str) -> dict[str, Any]:
    """Execute the cells in this process, and return the seconds of each part.

    "start" is from the process's beginning to the first cell, "training" what passes
    within `fit`, in whatever cell that is.
    """
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    seconds = dict.fromkeys(PARTS, 0.0)
    cells = nbformat.read(notebook, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    seconds["start"] = time.time() - psutil.Process().create_time()
    begin = time.perf_counter()
    with training_timed() as trained:
        seconds["imports"] = time.perf_counter() - begin
        for cell in code:
            before, begin = sum(trained), time.perf_counter()
            shell.run_cell(cell.source, silent=True).raise_error()
            if "parameters" in cell.metadata.get("tags", ()):
                shell.user_ns["size"] = size
            took = time.perf_counter() - begin - (sum(trained) - before)
            seconds[_part(cell.source)] += took
        seconds["training"] = sum(trained)
    return {"kind": "course", "chapter": notebook.stem, "size": size, **seconds}


def _part(source: str) -> str:
    return next((part for part, mark in MARKS.items() if mark in source), "rest")


@contextmanager
def training_timed() -> Iterator[list[float]]:
    """Collect the seconds of each call of `fit`; none is within another."""
    from tfcourse.training import loop

    trained: list[float] = []
    fit: Callable[..., Any] = loop.fit

    @wraps(fit)
    def timed(*arguments: Any, **options: Any) -> Any:
        begin = time.perf_counter()
        try:
            return fit(*arguments, **options)
        finally:
            trained.append(time.perf_counter() - begin)

    loop.fit = timed
    try:
        yield trained
    finally:
        loop.fit = fit


if __name__ == "__main__":
    print(json.dumps(parts(Path(sys.argv[1]), sys.argv[2])))
