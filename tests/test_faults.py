"""Faults, each tried on real kernels: a clear message, the right exit code, the other
chapters' results intact, and no process left."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from tfcourse.cli import app

Write = Callable[..., Path]
GOOD = "print('fine')"


def call(folder: Path, out: Path, *arguments: str) -> tuple[int, str]:
    """Return exit code and error output of `tfcourse run`."""
    command = ["run", "--notebooks", str(folder), "--out", str(out), *arguments]
    result = CliRunner().invoke(app, command)
    return result.exit_code, result.stderr


def left_behind(folder: Path) -> list[str]:
    """Return the processes that work in the notebooks' folder, as kernels do."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            if Path(process.cwd()) == folder:
                found.append(" ".join(process.info["cmdline"] or []))
        except (psutil.Error, OSError):
            continue
    return found


def states(out: Path) -> dict[str, str]:
    report = json.loads((out / "report.json").read_text())
    return {one["job"]: one["state"] for one in report["chapters"]}


def in_small_disk(mount: str, command: list[str], out: Path) -> tuple[int, str, str]:
    """Run a command where `out` is a file system of its own; then print its files.

    Skips the test where a user may not have mount points of their own.
    """
    out.mkdir()
    start = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mounted = f"mount -t tmpfs {mount} none '{out}'"
    try:
        allowed = subprocess.run([*start, mounted], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no `unshare` on this machine")
    if allowed.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {allowed.stderr.decode()}")
    script = f'{mounted}; "$@"; code=$?; cd "{out}" && ls -A; exit $code'
    done = subprocess.run(
        [*start, script, "sh", *command], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def command(folder: Path, out: Path) -> list[str]:
    tool = [sys.executable, "-m", "tfcourse.cli", "run", "--notebooks", str(folder)]
    return [*tool, "--out", str(out)]


def test_a_full_disk_costs_the_chapter_that_filled_it(
    write_chapter: Write, tmp_path: Path
) -> None:
    write_chapter("01_good", GOOD)
    write_chapter("02_full", "print('x' * 2_000_000)")
    folder, out = write_chapter("03_good", GOOD).parent, tmp_path / "disk"
    code, printed, errors = in_small_disk("-o size=300k", command(folder, out), out)
    assert code == 1
    assert "02_full.ipynb: OSError: [Errno 28] No space left on device" in errors
    lines = printed.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [
        ["1", "done"],
        ["2", "failed"],
        ["3", "done"],
    ]
    assert set(lines[3:]) == {
        ".lock",
        "01_good.ipynb",
        "03_good.ipynb",
        "report.json",
        "report.md",
    }
    assert left_behind(folder) == []


def test_a_folder_that_is_read_only_is_refused(
    write_chapter: Write, tmp_path: Path
) -> None:
    folder, out = write_chapter("01_good", GOOD).parent, tmp_path / "disk"
    code, printed, errors = in_small_disk("-o ro", command(folder, out), out)
    assert (code, printed) == (2, "")
    assert f"tfcourse: {out} cannot be written: " in errors
    assert "Read-only file system" in errors


LIMITED = """\
import resource
now = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 200_000_000,) * 2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux's")
def test_a_cell_that_wants_too_much_memory_is_named(
    write_chapter: Write, tmp_path: Path
) -> None:
    write_chapter("01_large", LIMITED, "x = bytearray(10**12)")
    folder, out = write_chapter("02_good", GOOD).parent, tmp_path / "out"
    code, errors = call(folder, out)
    assert code == 1
    assert "cell [3] `x = bytearray(10**12)` raised MemoryError" in errors
    assert states(out) == {"1": "failed", "2": "done"}
    assert left_behind(folder) == []


def test_a_kernel_that_the_system_kills_is_named_with_its_cell(
    write_chapter: Write, tmp_path: Path
) -> None:
    killed = (
        "import os\nos.kill(os.getpid(), 9)"  # as the system does for want of memory
    )
    write_chapter("01_killed", "print('before')", killed, "print('after')")
    folder, out = write_chapter("02_good", GOOD).parent, tmp_path / "out"
    code, errors = call(folder, out, "--jobs", "2")
    assert code == 1
    assert (
        "01_killed.ipynb: in cell `import os` the kernel died, killed or out of memory"
    ) in errors
    assert states(out) == {"1": "failed", "2": "done"}
    text = (out / "01_killed.failed.ipynb").read_text()
    assert "before\\n" in text
    assert left_behind(folder) == []


def test_an_unknown_kernel_is_refused_with_the_known(
    write_chapter: Write, tmp_path: Path
) -> None:
    write_chapter("01_good", GOOD)
    path, out = write_chapter("02_foreign", GOOD), tmp_path / "out"
    path.write_text(path.read_text().replace('"python3"', '"julia-1.9"'))
    code, errors = call(path.parent, out)
    assert code == 2
    message = "tfcourse: 02_foreign.ipynb asks for the kernel 'julia-1.9'; known: "
    assert errors.startswith(message)
    assert "python3" in errors
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"cells": [', "Expecting value: line 1 column 12"),
        ("[]", "it lacks"),
        ('{"cells": [], "metadata": {}}', "it lacks 'kernelspec'"),
        ("\x80", "'utf-8' codec"),
    ],
)
def test_a_file_that_is_no_notebook_is_refused_by_its_name(
    write_chapter: Write, tmp_path: Path, text: str, said: str
) -> None:
    path, out = write_chapter("01_good", GOOD), tmp_path / "out"
    assert call(path.parent, out)[0] == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    path.with_name("02_broken.ipynb").write_bytes(text.encode("latin-1"))
    code, errors = call(path.parent, out)
    assert code == 2
    assert errors.startswith("tfcourse: 02_broken.ipynb is not a notebook: ")
    assert said in errors
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert call(path.parent, out, "1")[0] == 0


def test_a_notebook_without_parameters_is_refused(
    write_chapter: Write, tmp_path: Path
) -> None:
    write_chapter("01_good", GOOD)
    folder = write_chapter("02_bare", GOOD, parameters=None).parent
    code, errors = call(folder, tmp_path / "out")
    assert code == 2
    assert errors == "tfcourse: 02_bare.ipynb has no cell tagged 'parameters'\n"
    assert not (tmp_path / "out").exists()


def test_a_second_run_into_a_folder_is_refused_and_harms_nothing(
    write_chapter: Write, tmp_path: Path
) -> None:
    mark, go = tmp_path / "began", tmp_path / "go"
    slow = (
        f"import pathlib, time\npathlib.Path({str(mark)!r}).touch()\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.1)"
    )
    folder, out = write_chapter("01_slow", slow).parent, tmp_path / "out"
    first = subprocess.Popen(command(folder, out), stdout=subprocess.DEVNULL)
    try:
        while not mark.exists():
            assert first.poll() is None
        code, errors = call(folder, out)
    finally:
        go.touch()
        ended = first.wait(timeout=120)
    assert (code, ended) == (2, 0)
    assert errors.startswith(f"tfcourse: another run writes into {out}: ")
    assert states(out) == {"1": "done"}
    assert left_behind(folder) == []


def test_what_is_left_behind_would_be_seen(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], cwd=tmp_path,
                               stdin=subprocess.PIPE)  # fmt: skip
    try:
        assert len(left_behind(Path(os.path.realpath(tmp_path)))) == 1
    finally:
        process.kill()
        process.wait()
