"""The made tasks ask what they say, and the same thing for the same seed."""

from functools import partial

import pytest
import torch

from tfcourse.data import tasks
from tfcourse.data.pairs import IGNORE

TASKS = [tasks.reverse, tasks.two_lookups, tasks.which_first, tasks.most_frequent]


def draw(task, count=200, length=9, symbols=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return task(count, length=length, symbols=symbols, generator=generator)


def test_reverse_asks_for_the_mirrored_symbol():
    batch = draw(tasks.reverse)
    for row, answer in zip(batch.tokens.tolist(), batch.target.tolist(), strict=True):
        assert answer == row[::-1]


def test_two_lookups_asks_for_mirrored_and_next_symbol():
    batch = draw(tasks.two_lookups)
    for row, answer in zip(batch.tokens.tolist(), batch.target.tolist(), strict=True):
        following = row[1:] + row[:1]
        pairs = zip(row[::-1], following, strict=True)
        assert answer == [a * 5 + b for a, b in pairs]


def test_which_first_asks_for_the_order_of_0_and_1_at_the_end():
    batch = draw(tasks.which_first)
    assert (batch.target[:, :-1] == IGNORE).all()
    for row, answer in zip(batch.tokens.tolist(), batch.target.tolist(), strict=True):
        assert row.count(0) == row.count(1) == 1
        assert row[-1] > 1
        assert answer[-1] == int(row.index(1) < row.index(0))


def test_which_first_has_both_answers_about_equally_often():
    share = draw(tasks.which_first, count=2000).target[:, -1].float().mean()
    assert 0.45 < share < 0.55


def test_most_frequent_asks_for_the_one_symbol_that_occurs_most():
    batch = draw(tasks.most_frequent)
    assert len(batch.tokens) == 200
    for row, answer in zip(batch.tokens.tolist(), batch.target.tolist(), strict=True):
        number = [row.count(symbol) for symbol in range(5)]
        assert number.count(max(number)) == 1
        assert number.index(max(number)) == answer[-1]


@pytest.mark.parametrize("task", TASKS)
def test_rows_depend_on_the_seed_alone(task):
    first, again, other = draw(task), draw(task), draw(task, seed=1)
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.target, again.target)
    assert not torch.equal(first.tokens, other.tokens)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("wrong", [{"count": 0}, {"length": 0}, {"symbols": 0}])
def test_sizes_below_one_are_refused(task, wrong):
    with pytest.raises(ValueError, match="at least"):
        partial(draw, task)(**wrong)


def test_which_first_needs_room_for_both_symbols():
    with pytest.raises(ValueError, match="symbols=2"):
        draw(tasks.which_first, symbols=2)


def test_most_frequent_needs_two_symbols():
    with pytest.raises(ValueError, match="symbols=1"):
        draw(tasks.most_frequent, symbols=1)
