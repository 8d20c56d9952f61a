"""Run many chapters: several at once, each in a process of its own, with a report."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from signal import SIGTERM, getsignal, signal
from typing import Any

import psutil
from filelock import FileLock, Timeout

from tfcourse.course.pages import claim_records
from tfcourse.data.files import replace_text
from tfcourse.headless import Notebook, run_chapter, running_file

REPORT = "report.json"
CONNECT = 20.0  # seconds to wait for a scheduler
GRACE = 15.0  # seconds in which a chapter that is stopped has to end its kernel
ANSI = re.compile(r"\x1b\[[0-9;]*m")
Progress = Callable[["Job", int, int], None]  # job, cells done, in all; 0: not known


@dataclass(frozen=True)
class Job:
    """One chapter with its parameters, and the folder that its notebook goes to."""

    notebook: Notebook
    parameters: Mapping[str, Any]
    out: Path

    @property
    def name(self) -> str:
        """What a report calls it: the chapter's key and the parameters given."""
        given = [f"{name}={value}" for name, value in self.parameters.items()]
        return " ".join([self.notebook.key, *given])


@dataclass(frozen=True)
class Outcome:
    """What became of a job; `state` is done, failed or stopped.

    seconds: of the last try; memory: the kernel's largest resident set in MB, where
    the system tells; claims: ids that were shown, not run at this size, contradicted.
    """

    job: str
    chapter: str
    parameters: Mapping[str, Any]
    state: str
    seconds: float
    output: str
    memory: float | None = None
    tries: int = 1
    claims: Mapping[str, list[str]] = field(default_factory=dict)
    error: str | None = None
    traceback: str | None = None
    key: str = ""  # of what the result depends on, see `fingerprint`
    kept: bool = False  # of an earlier run, and not run again


# ---- which jobs ---------------------------------------------------------------------


