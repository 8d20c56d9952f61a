"""Executes chapters in place, so that a second run gives the same bytes.

    python -m tfcourse.course.refresh 1 6

A notebook is replaced only when all of its cells ran; then the book's generated pages
follow. What its outputs depend on goes into its metadata, see `course.fresh`.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from tfcourse.course.fresh import KEY, depends_on
from tfcourse.course.ledger import load_ledger
from tfcourse.course.pages import write_pages
from tfcourse.data.files import replace_text
from tfcourse.headless import chapters, without_grammar

with without_grammar():
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from nbformat import NotebookNode

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
# What a run or an editor adds to a cell and no reader needs.
VOLATILE = ("execution", "ExecuteTime", "collapsed", "scrolled", "papermill")
SECONDS = 600  # for one cell
CHECKED = "nbval-check-output"  # the tag by which nbval compares a cell's outputs
# What these display has the same bytes on every machine, unless numbers are put in.
STEADY = {"show.quiz", "show.source", "exercises.check", "cited"}
LOUD = {"print", "display", "claim", "claim_table"}


def refresh(root: Path, keys: Sequence[str] = ()) -> list[Path]:
    """Execute the chapters below `root` (none named: all) and update the pages.

    Returns the notebooks. Raises ValueError for an unknown chapter, and what the
    notebook raised (as `CellExecutionError`) when a cell fails; the file then stays as
    it was.
    """
    paths = find_notebooks(root / "notebooks", keys)
    for path in tqdm(paths, desc="chapters", disable=not sys.stderr.isatty()):
        replace_text(path, executed(path))
    write_pages(root)
    return paths


def find_notebooks(folder: Path, keys: Sequence[str] = ()) -> list[Path]:
    """Return the notebooks of some chapters, in order; none named: of all.

    keys: as a reader types them, "1" or "10b". Raises ValueError naming the keys
    without a notebook and those that have one.
    """
    found = chapters(folder)
    if unknown := [key for key in keys if key not in found]:
        raise ValueError(f"no notebook for chapter {unknown}; there are: {[*found]}")
    return [one.path for key, one in found.items() if not keys or key in keys]


def executed(path: Path) -> str:
    """Return the text of a notebook after a run of all its cells, without traces of it.

    One thread, as chapters set it too: sums of floats depend on the number.
    """
    sources = depends_on(path)  # of what is about to run, not of later edits
    notebook = nbformat.read(path, as_version=4)
    clean(notebook)
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONHASHSEED": "0",
        "TQDM_DISABLE": "1",
    }
    client = NotebookClient(
        notebook,
        timeout=SECONDS,
        kernel_name=KERNEL["name"],
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    bar = tqdm(
        total=len(notebook.cells), desc=path.stem, disable=not sys.stderr.isatty()
    )
    client.on_cell_complete = lambda **_: bar.update()
    with bar:
        client.execute(env=environment)
    clean(notebook, keep_outputs=True)
    mark(notebook)
    notebook.metadata["tfcourse"] = {KEY: sources}
    return nbformat.writes(notebook) + "\n"


def clean(notebook: NotebookNode, keep_outputs: bool = False) -> None:
    """Reset what must not differ between two runs: kernel, counts, timings."""
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    )
    count = 0
    for cell in notebook.cells:
        for key in VOLATILE:
            cell.metadata.pop(key, None)
        if cell.cell_type != "code":
            continue
        if not keep_outputs:
            cell.outputs, cell.execution_count = [], None
            continue
        if cell.source.strip():
            count += 1
            cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count


def mark(notebook: NotebookNode) -> None:
    """Tag the cells whose outputs nbval compares: those that no machine changes."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        tags = [tag for tag in cell.metadata.get("tags", []) if tag != CHECKED]
        if is_steady(cell.source):
            tags.append(CHECKED)
        if tags or "tags" in cell.metadata:
            cell.metadata["tags"] = tags


def is_steady(source: str) -> bool:
    """Say whether all that a cell displays is of `STEADY`, without a number put in."""
    tree = ast.parse(source)
    shown = [node.value for node in tree.body if isinstance(node, ast.Expr)]
    calls = {node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    if not shown or not calls.issuperset(shown):
        return False  # a value at the end of a cell is displayed too
    inside = [node for one in shown for node in ast.walk(one)]
    named = {ast.unparse(call.func) for call in calls - set(shown)}
    return (
        {ast.unparse(call.func) for call in calls & set(shown)} <= STEADY
        and not any(isinstance(node, ast.JoinedStr) for node in inside)
        and not any(name in LOUD or name.startswith("show.") for name in named)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    known = ", ".join(map(str, load_ledger().chapters))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("chapter", nargs="*", help=f"which ({known}); none means all")
    chosen = parser.parse_args(arguments).chapter
    try:
        paths = refresh(Path.cwd(), chosen)
    except ValueError as error:
        parser.error(str(error))
    except CellExecutionError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"executed: {', '.join(path.name for path in paths) or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
