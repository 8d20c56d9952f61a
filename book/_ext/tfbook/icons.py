"""The theme's icons, drawn in each page, in place of a script of 1.5 MB with them all.

The drawings are Font Awesome Free's, under CC BY 4.0.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

SCRIPT = "scripts/fontawesome.js"
LOADED = re.compile(rf"\s*<script[^>]*{re.escape(SCRIPT)}[^>]*></script>")
ICON = re.compile(r'<(i|span) class="([^"]*\bfa-[^"]*)"([^>]*)></\1>')
SIZES = {"fa-solid", "fa-lg"}  # words beside an icon's name


def icon_script(app: Sphinx) -> str:
    """Return the theme's script of icons, and take it out of the built book.

    A build that goes on from an earlier one finds no script where no page needs it.
    """
    path = Path(app.outdir) / "_static" / SCRIPT
    if not path.exists():
        return ""
    text = path.read_text(encoding="utf-8")
    for part in path.parent.glob(f"{path.name}*"):
        part.unlink()
    return text


def draw_icons(html: str, script: str) -> str:
    """Return a page with drawings in place of its icons' names, without the script."""
    return ICON.sub(lambda found: _drawn(found, script), LOADED.sub("", html))


def _drawn(found: re.Match[str], script: str) -> str:
    classes, attributes = found[2], found[3]
    names = [w for w in classes.split() if w.startswith("fa-") and w not in SIZES]
    if len(names) != 1:
        raise ExtensionError(f"not the name of one icon: {classes!r}")
    name = names[0].removeprefix("fa-")
    entries = re.findall(
        rf'(?<![\w-])"?{re.escape(name)}"?:\[(\d+),(\d+),\[[^\]]*\],"\w+","([^"]+)"',
        script,
    )
    if not entries:
        raise ExtensionError(f"{SCRIPT} has no icon {name!r}")
    width, height, path = entries[-1]  # the last set is the solid one
    return (
        f'<svg class="tf-icon {classes}"{attributes} aria-hidden="true" '
        f'viewBox="0 0 {width} {height}"><path d="{path}"/></svg>'
    )
