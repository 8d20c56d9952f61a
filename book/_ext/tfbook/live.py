"""Puts the files of the live model into scripts, which a page opened as a file loads.

A browser lets no page opened from a disk fetch a file, but it lets it load a script.
"""

import base64
import json
from pathlib import Path

from sphinx.application import Sphinx

FILES = ("model", "golden")


def setup(app: Sphinx) -> None:
    """Connect to the event after all pages were written."""
    app.connect("build-finished", write_scripts)


def write_scripts(app: Sphinx, error: Exception | None) -> None:
    """Write model.js and golden.js beside what the export wrote."""
    folder = Path(app.outdir, "_static", "live")
    if error is not None or not folder.is_dir():
        return
    for name in FILES:
        weights = (folder / f"{name}.safetensors").read_bytes()
        about = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        script = folder / f"{name}.js"
        script.write_text(as_script(name, weights, about), encoding="utf-8")


def as_script(name: str, weights: bytes, about: object) -> str:
    """Return a script that holds a safetensors file, in base64, and its JSON."""
    content = {"weights": base64.b64encode(weights).decode("ascii"), "about": about}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return f"globalThis.tfLiveFiles ??= {{}};\ntfLiveFiles.{name} = {text};\n"