def grid(sweeps: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Return every combination of the values of some parameters; of none: one."""
    return [
        dict(zip(sweeps, values, strict=True)) for values in product(*sweeps.values())
    ]


def fingerprint(job: Job) -> str:
    """Return a hash of all that the result depends on and that can change here.

    The notebook's cells (not their outputs), the package's files, the parameters, and
    the versions of Python and torch.
    """
    cells = json.loads(job.notebook.path.read_text(encoding="utf-8"))["cells"]
    package = Path(__file__).parent
    sources = sorted(p for p in package.rglob("*") if p.suffix in (".py", ".yml"))
    digest = hashlib.sha256()
    for part in (
        json.dumps([(cell["cell_type"], "".join(cell["source"])) for cell in cells]),
        json.dumps(dict(job.parameters), sort_keys=True),
        f"{platform.python_version()} {version('torch')}",
        *(path.read_text(encoding="utf-8") for path in sources),
    ):
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()


# ---- one job ------------------------------------------------------------------------


def run_job(
    job: Job,
    *,
    threads: int = 1,
    timeout: float | None = None,
    retry: int = 0,
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Execute a chapter in a process of its own, again up to `retry` times if it fails.

    timeout: seconds for one try. The process ends its kernel when it is terminated,
    and when the caller's process is gone.
    """
    workers = workers or Workers()
    key, tries = fingerprint(job), 0  # of what is about to run, not of later edits
    while True:
        tries += 1
        outcome = _attempt(job, threads, timeout, workers, progress)
        if outcome.state != "failed" or tries > retry or workers.stopping:
            return replace(outcome, tries=tries, key=key)


def _attempt(
    job: Job,
    threads: int,
    timeout: float | None,
    workers: Workers,
    progress: Progress | None,
) -> Outcome:
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    worker = subprocess.Popen(
        [sys.executable, "-m", "tfcourse.batch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        start_new_session=True,  # Ctrl-C reaches it through us, once
    )
    workers.add(worker)
    if progress is not None:
        progress(job, 0, 0)
    expired = threading.Event()
    with _alarm(timeout, worker, expired):
        result = _talk(worker, job, progress)
    if expired.is_set():
        result |= {"error": f"no end within {timeout:g} s: stopped"}
    return _outcome(job, result)


@contextmanager
def _alarm(
    timeout: float | None, worker: subprocess.Popen[str], expired: threading.Event
) -> Any:
    """Stop the worker after so many seconds, and say so in `expired`."""

    def ring() -> None:
        expired.set()
        worker.terminate()
        _end(worker)

    timer = threading.Timer(timeout or 0, ring)
    timer.daemon = True
    if timeout is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Workers:
    """The processes that run, so that all can be stopped."""

    def __init__(self) -> None:
        self.stopping = False
        self._all: list[subprocess.Popen[str]] = []

    def add(self, worker: subprocess.Popen[str]) -> None:
        """Remember a process; one that starts too late is stopped at once."""
        self._all.append(worker)
        if self.stopping:
            worker.terminate()

    def stop(self) -> None:
        """Terminate all, which end their kernels; kill those that do not end."""
        self.stopping = True
        for worker in self._all:
            worker.terminate()
        for worker in self._all:
            _end(worker)


def _end(worker: subprocess.Popen[str]) -> None:
    try:
        worker.wait(GRACE)
    except subprocess.TimeoutExpired:
        worker.kill()


def _talk(
    worker: subprocess.Popen[str], job: Job, progress: Progress | None
) -> dict[str, Any]:
    """Hand the job over, follow its cells, and return what it says in the end.

    `stdin` stays open as long as we live: its end tells the worker that we are gone.
    """
    assert worker.stdin is not None
    assert worker.stdout is not None
    task = {
        "key": job.notebook.key,
        "name": job.notebook.name,
        "path": str(job.notebook.path),
        "out": str(job.out),
        "parameters": dict(job.parameters),
    }
    result: dict[str, Any] = {}
    with suppress(BrokenPipeError):
        worker.stdin.write(json.dumps(task) + "\n")
        worker.stdin.flush()
    for line in worker.stdout:
        if line.startswith("{"):
            result = json.loads(line)
        elif progress is not None and (cells := re.search(r"(\d+)/(\d+)", line)):
            progress(job, int(cells[1]), int(cells[2]))
    worker.wait()
    with suppress(BrokenPipeError):
        worker.stdin.close()
    worker.stdout.close()
    failed = job.out / f"{job.notebook.path.stem}.failed.ipynb"
    with suppress(OSError):  # of a process that was killed
        running_file(job.notebook, job.out, worker.pid).replace(failed)
    return result or {
        "seconds": 0.0,
        "output": str(failed),
        "memory": None,
        "error": f"its process ended without a result, exit code {worker.returncode}",
    }


def _outcome(job: Job, result: Mapping[str, Any]) -> Outcome:
    output, error = Path(result["output"]), result["error"]
    shown, not_run, traceback = read_output(output)
    contradicted: list[str] = []
    if error and (said := re.search(r"ClaimError: claims? ([C\d, ]+):", error)):
        contradicted = re.findall(r"C\d+", said[1])
    return Outcome(
        job=job.name,
        chapter=job.notebook.path.stem,
        parameters=dict(job.parameters),
        state="failed" if error else "done",
        seconds=round(result["seconds"], 1),
        output=str(output),
        memory=result["memory"],
        claims={"shown": shown, "not run": not_run, "contradicted": contradicted},
        error=error,
        traceback=traceback,
    )


def read_output(path: Path) -> tuple[list[str], list[str], str | None]:
    """Return the claims that a notebook shows, those it did not run, and a traceback.

    A notebook that is not there, or was cut short, has none.
    """
    shown: list[str] = []
    not_run: list[str] = []
    traceback = None
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError):
        return shown, not_run, traceback
    for record in claim_records(cells):
        (shown if record["ran"] else not_run).append(record["id"])
    for output in (o for cell in cells for o in cell.get("outputs", [])):
        if output["output_type"] == "error":
            traceback = ANSI.sub("", "\n".join(output["traceback"]))
    return shown, not_run, traceback


# ---- all jobs -----------------------------------------------------------------------


def run_all(
    jobs: Sequence[Job],
    out: Path,
    *,
    at_once: int = 1,
    timeout: float | None = None,
    retry: int = 0,
    resume: bool = False,
    dask: str | None = None,
    progress: Progress | None = None,
    finished: Callable[[Outcome], object] = lambda _: None,
) -> list[Outcome]:
    """Execute jobs, `at_once` of them, and keep `out`/report.json up to date.

    A failing chapter does not stop the others. With `resume`, a job that an earlier
    report calls done is not run again if nothing that it depends on has changed. dask:
    address of a scheduler whose workers run the jobs, and see the same folders.
    SIGTERM and Ctrl-C end the kernels, write the report and raise KeyboardInterrupt.
    Raises ValueError if another run writes into the folder, or it cannot be written.
    """
    if at_once < 1:
        raise ValueError(f"jobs must be 1 or more, not {at_once}")
    for job in jobs:
        if job.out.resolve() == job.notebook.path.parent:
            raise ValueError(
                f"{job.out} holds the notebooks themselves: choose another folder"
            )
    with _alone(out), _terminable():
        report = Report(out, jobs, read_report(out) if resume else [], at_once)
        for outcome in report.outcomes():
            finished(outcome)
        workers = Workers()
        run = partial(run_job, timeout=timeout, retry=retry)
        if dask is None:
            threads = max(1, (os.cpu_count() or 1) // at_once)
            run = partial(run, threads=threads, workers=workers, progress=progress)
        with _pool(at_once, dask) as pool:
            _collect(pool, run, report, workers, finished)
        return report.outcomes()


def _collect(
    pool: Executor,
    run: Callable[[Job], Outcome],
    report: Report,
    workers: Workers,
    finished: Callable[[Outcome], object],
) -> None:
    """Run what the report lacks, and add each outcome; if interrupted, stop all."""
    futures = [pool.submit(run, job) for job in report.missing()]
    try:
        for future in as_completed(futures):
            report.add(future.result())
            finished(future.result())
    except KeyboardInterrupt:
        for future in futures:
            future.cancel()
        workers.stop()
        report.stopped()
        raise


@contextmanager
def _pool(at_once: int, dask: str | None) -> Iterator[Executor]:
    """Give what runs the jobs: threads of our own, each waiting for a process, or Dask.

    A Dask worker that dies gives its jobs back to the scheduler.
    """
    if dask is None:
        with ThreadPoolExecutor(at_once) as pool:
            yield pool
        return
    try:
        from distributed import Client
    except ImportError:
        raise ValueError("--dask needs a package: pip install distributed") from None
    try:
        client = Client(dask, timeout=CONNECT)
    except (OSError, ValueError) as error:  # TimeoutError is one
        raise ValueError(f"no Dask scheduler at {dask}: {error}") from None
    with client:
        yield client.get_executor(pure=False)


@contextmanager
def _alone(out: Path) -> Any:
    """Hold the folder's lock, which the system frees however we end."""
    lock = FileLock(out / ".lock", timeout=0)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"another run writes into {out}: wait for it, or choose another folder"
        ) from None
    except OSError as error:
        raise ValueError(f"{out} cannot be written: {error}") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _terminable() -> Any:
    """Let SIGTERM end a run as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = getsignal(SIGTERM)
    signal(SIGTERM, interrupt)
    try:
        yield
    finally:
        signal(SIGTERM, before)


# ---- the report ---------------------------------------------------------------------


class Report:
    """What is known of each job, in the order of the jobs, also in a file."""

    def __init__(
        self,
        out: Path,
        jobs: Sequence[Job],
        earlier: Sequence[Outcome],
        at_once: int = 1,
    ):
        self.out = out
        self.jobs = jobs
        self.at_once = at_once
        self._start = time.monotonic()
        done = {(one.job, one.key): one for one in earlier if one.state == "done"}
        self._found: dict[str, Outcome] = {}
        for job in jobs if done else []:
            known = done.get((job.name, fingerprint(job)))
            if known is not None and Path(known.output).exists():
                self._found[job.name] = replace(known, kept=True)

    def missing(self) -> list[Job]:
        """Return the jobs without an outcome."""
        return [job for job in self.jobs if job.name not in self._found]

    def outcomes(self) -> list[Outcome]:
        """Return what is known, in the order of the jobs."""
        return [self._found[j.name] for j in self.jobs if j.name in self._found]

    def add(self, outcome: Outcome) -> None:
        """Take an outcome in, and write the files."""
        self._found[outcome.job] = outcome
        self.write()

    def stopped(self) -> None:
        """Say of the jobs that did not come to an end that they were stopped."""
        for job in self.missing():
            output = str(job.out / job.notebook.path.name)
            name, stem = job.name, job.notebook.path.stem
            self._found[name] = Outcome(
                name, stem, dict(job.parameters), "stopped", 0.0, output
            )
        self.write()

    def write(self) -> None:
        """Write report.json and report.md beside their places and rename them.

        Where that fails there is a warning, since the chapters' results are worth more.
        """
        found = {
            "python": platform.python_version(),
            "torch": version("torch"),
            "system": f"{platform.system()} {platform.machine()}",
            "processors": os.cpu_count(),
            "at_once": self.at_once,
            "seconds": round(time.monotonic() - self._start, 1),
            "chapters": [asdict(outcome) for outcome in self.outcomes()],
        }
        try:
            replace_text(self.out / REPORT, json.dumps(found, indent=1) + "\n")
            replace_text(self.out / "report.md", readable(self.outcomes()))
        except OSError as error:
            warnings.warn(f"the report cannot be written: {error}", stacklevel=2)


def read_report(out: Path) -> list[Outcome]:
    """Return the outcomes of an earlier run; none where there is no whole report."""
    try:
        found = json.loads((out / REPORT).read_text(encoding="utf-8"))["chapters"]
        return [Outcome(**entry) for entry in found]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def readable(outcomes: Sequence[Outcome]) -> str:
    """Return the report as Markdown: a table, and the traceback of each failure."""
    lines = [
        "# Chapters run\n",
        "| chapter | state | seconds | memory, MB | shown | not run | contradicted |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in outcomes:
        memory = "" if one.memory is None else f"{one.memory:.0f}"
        counts = [
            str(len(one.claims.get(kind, []))) for kind in ("shown", "not run")
        ] + [", ".join(one.claims.get("contradicted", [])) or "0"]
        cells = [one.job, one.state, f"{one.seconds:.1f}", memory, *counts]
        lines.append(f"| {' | '.join(cells)} |")
    for one in outcomes:
        if one.error:
            lines += [f"\n## {one.job}\n", one.error]
            lines += ["", *(f"    {x}" for x in (one.traceback or "").splitlines())]
    return "\n".join(lines) + "\n"


# ---- the process of one job ---------------------------------------------------------


def work() -> None:
    """Execute the job that stands on stdin; print cells done, and a last line of JSON.

    SIGTERM ends the kernel, which papermill then reports as dead. When stdin ends,
    whoever asked is gone, and nothing is left of the job.
    """
    task = json.loads(sys.stdin.readline())
    notebook, out = Notebook(task["key"], task["name"], Path(task["path"])), task["out"]
    # The kernel inherits descriptor 1. It must not hold the caller's end of the pipe.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def watch() -> None:
        sys.stdin.read()
        _kill_children()
        running_file(notebook, Path(out)).unlink(missing_ok=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    signal(SIGTERM, lambda *_: threading.Thread(target=_end_kernels).start())
    bar = {"file": channel, "bar_format": "{n_fmt}/{total_fmt}", "mininterval": 0}
    found = run_chapter(notebook, Path(out), task["parameters"], progress=bar)
    result = {
        "seconds": found.seconds,
        "output": str(found.output),
        "memory": _largest_child(),
        "error": found.error,
    }
    print(f"\n{json.dumps(result)}", file=channel, flush=True)
    os._exit(0)  # not through the threads that watch


def _end_kernels() -> None:
    """Kill kernels until the process ends: one may be about to start."""
    while True:
        _kill_children()
        time.sleep(0.1)


def _kill_children() -> None:
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()


def _largest_child() -> float | None:
    """Return the largest resident set of a process that we waited for, in MB."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    work()
