"""Shapes that are built and run in milliseconds."""

from dataclasses import replace

from benchmarks.shapes import SHAPES, Shape

SMALL = {
    shape.family: replace(
        shape, width=16, heads=2, layers=2, length=12, batch=3, vocab=23
    )
    for shape in SHAPES.values()
}


def longer(length: int) -> Shape:
    """Return the small decoder with room for `length` tokens."""
    return replace(SMALL["decoder"], length=length)
