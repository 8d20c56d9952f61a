"""What each chapter took when it was last measured: the book's status page.

`tfcourse run` writes reports, `book/status.json` keeps of each size the last one that
was taken in. Only the standard library is imported, since the book is built without
torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "book/status.json"
SIZES = ("smoke", "laptop", "gpu")
DEFAULT = "laptop"  # of the notebooks' own `size`
Status = Mapping[str, Mapping[str, Any]]  # size -> what was measured at it


def read_status(root: Path) -> Status:
    """Return what was measured, by size; nothing if there is no file."""
    path = root / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def size_of(entry: Mapping[str, Any]) -> str:
    """Return at which size a chapter of a report ran."""
    return str(entry["parameters"].get("size", DEFAULT))


def taken_in(status: Status, report: Mapping[str, Any]) -> Status:
    """Return what was measured with the figures of a report in their place.

    Raises ValueError where some chapter did not run to its end, was kept of an earlier
    run, or there is more than one size, or the same chapter twice.
    """
    entries = report["chapters"]
    bad = [one["job"] for one in entries if one["state"] != "done" or one["kept"]]
    if bad or not entries:
        raise ValueError(f"not measured from start to end: {', '.join(bad) or 'all'}")
    sizes = {size_of(one) for one in entries}
    if len(sizes) != 1 or len({one["chapter"] for one in entries}) != len(entries):
        raise ValueError(f"a report of each chapter once, at one size; not {sizes}")
    about = ("system", "processors", "python", "torch", "at_once", "seconds")
    measured = {name: report[name] for name in about} | {
        "chapters": {
            one["chapter"]: {
                "seconds": one["seconds"],
                "memory": one["memory"],
                "device": one["parameters"].get("device", "auto"),
                "shown": len(one["claims"]["shown"]),
                "not run": len(one["claims"]["not run"]),
            }
            for one in entries
        }
    }
    found = {**status, sizes.pop(): measured}
    return {size: found[size] for size in SIZES if size in found}


def as_text(status: Status) -> str:
    """Return what `book/status.json` has."""
    return json.dumps(status, indent=1) + "\n"


def status_block(status: Status) -> str:
    """Return the tables of the status page, one for each size."""
    parts = [_of_size(size, measured) for size, measured in status.items()]
    return "\n\n".join(parts) or "Nothing was measured yet."


def _of_size(size: str, measured: Mapping[str, Any]) -> str:
    chapters = measured["chapters"]
    lines = [
        f"## Size `{size}`\n",
        f"{len(chapters)} notebooks in {_duration(measured['seconds'])}, "
        f"{measured['at_once']} at once, on {measured['processors']} processors "
        f"({measured['system']}; Python {measured['python']}, "
        f"PyTorch {measured['torch']}).\n",
        "| Notebook | Time | Memory | Claims shown | Not run |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, one in chapters.items():
        memory = "" if one["memory"] is None else f"{one['memory']:,.0f} MB"
        cells = (
            f"[{name}](../notebooks/{name}.ipynb)",
            _duration(one["seconds"]),
            memory,
            str(one["shown"]),
            str(one["not run"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
