"""Many chapters run: side by side, stopped, tried again, left alone, reported."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tfcourse import batch
from tfcourse.batch import Job, fingerprint, grid, read_report, readable, run_all
from tfcourse.headless import chapters

Write = Callable[..., Path]

SHOWN = """\
from IPython.display import publish_display_data
record = [{"id": "C1", "ran": True}, {"id": "C2", "ran": False}]
publish_display_data({"text/plain": "box"}, {"tfcourse": {"claims": record}})
"""
CONTRADICTED = """\
class ClaimError(Exception): ...
raise ClaimError("claims C3, C4: not met: so many")
"""
ENDLESS = """\
import os, pathlib, time
pathlib.Path("kernel.pid").write_text(str(os.getpid()))
time.sleep(600)
"""


def planned(folder: Path, out: Path, **parameters: object) -> list[Job]:
    return [Job(one, parameters, out) for one in chapters(folder).values()]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_a_failing_chapter_does_not_stop_the_others(
    write_chapter: Write, tmp_path: Path
) -> None:
    write_chapter("01_good", SHOWN)
    write_chapter("02_wrong", CONTRADICTED)
    folder = write_chapter("03_dies", "import os; os._exit(3)").parent
    out, heard, cells = tmp_path / "out", [], []
    found = run_all(
        planned(folder, out, seed=4),
        out,
        at_once=2,
        progress=lambda job, done, total: cells.append((job.name, done, total)),
        finished=lambda one: heard.append(one.job),
    )
    assert [one.state for one in found] == ["done", "failed", "failed"]
    assert sorted(heard) == ["1 seed=4", "2 seed=4", "3 seed=4"]
    assert next(one for one in cells if one[0] == "1 seed=4") == ("1 seed=4", 0, 0)
    assert ("1 seed=4", 4, 4) in cells
    good, wrong, dies = found
    assert good.claims == {"shown": ["C1"], "not run": ["C2"], "contradicted": []}
    assert wrong.claims["contradicted"] == ["C3", "C4"]
    assert wrong.traceback is not None
    assert "not met: so many" in wrong.traceback
    assert "\x1b" not in wrong.traceback
    assert "DeadKernelError" in str(dies.error)
    assert good.memory is not None
    assert 20 < good.memory < 2000
    names = {path.name for path in out.iterdir()} - {".lock"}
    assert names == {
        "01_good.ipynb",
        "02_wrong.failed.ipynb",
        "03_dies.failed.ipynb",
        "report.json",
        "report.md",
    }
    assert read_report(out) == found
    text = (out / "report.md").read_text()
    assert "| 1 seed=4 | done |" in text
    assert "| C3, C4 |" in text
    assert "## 2 seed=4" in text


def test_an_endless_cell_is_stopped_with_its_kernel(
    write_chapter: Write, tmp_path: Path
) -> None:
    folder = write_chapter("01_endless", ENDLESS).parent
    out = tmp_path / "out"
    for limit in (20, 60, 180):  # on a busy machine a kernel takes long to start
        (endless,) = run_all(planned(folder, out), out, timeout=limit)
        assert endless.error == f"no end within {limit} s: stopped"
        assert endless.state == "failed"
        if (folder / "kernel.pid").exists():
            break
    pid = int((folder / "kernel.pid").read_text())
    assert wait_until(lambda: not is_alive(pid))


def test_a_failure_is_tried_again_and_a_success_is_not(
    write_chapter: Write, tmp_path: Path
) -> None:
    at_second = (
        "import pathlib\nmark = pathlib.Path('been')\nbeen = mark.exists()\n"
        "mark.touch()\nassert been"
    )
    folder = write_chapter("01_flaky", at_second).parent
    (once,) = run_all(planned(folder, tmp_path / "a"), tmp_path / "a")
    assert (once.state, once.tries) == ("failed", 1)
    (folder / "been").unlink()
    (twice,) = run_all(planned(folder, tmp_path / "b"), tmp_path / "b", retry=3)
    assert (twice.state, twice.tries) == ("done", 2)
    assert not (tmp_path / "b" / "01_flaky.failed.ipynb").exists()


def test_what_is_done_and_unchanged_is_kept(
    write_chapter: Write, tmp_path: Path
) -> None:
    count = "with open('runs', 'a') as f: f.write('x')"
    path, out = write_chapter("01_counts", count), tmp_path / "out"
    runs = path.parent / "runs"

    def again(**parameters: object) -> tuple[bool, int]:
        (one,) = run_all(planned(path.parent, out, **parameters), out, resume=True)
        assert one.state == "done"
        return one.kept, len(runs.read_text())

    assert again(seed=1) == (False, 1)
    assert again(seed=1) == (True, 1)
    assert again(seed=2) == (False, 2)
    assert again(seed=2) == (True, 2)
    write_chapter("01_counts", count, "print('more')")
    assert again(seed=2) == (False, 3)
    (out / "01_counts.ipynb").unlink()
    assert again(seed=2) == (False, 4)
    (out / "report.json").write_text('{"chapters": [{"job": ')
    assert again(seed=2) == (False, 5)


def test_the_fingerprint_knows_source_parameters_and_package(
    write_chapter: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_chapter("01_a", "print(1)")
    (job,) = planned(path.parent, tmp_path, seed=1)
    first = fingerprint(job)
    text = path.read_text()
    path.write_text(text.replace('"outputs": []', '"outputs": [{"x": 1}]'))
    assert fingerprint(job) == first
    path.write_text(text.replace("print(1)", "print(2)"))
    assert fingerprint(job) != first
    path.write_text(text)
    assert fingerprint(Job(job.notebook, {"seed": 2}, tmp_path)) != first
    monkeypatch.setattr(batch, "version", lambda _: "99")
    assert fingerprint(job) != first
    monkeypatch.undo()
    package = tmp_path / "package"
    package.mkdir()
    (package / "module.py").write_text("a = 1")
    monkeypatch.setattr(batch, "__file__", str(package / "batch.py"))
    before = fingerprint(job)
    (package / "module.py").write_text("a = 2")
    assert fingerprint(job) != before


def test_two_runs_into_one_folder_are_refused(
    write_chapter: Write, tmp_path: Path
) -> None:
    folder, out = write_chapter("01_a", "print(1)").parent, tmp_path / "out"
    with (
        batch._alone(out),
        pytest.raises(ValueError, match=r"another run writes into .*out"),
    ):
        run_all(planned(folder, out), out)
    assert run_all(planned(folder, out), out)[0].state == "done"


def test_what_cannot_be_run_is_refused(write_chapter: Write, tmp_path: Path) -> None:
    folder = write_chapter("01_a", "print(1)").parent
    with pytest.raises(ValueError, match="jobs must be 1 or more, not 0"):
        run_all(planned(folder, tmp_path / "out"), tmp_path / "out", at_once=0)
    with pytest.raises(ValueError, match="holds the notebooks themselves"):
        run_all(planned(folder, folder), folder)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file cannot be written"):
        run_all(planned(folder, tmp_path / "file"), tmp_path / "file")
    assert not (tmp_path / "out").exists()


def test_a_report_that_cannot_be_written_costs_no_chapter(
    write_chapter: Write, tmp_path: Path
) -> None:
    folder, out = write_chapter("01_a", "print(1)").parent, tmp_path / "out"
    (out / "report.json").mkdir(parents=True)
    with pytest.warns(UserWarning, match="the report cannot be written"):
        (one,) = run_all(planned(folder, out), out)
    assert one.state == "done"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_leaves_no_kernel_and_no_half_notebook(
    write_chapter: Write, tmp_path: Path, number: int
) -> None:
    write_chapter("01_good", "print(1)")
    folder = write_chapter("02_endless", ENDLESS).parent
    out, pid_file = tmp_path / "out", folder / "kernel.pid"
    command = [sys.executable, "-m", "tfcourse.cli", "run", "--notebooks", str(folder)]
    run = subprocess.Popen(
        [*command, "--out", str(out)],
        stderr=subprocess.PIPE,
        text=True,
        # xdist ignores SIGINT in its workers, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert wait_until(lambda: pid_file.exists() and pid_file.read_text() != "")
    run.send_signal(number)
    _, said = run.communicate(timeout=60)
    pid = int(pid_file.read_text())
    assert wait_until(lambda: not is_alive(pid))
    assert wait_until(lambda: not list(out.glob("*.running.ipynb")))
    good = json.loads((out / "01_good.ipynb").read_text())
    assert good["cells"][-1]["outputs"][0]["text"] == ["1\n"]
    states = [one.state for one in read_report(out)]
    if number == signal.SIGKILL:
        assert run.returncode == -signal.SIGKILL
        assert states == ["done"]
    else:
        assert run.returncode == 130
        assert "stopped" in said
        assert states == ["done", "stopped"]
    assert run_all(planned(folder, out)[:1], out, resume=True)[0].kept


def test_a_worker_that_is_killed_is_a_failure_of_its_chapter(
    write_chapter: Write, tmp_path: Path
) -> None:
    write_chapter("01_a", "import os, signal; os.kill(os.getppid(), signal.SIGKILL)")
    folder = write_chapter("02_good", "print(1)").parent
    killed, good = run_all(planned(folder, tmp_path / "out"), tmp_path / "out")
    assert killed.error == "its process ended without a result, exit code -9"
    assert good.state == "done"


def test_every_combination_of_a_sweep_is_a_point() -> None:
    assert grid({}) == [{}]
    points = grid({"seed": ["0", "1"], "size": ["smoke", "laptop"]})
    assert len(points) == 4
    assert {"seed": "1", "size": "smoke"} in points


def test_a_report_without_a_traceback_is_readable() -> None:
    one = batch.Outcome("1", "01_a", {}, "failed", 1.0, "x", error="no kernel")
    assert readable([one]).endswith("## 1\n\nno kernel\n\n")


def test_threads_are_shared_out(
    write_chapter: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    report = "import os; print(os.environ['OMP_NUM_THREADS'], end=' ')\n"
    report += "print(os.environ['OMP_WAIT_POLICY'])"
    folder, out = write_chapter("01_a", report).parent, tmp_path / "out"
    run_all(planned(folder, out), out, at_once=3)
    cells = json.loads((out / "01_a.ipynb").read_text())["cells"]
    assert cells[-1]["outputs"][0]["text"] == ["2 PASSIVE\n"]


def test_a_dask_cluster_runs_the_jobs_and_survives_the_death_of_a_worker(
    write_chapter: Write, tmp_path: Path
) -> None:
    from distributed import LocalCluster

    slow = "import time; time.sleep(6)"
    for number in range(1, 5):
        write_chapter(f"0{number}_slow", slow)
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    jobs = planned(folder, out, seed=1)
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        victim = next(iter(cluster.workers.values())).pid
        killed = []

        def kill(one: batch.Outcome) -> None:
            if not killed:
                os.kill(victim, signal.SIGKILL)
                killed.append(one.job)

        found = run_all(jobs, out, dask=cluster.scheduler_address, finished=kill)
    assert len(killed) == 1
    assert [one.state for one in found] == ["done"] * 4
    assert [one.job for one in found] == [job.name for job in jobs]
    assert read_report(out) == found
    assert len(list(out.glob("*.ipynb"))) == 4


def test_a_scheduler_that_is_not_there_is_named(
    write_chapter: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "CONNECT", 0.5)
    folder, out = write_chapter("01_a", "print(1)").parent, tmp_path / "out"
    with pytest.raises(ValueError, match=r"no Dask scheduler at tcp://127.0.0.1:9:"):
        run_all(planned(folder, out), out, dask="tcp://127.0.0.1:9")
