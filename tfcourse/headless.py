"""Run chapters without a browser: find them, check their parameters, execute them."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# papermill is imported by the functions that need it: it takes over a second, and
# `tfcourse list` does not.

READERS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
}
SAVE_EVERY = 5.0  # seconds, at least, between two states of a running chapter on disk
CHOICES = re.compile(r"[\w.-]+( \| [\w.-]+)+")
GRAMMAR = "rfc3987_syntax"


@dataclass(frozen=True)
class Notebook:
    """A chapter's notebook; `key` is what a reader types: "1", "10", "4a"."""

    key: str
    name: str
    path: Path


@dataclass(frozen=True)
class Result:
    """What a run gave: the notebook written, seconds taken, the error if it failed."""

    notebook: Notebook
    output: Path
    seconds: float
    error: str | None = None


@contextmanager
def without_grammar() -> Iterator[None]:
    """Keep what is imported inside from building a grammar of international addresses.

    jsonschema, by which nbformat checks notebooks, does so where JupyterLab brought
    that optional package, and each chapter's process would wait 2 seconds for it.
    """
    absent = GRAMMAR not in sys.modules
    if absent:
        sys.modules[GRAMMAR] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            del sys.modules[GRAMMAR]


def notebook_folder() -> Path:
    """Return the repository's notebooks, or those of the working directory.

    The first exists in an editable install, which is how the course is installed.
    """
    ours = Path(__file__).resolve().parents[1] / "notebooks"
    return ours if ours.is_dir() else Path.cwd() / "notebooks"


def chapters(folder: Path | None = None) -> dict[str, Notebook]:
    """Find the notebooks `NN_name.ipynb` of a folder, in order, by their key.

    Raises ValueError where there is none.
    """
    folder = notebook_folder() if folder is None else folder.resolve()
    found = {}
    for path in sorted(folder.glob("*.ipynb")):
        if match := re.fullmatch(r"(\d\d)([a-z]?)_(\w+)", path.stem):
            key = f"{int(match[1])}{match[2]}"
            found[key] = Notebook(key, match[3], path)
    if not found:
        raise ValueError(f"no chapter (NN_name.ipynb) in {folder}")
    return found


def title(notebook: Notebook) -> str:
    """Return the chapter's question, from its first heading `# n · question`."""
    cells = json.loads(notebook.path.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells[:1])
    heading = re.search(r"^# (?:\w+ · )?(.+)$", text, re.MULTILINE)
    return heading[1] if heading else notebook.name


def check_notebook(path: Path) -> None:
    """Refuse a file that is no notebook, or whose kernel is not installed here.

    Raises ValueError with the file's name and, for a kernel, those that are known.
    """
    from jupyter_client.kernelspec import KernelSpecManager

    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        kernel = notebook["metadata"]["kernelspec"]["name"]
        tuple(cell["source"] for cell in notebook["cells"])
    except ValueError as error:  # of bytes that are no text, or a text that is no JSON
        raise ValueError(f"{path.name} is not a notebook: {error}") from None
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is not a notebook: it lacks {error}") from None
    if kernel not in (known := KernelSpecManager().find_kernel_specs()):
        raise ValueError(
            f"{path.name} asks for the kernel {kernel!r}; known: {', '.join(known)}"
        )


