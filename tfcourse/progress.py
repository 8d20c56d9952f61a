"""The live view of a run: a line for each chapter that runs, where it is, how long."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tfcourse import batch
from tfcourse.course.status import Status, read_status, size_of

LAYOUT = "{desc}: cell {n_fmt} of {total_fmt} |{bar:16}| {elapsed}"
TICK = 1.0  # seconds between two looks at the clock
Times = Mapping[tuple[str, str], float]  # (chapter, size) -> seconds


def known_times(earlier: Iterable[batch.Outcome], status: Status) -> Times:
    """Return what chapters took: in a folder's earlier report, else as committed."""
    times = {
        (chapter, size): one["seconds"]
        for size, measured in status.items()
        for chapter, one in measured["chapters"].items()
    }
    done = (one for one in earlier if one.state == "done")
    return times | {(one.chapter, size_of(asdict(one))): one.seconds for one in done}


def expected_times(out: Path) -> Times:
    """Return what chapters are expected to take in a run into a folder."""
    root = Path(__file__).resolve().parents[1]
    return known_times(batch.read_report(out), read_status(root))


class Live:
    """A bar of cells for each chapter that runs, and a line for each that has ended.

    say: prints a line, to stderr if so told; bars: whether to draw them, which takes a
    terminal; file: where, by default stderr.
    """

    def __init__(
        self,
        expected: Times,
        say: Callable[[str, bool], None],
        bars: bool,
        file: Any = None,
    ) -> None:
        self._expected = expected
        self._say = say
        self._draws = bars
        self._file = file
        self._bars: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def __enter__(self) -> Live:
        if self._draws:
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        with self._lock:
            for bar in self._bars.values():
                bar.close()
            self._bars.clear()

    def _tick(self) -> None:
        """Draw the elapsed time anew, also while a cell takes long."""
        while not self._ended.wait(TICK):
            with self._lock:
                for bar in self._bars.values():
                    bar.refresh()

    def move(self, job: batch.Job, cells: int, total: int) -> None:
        """Draw how far a chapter is; with a `total` of 0, that it begins."""
        if not self._draws:
            return
        with self._lock:
            if job.name not in self._bars:
                self._bars[job.name] = self._bar(job, total)
            bar = self._bars[job.name]
            bar.n, bar.total = cells, total or None
            if total == 0:  # it begins, perhaps again
                bar.start_t = time.time()
            bar.refresh()

    def _bar(self, job: batch.Job, total: int) -> Any:
        from tqdm import tqdm

        size = size_of({"parameters": job.parameters})
        seconds = self._expected.get((job.notebook.path.stem, size))
        about = f" of about {tqdm.format_interval(seconds)}" if seconds else ""
        layout = f"{LAYOUT}{about}"
        return tqdm(
            total=total, desc=job.name, leave=False, bar_format=layout, file=self._file
        )

    def end(self, one: batch.Outcome) -> None:
        """Say what became of a chapter."""
        with self._lock:
            if one.job in self._bars:
                self._bars.pop(one.job).close()
        word = "kept" if one.kept else one.state
        with self._between_bars():
            line = f"{one.job:<12}  {word}  {one.seconds:.1f} s  {one.output}"
            self._say(line, False)
            if one.error:
                self._say(f"tfcourse: {one.chapter}.ipynb: {one.error}", True)

    @contextmanager
    def _between_bars(self) -> Iterator[None]:
        """Take the bars away while lines are printed."""
        if not self._draws:
            yield
            return
        from tqdm import tqdm

        with tqdm.external_write_mode(self._file or sys.stderr):
            yield
