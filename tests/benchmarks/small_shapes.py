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


# What a row of results says of where it was measured.
MACHINE = {
    "processor": "A processor",
    "cores": 2,
    "threads": 2,
    "wait_policy": "passive",
    "instructions": "AVX2",
    "python": "3.11",
    "torch": "2.13",
    "transformers": "5.23",
    "x-transformers": "2.31",
    "load": 0.5,
}