def check_parameters(notebook: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given parameters in the types that the notebook declares.

    The notebook's cell tagged `parameters` is the only source: names, types, and in a
    comment `# smoke | laptop | gpu` the values allowed. papermill itself would run with
    a wrong name or type and say nothing. Raises ValueError with what is known.
    """
    with without_grammar():
        from papermill import inspect_notebook

    declared = inspect_notebook(str(notebook))
    if not declared:
        raise ValueError(f"{notebook.name} has no cell tagged 'parameters'")
    if unknown := sorted(set(given) - set(declared)):
        raise ValueError(
            f"unknown parameter {', '.join(unknown)} for {notebook.name}; "
            f"known: {', '.join(declared)}"
        )
    return {name: _read(declared[name], value) for name, value in given.items()}


def _read(parameter: Mapping[str, str], value: Any) -> Any:
    """Read a value, or its spelling on a command line, as the declared type."""
    name, kind = parameter["name"], parameter["inferred_type_name"]
    if kind not in READERS:
        raise ValueError(f"{name} has no type that can be set: {', '.join(READERS)}")
    if CHOICES.fullmatch(parameter["help"]):
        known = parameter["help"].split(" | ")
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
    refusal = f"{name} must be of type {kind}, not {value!r}"
    if kind == "str" and not isinstance(value, str):
        raise ValueError(refusal)
    try:
        return READERS[kind](str(value))
    except (ValueError, KeyError):
        raise ValueError(refusal) from None


def running_file(notebook: Notebook, out: Path, process: int | None = None) -> Path:
    """Return where a process, by default this one, writes a chapter that runs."""
    number = os.getpid() if process is None else process
    return out / f"{notebook.path.stem}.{number}.running.ipynb"


def run_chapter(
    notebook: Notebook,
    out: Path,
    parameters: Mapping[str, Any],
    *,
    progress: Mapping[str, Any] | None = None,
) -> Result:
    """Execute a chapter into `out`, under the notebook's own file name.

    It is written every few seconds as `running_file` says, and in the end renamed to
    `NN_name.ipynb`, or `NN_name.failed.ipynb`. A failure is reported, not raised, so
    that other chapters still run. progress: how tqdm draws a bar of cells. Raises
    ValueError if `out` is the notebooks' folder.
    """
    out = out.resolve()
    if out == notebook.path.parent:
        raise ValueError(f"{out} holds the notebooks themselves: choose another folder")
    running = running_file(notebook, out)
    output = out / f"{notebook.path.stem}.failed.ipynb"
    start, error = time.monotonic(), None
    try:
        out.mkdir(parents=True, exist_ok=True)
        _execute(notebook.path, running, parameters, progress)
        output.unlink(missing_ok=True)
        output = out / notebook.path.name
    except Exception as failure:  # a full disk, a dead kernel, a claim: all reported
        error = _where_it_died(failure, running) or _explain(failure)
    finally:
        kept = _put(running, output)
    if error and not kept:
        error += "; its notebook could not be written"
    return Result(notebook, output, time.monotonic() - start, error)


def _engine() -> str:
    """Register papermill's engine with fewer writes, and return its name.

    It writes the whole file twice a cell: with a hundred cells, a tenth of the time.
    """
    from papermill.engines import NBClientEngine, papermill_engines

    class SeldomWriting(NBClientEngine):
        @classmethod
        def execute_managed_notebook(
            cls, nb_man: Any, *args: Any, **options: Any
        ) -> None:
            save = nb_man.save

            def now_and_then(**_: Any) -> None:
                if (nb_man.now() - nb_man.last_save_time).total_seconds() >= SAVE_EVERY:
                    save()

            nb_man.save = now_and_then
            try:
                super().execute_managed_notebook(nb_man, *args, **options)
            finally:
                nb_man.save = save  # for the last one, which papermill always makes

    papermill_engines.register("tfcourse", SeldomWriting)
    return "tfcourse"


def _execute(
    path: Path,
    running: Path,
    parameters: Mapping[str, Any],
    progress: Mapping[str, Any] | None,
) -> None:
    with without_grammar():
        from papermill import execute_notebook

    execute_notebook(
        path,
        running,
        parameters=dict(parameters),
        cwd=path.parent,
        progress_bar=dict(progress) if progress else False,
        engine_name=_engine(),
        extra_arguments=["--log-level=CRITICAL"],  # of the kernel, on stderr
    )


def _put(running: Path, output: Path) -> bool:
    """Give a notebook its name; what a full disk cut short is removed."""
    try:
        json.loads(running.read_text(encoding="utf-8"))
        running.replace(output)
    except (OSError, ValueError):
        with suppress(OSError):  # of a folder that is none
            running.unlink()
        return False
    return True


def _where_it_died(failure: Exception, running: Path) -> str | None:
    """Name the cell in which a kernel was lost, the last that began, if one was."""
    from nbclient.exceptions import DeadKernelError

    if not isinstance(failure, DeadKernelError):
        return None
    where = "before any cell"
    with suppress(OSError, ValueError):
        for cell in json.loads(running.read_text(encoding="utf-8"))["cells"]:
            if cell["metadata"].get("papermill", {}).get("start_time"):
                line = "".join(cell["source"]).strip().partition("\n")[0]
                where = f"in cell `{line}`"
    return (
        f"{where} the kernel died, killed or out of memory ({type(failure).__name__})"
    )


def _explain(failure: Exception) -> str:
    """Name the first failing cell and its error, or what kept the chapter from it."""
    from papermill.exceptions import PapermillExecutionError

    if not isinstance(failure, PapermillExecutionError):
        return f"{type(failure).__name__}: {failure}"
    line = failure.source.strip().partition("\n")[0]
    where = f"cell [{failure.exec_count}] `{line}`"
    return f"{where} raised {failure.ename}: {failure.evalue}"
