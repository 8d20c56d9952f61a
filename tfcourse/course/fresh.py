"""What a chapter's committed outputs depend on, and which chapters are out of date.

    python -m tfcourse.course.fresh

prints the chapters whose outputs no longer belong to their sources. `refresh` writes
short hashes of these sources into the notebook's metadata when it has executed it: of
the code cells, of the modules of ours that they import, directly or not, and of the
ledger's rows that they decide. Comments and docstrings do not count, except in a module
whose source the chapter shows. Versions of libraries are not among them: nbval compares
the outputs themselves.

Only the standard library and yaml are imported, since the book is built without torch.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from tfcourse.course.ledger import load_ledger

KEY = "depends_on"  # in the notebook's metadata, below "tfcourse"
PACKAGE = Path(__file__).parents[1]
# It imports the exercises of all chapters. A chapter depends on those that it defines.
HUB, EXERCISE = "tfcourse.course.exercises", "tfcourse.course.exercise_"


def depends_on(path: Path) -> dict[str, str]:
    """Return {what: short hash} of everything that a notebook's outputs depend on."""
    code = code_of(json.loads(path.read_text(encoding="utf-8")))
    tree = ast.parse(code)
    shown = _shown(tree)
    found = {"cells": _short(_written(tree)), "ledger": _short(_rows(code))}
    for name in sorted(_reached(tree)):
        found[name] = _hash(name, name in shown)
    return found


def changes(path: Path) -> list[str]:
    """Return what has changed since a notebook was executed; nothing if it is fresh."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    known = notebook["metadata"].get("tfcourse", {}).get(KEY)
    if known is None:
        return ["never executed by `make refresh`"]
    now = depends_on(path)
    return sorted(name for name in {*known, *now} if known.get(name) != now.get(name))


def stale(folder: Path) -> dict[str, list[str]]:
    """Return the keys of a folder's stale chapters, each with what has changed."""
    found = {}
    for path in sorted(folder.glob("[0-9][0-9]*_*.ipynb")):
        if changed := changes(path):
            found[path.stem.partition("_")[0].lstrip("0")] = changed
    return found


def code_of(notebook: Mapping[str, Any]) -> str:
    """Return the code of all cells as one program."""
    cells = (c for c in notebook["cells"] if c["cell_type"] == "code")
    return "\n".join("".join(cell["source"]) for cell in cells)


# ---- which modules ------------------------------------------------------------------


def _reached(tree: ast.Module) -> set[str]:
    """Return the modules of ours that a program imports, and those that they import."""
    defined = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
    }
    reached: set[str] = set()
    waiting = list(_imported(tree))
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        for next_one in _imports(name):
            listed = next_one.startswith(EXERCISE) and name == HUB
            if not listed or defined & _exercises(next_one):
                waiting.append(next_one)
    return reached


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yield the modules of ours that are imported, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        ours = (name for name in names if name.split(".")[0] == PACKAGE.name)
        yield from (name for name in ours if _file(name).suffix == ".py")


def _shown(tree: ast.Module) -> set[str]:
    """Return the modules whose source `show.source` displays, by what it is given."""
    homes = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "show.source":
            for thing in node.args:
                module, name = homes[ast.unparse(thing).split(".")[0]]
                whole = f"{module}.{name}"
                found.add(whole if _file(whole).suffix else str(module))
    return found


def _file(name: str) -> Path:
    """Return where a module is; a path without suffix if it is a package or none."""
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else path


@cache
def _module(name: str) -> ast.Module:
    tree = ast.parse(_file(name).read_text(encoding="utf-8"))
    if name == HUB:  # its list of all exercises is not a chapter's
        tree.body = [n for n in tree.body if not isinstance(n, ast.AnnAssign)]
    return tree


@cache
def _imports(name: str) -> frozenset[str]:
    return frozenset(_imported(_module(name)))


@cache
def _exercises(name: str) -> frozenset[str]:
    """Return the functions that a module has exercises for: `Exercise(name=…)`."""
    keywords = (n for n in ast.walk(_module(name)) if isinstance(n, ast.keyword))
    values = (n.value for n in keywords if n.arg == "name")
    return frozenset(str(v.value) for v in values if isinstance(v, ast.Constant))


@cache
def _hash(name: str, with_comments: bool) -> str:
    if with_comments:
        return _short(_file(name).read_text(encoding="utf-8"))
    tree = _module(name)
    if name == HUB:  # what it imports is followed instead; `tree` is the cache's
        rest = [n for n in tree.body if not isinstance(n, ast.ImportFrom)]
        tree = ast.Module(rest, tree.type_ignores)
    return _short(_written(tree))


# ---- what of them counts ------------------------------------------------------------


def _written(node: object) -> str:
    """Return a tree as text, the same for every version of Python.

    `ast.dump` and `ast.unparse` are not. Docstrings are left out.
    """
    if isinstance(node, ast.JoinedStr):  # 3.12 has an empty part more in `{x:{n}}`
        told = [part for part in node.values if getattr(part, "value", None) != ""]
        return f"JoinedStr({_written(told)})"
    if isinstance(node, ast.AST):
        parts = (
            f"{field}={_written(value)}"
            for field, value in ast.iter_fields(node)
            if value not in (None, []) and field not in ("ctx", "kind", "type_comment")
        )
        return f"{type(node).__name__}({', '.join(parts)})"
    if isinstance(node, list):
        return f"[{', '.join(_written(one) for one in node if not _is_text(one))}]"
    return repr(node)


def _is_text(node: object) -> bool:
    """Whether a statement is a text that nobody uses, such as a docstring."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _rows(code: str) -> str:
    """Return the ledger's rows that a program names, and the works it or they cite."""
    ledger = load_ledger()
    named = set(re.findall(r"[\"']([\w-]+)[\"']", code))
    rows = [row for id_, row in ledger.claims.items() if id_ in named]
    keys = named | {key for row in rows for key in row.source}
    works = {key: text for key, text in ledger.sources.items() if key in keys}
    return json.dumps([[asdict(row) for row in rows], works], sort_keys=True)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


if __name__ == "__main__":
    print(*stale(Path.cwd() / "notebooks"))
