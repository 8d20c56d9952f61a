"""The figure style of the book: palette, colour maps, lines and heat maps.

Importing this module changes nothing; `use_style` does, for the running kernel. The
book inverts figures in dark mode, so only these colours and maps may be used: their
inverted forms were measured too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

INK, MUTED, GRID = "#23272e", "#4d5866", "#dfe3e8"


class Series(NamedTuple):
    """How one of several lines is told from the others, in colour and without it."""

    color: str
    text: str  # a darker shade where the colour is too light for words
    dashes: Any
    marker: str


SERIES = {
    "blue": Series("#0b4f9e", "#0b4f9e", "-", "o"),
    "orange": Series("#d05a00", "#a84a00", "--", "s"),
    "teal": Series("#2f9e8f", "#1f776b", "-.", "^"),
    "violet": Series("#9080cc", "#6656b5", ":", "D"),
    "brown": Series("#63280d", "#63280d", (0, (5, 1, 1, 1)), "v"),
    "ink": Series(INK, INK, (0, (1, 1)), ""),  # reference or baseline only
}

# fmt: off
_HEAT = [
    "#ffffff", "#c9e0f2", "#90c1e5", "#52a3d7",
    "#0084c2", "#00649a", "#004676", "#002852",
]
_DIVERGE = [
    "#005e97", "#0086c5", "#65addc", "#b6d6ed", "#ffffff",
    "#f8c99e", "#e7924c", "#c9611d", "#963f1b",
]
# fmt: on
HEAT = LinearSegmentedColormap.from_list("tf_heat", _HEAT)
# an odd number of steps, so that zero is white
DIVERGE = LinearSegmentedColormap.from_list("tf_diverge", _DIVERGE, N=257)

# typed loosely: matplotlib types the keys of rcParams as several hundred literals
STYLE: Any = {
    "figure.figsize": (5.4, 3.2),
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.transparent": False,
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.labelsize": 10.5,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=[s.color for s in SERIES.values()])
    + cycler(linestyle=[s.dashes for s in SERIES.values()]),
    "lines.linewidth": 2,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "image.cmap": "tf_heat",
}


def use_style() -> None:
    """Register the colour maps and set the style for figures made from now on."""
    for colours in (HEAT, DIVERGE):
        if colours.name not in matplotlib.colormaps:
            matplotlib.colormaps.register(colours)
    matplotlib.rcParams.update(STYLE)


def figure(width: float = 5.4, height: float = 3.2) -> tuple[Figure, Axes]:
    """Return a figure and its one panel; width and height in inches of 100 px.

    No pyplot: the figure is shown once, by `show.experiment`, and freed with its name.
    Raises ValueError when it is wider than the book's column.
    """
    if not 0 < width <= 5.4:
        raise ValueError(f"a figure is at most 5.4 inches wide, got {width}")
    drawn = Figure(figsize=(width, height))
    return drawn, drawn.add_subplot()


def series(color: str) -> Series:
    """Return the colour, dashes and marker of a series by its colour's name."""
    if color not in SERIES:
        raise ValueError(f"unknown colour {color!r}; known: {', '.join(SERIES)}")
    return SERIES[color]


def line(ax: Axes, x: Any, y: Any, color: str, **options: Any) -> None:
    """Draw one line in a series' colour, dashes and marker; name it with `label`."""
    style = series(color)
    settings = {
        "color": style.color,
        "linestyle": style.dashes,
        "marker": style.marker,
        **options,
    }
    ax.plot(_array(x), _array(y), **settings)


def label(
    ax: Axes, x: float, y: float, text: str, color: str = "ink", **options: Any
) -> None:
    """Write a line's name beside it (instead of a legend), in a shade fit for words."""
    settings = {"ha": "left", "va": "center", "fontweight": "bold", **options}
    if color == "ink":
        settings["fontweight"] = options.get("fontweight", "normal")
    ax.text(x, y, text, color=series(color).text, **settings)


def heatmap(
    ax: Axes,
    weights: Any,
    queries: Sequence[object],
    keys: Sequence[object],
    *,
    quantity: str = "attention weight",
) -> None:
    """Draw weights [queries keys], from 0 to 1: queries down, keys across.

    Raises ValueError when the shape does not fit the names or a weight leaves 0..1.
    """
    values = _matrix(weights, queries, keys)
    if not (values.min() >= -1e-6 and values.max() <= 1 + 1e-6):
        raise ValueError(
            f"weights lie between 0 and 1, got {values.min():g} to {values.max():g}"
        )
    _draw_matrix(ax, values, queries, keys, quantity, HEAT, (0.0, 1.0))
    ax.set(xlabel="key", ylabel="query")


def difference(
    ax: Axes,
    values: Any,
    rows: Sequence[object],
    columns: Sequence[object],
    *,
    quantity: str,
) -> None:
    """Draw signed differences [rows columns]: white at zero, symmetric limits."""
    matrix = _matrix(values, rows, columns)
    limit = max(float(np.abs(matrix).max()), 1e-12)
    _draw_matrix(ax, matrix, rows, columns, quantity, DIVERGE, (-limit, limit))


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _matrix(
    values: Any, rows: Sequence[object], columns: Sequence[object]
) -> np.ndarray:
    matrix = _array(values).astype(float)
    if matrix.shape != (len(rows), len(columns)):
        raise ValueError(
            f"shape {matrix.shape} does not fit {len(rows)} rows and "
            f"{len(columns)} columns"
        )
    return matrix


def _draw_matrix(
    ax: Axes,
    values: np.ndarray,
    rows: Sequence[object],
    columns: Sequence[object],
    quantity: str,
    colours: LinearSegmentedColormap,
    limits: tuple[float, float],
) -> None:
    low, high = limits
    image = ax.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto")
    ax.grid(False)
    names = [str(name) for name in columns]
    turned = max(map(len, names)) > 3 and len(names) > 4
    ax.set_xticks(range(len(columns)), names, rotation=90 if turned else 0)
    ax.set_yticks(range(len(rows)), [str(name) for name in rows])
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label(quantity)
    bar.outline.set_visible(False)
