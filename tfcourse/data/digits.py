"""Handwritten digits of 8 x 8 pixels, and grids of them with relations to describe."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from torch import Tensor

SIZE = 8  # pixels
GREYS = 16  # the brightest of the scans' values, which start at 0


@dataclass(frozen=True)
class Digits:
    """Pictures from 0 (paper) to 1 (ink), and which digit each of them shows."""

    images: Float[Tensor, "count 8 8"]
    labels: Int[Tensor, " count"]


@dataclass(frozen=True)
class Grids:
    """Pictures of several digits in a grid, and a sentence about each picture."""

    images: Float[Tensor, "count height width"]
    captions: list[str]


def handwritten_digits(*, test: int = 360, seed: int = 0) -> tuple[Digits, Digits]:
    """Return digits to train on and `test` others, of 1,797 scans by 13 people.

    The test set of Alpaydin and Kaynak (1998), as scikit-learn has it; no two pictures
    are equal. The same people wrote both parts. A `test` that leaves nothing on either
    side raises `ValueError`.
    """
    scans = load_digits()
    count = len(scans.target)
    if not 1 <= test < count:
        raise ValueError(f"test must be between 1 and {count - 1}, not {test}")
    order = np.random.default_rng(seed).permutation(count)
    images = torch.tensor(scans.images[order] / GREYS, dtype=torch.float32)
    labels = torch.tensor(scans.target[order], dtype=torch.long)
    return Digits(images[test:], labels[test:]), Digits(images[:test], labels[:test])


def digit_grids(
    digits: Digits,
    count: int,
    *,
    side: int = 3,
    number: int = 3,
    generator: torch.Generator,
) -> Grids:
    """Place `number` different digits in a grid of side x side and describe it.

    Digits are drawn from those given: from those to train on and those to test on, no
    two grids share a picture. `caption` says what the sentences are. The same generator
    state gives the same grids. Fewer than 2 digits, more than 10 or than there are
    cells, a `count` below 1, and a digit without a picture raise `ValueError`.
    """
    if not 2 <= number <= min(10, side * side) or count < 1:
        raise ValueError(
            "digit_grids needs a count of at least 1 and 2 to 10 digits that have a "
            f"cell each, not count={count}, number={number} and side={side}"
        )
    if lacking := set(range(10)) - set(digits.labels.tolist()):
        raise ValueError(f"there is no picture to draw of {sorted(lacking)}")
    images = torch.zeros(count, side * SIZE, side * SIZE)
    captions = []
    for image in images:
        shown = torch.randperm(10, generator=generator)[:number].tolist()
        cells = torch.randperm(side * side, generator=generator)[:number].tolist()
        places = {
            digit: divmod(cell, side) for digit, cell in zip(shown, cells, strict=True)
        }
        for digit, (row, column) in places.items():
            those = (digits.labels == digit).nonzero()[:, 0]
            drawn = those[torch.randint(len(those), (), generator=generator)]
            top, left = row * SIZE, column * SIZE
            image[top : top + SIZE, left : left + SIZE] = digits.images[drawn]
        captions.append(caption(places))
    return Grids(images, captions)


def caption(places: dict[int, tuple[int, int]]) -> str:
    """Say where the smallest digit stands relative to each other, in rising order.

    Such as "the 1 is left of the 3 and above the 7". `places` are row and column. The
    longer of the two distances decides the word; left and right where they are equal.
    """
    first, *others = sorted(places)
    row, column = places[first]

    def relation(other: int) -> str:
        down, right = places[other][0] - row, places[other][1] - column
        if abs(down) > abs(right):
            return "above" if down > 0 else "below"
        return "left of" if right > 0 else "right of"

    parts = [f"{relation(other)} the {other}" for other in others]
    return f"the {first} is {' and '.join(parts)}"
