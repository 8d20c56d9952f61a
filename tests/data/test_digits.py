"""Digits and grids: real pictures, true captions, nothing of the test in train."""

import re

import pytest
import torch
from sklearn.datasets import load_digits

from tfcourse.data.digits import Digits, caption, digit_grids, handwritten_digits

TRAIN, TEST = handwritten_digits()


def pictures(digits: Digits) -> set[tuple[float, ...]]:
    return {tuple(image.flatten().tolist()) for image in digits.images}


def test_digits_are_scikit_learn_s_between_paper_and_ink() -> None:
    scans = load_digits()
    known = {
        tuple((image / 16).flatten().tolist()): label
        for image, label in zip(scans.images, scans.target, strict=True)
    }
    assert len(known) == 1797
    for part in (TRAIN, TEST):
        for image, label in zip(part.images, part.labels.tolist(), strict=True):
            assert known[tuple(image.flatten().tolist())] == label
        assert part.images.min() == 0
        assert part.images.max() == 1
        assert set(part.labels.tolist()) == set(range(10))


def test_no_test_picture_is_in_train() -> None:
    assert (len(TRAIN.labels), len(TEST.labels)) == (1437, 360)
    assert len(pictures(TRAIN)) == 1437
    assert len(pictures(TEST)) == 360
    assert not pictures(TRAIN) & pictures(TEST)


def test_the_seed_decides_which_digits_are_held_out() -> None:
    again, other = handwritten_digits()[1], handwritten_digits(seed=1)[1]
    assert torch.equal(again.images, TEST.images)
    assert not torch.equal(other.images, TEST.images)


@pytest.mark.parametrize("test", [0, 1797])
def test_digits_without_one_side_are_refused(test: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and 1796, not {test}"):
        handwritten_digits(test=test)


def grids(digits: Digits = TEST, count: int = 40, seed: int = 0, **options: int):
    generator = torch.Generator().manual_seed(seed)
    return digit_grids(digits, count, generator=generator, **options)


def read(image: torch.Tensor, digits: Digits) -> dict[int, tuple[int, int]]:
    """Find which digit stands where, by comparing every cell with every picture."""
    found = {}
    side = len(image) // 8
    for row in range(side):
        for column in range(side):
            cell = image[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
            if cell.any():
                same = (digits.images == cell).all(2).all(1)
                assert same.sum() == 1
                found[int(digits.labels[same])] = (row, column)
    return found


@pytest.mark.parametrize(("side", "number"), [(3, 3), (2, 4), (4, 2)])
def test_captions_are_true_of_the_picture_and_name_every_digit(
    side: int, number: int
) -> None:
    made = grids(side=side, number=number)
    assert made.images.shape == (40, side * 8, side * 8)
    for image, text in zip(made.images, made.captions, strict=True):
        places = read(image, TEST)
        assert len(places) == number
        first = int(re.match(r"the (\d) is ", text)[1])
        relations = re.findall(r"(left of|right of|above|below) the (\d)", text)
        assert [first, *(int(digit) for _, digit in relations)] == sorted(places)
        for word, digit in relations:
            (row, column), (other_row, other_column) = places[first], places[int(digit)]
            assert {
                "left of": column < other_column,
                "right of": column > other_column,
                "above": row < other_row,
                "below": row > other_row,
            }[word]


@pytest.mark.parametrize(
    ("places", "text"),
    [
        ({7: (0, 1), 3: (0, 0), 9: (2, 1)}, "the 3 is left of the 7 and above the 9"),
        ({1: (2, 2), 0: (2, 0)}, "the 0 is left of the 1"),
        ({1: (0, 2), 2: (1, 1), 5: (1, 2)}, "the 1 is right of the 2 and above the 5"),
        ({4: (2, 0), 6: (0, 1)}, "the 4 is below the 6"),
    ],
)
def test_the_longer_distance_decides_the_word(
    places: dict[int, tuple[int, int]], text: str
) -> None:
    assert caption(places) == text


def test_every_relation_occurs_often() -> None:
    text = " ".join(grids(count=300).captions)
    for word in ("left of", "right of", "above", "below"):
        assert text.count(word) > 60


def test_grids_use_the_pictures_given_and_depend_on_the_seed_alone() -> None:
    made, again, other = grids(), grids(), grids(seed=1)
    assert torch.equal(made.images, again.images)
    assert made.captions == again.captions
    assert not torch.equal(made.images, other.images)
    cells = made.images.unfold(1, 8, 8).unfold(2, 8, 8).reshape(-1, 64)
    used = {tuple(cell.tolist()) for cell in cells if cell.any()}
    assert used <= pictures(TEST)
    assert len(used) > 80


def test_a_digit_without_a_picture_is_named() -> None:
    kept = (TEST.labels != 4) & (TEST.labels != 7)
    some = Digits(TEST.images[kept], TEST.labels[kept])
    with pytest.raises(ValueError, match=r"no picture to draw of \[4, 7\]"):
        grids(some)


@pytest.mark.parametrize(
    "wrong", [{"number": 1}, {"number": 11}, {"number": 5, "side": 2}, {"count": 0}]
)
def test_grids_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="digit_grids needs a count of at least 1"):
        grids(**{"side": 4, **wrong})
