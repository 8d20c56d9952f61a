"""The made tasks ask what they say, and the same thing for the same seed."""

from functools import partial

import pytest
import torch

from tfcourse.data import tasks
from tfcourse.data.pairs import IGNORE

TASKS = [
    *(tasks.reverse, tasks.two_lookups, tasks.which_first, tasks.most_frequent),
    *(tasks.sort, tasks.copy),
]
# Tasks that take other sizes, with some that are right.
OTHERS = [
    (tasks.addition, {"digits": 3}),
    (tasks.recall, {"pairs": 3, "lag": 4, "symbols": 5}),
    (tasks.hops, {"steps": 3, "symbols": 5}),
    (tasks.cards, {"steps": 4, "symbols": 6}),
    (tasks.cups, {"length": 9, "cups": 5}),
    (tasks.parity, {"length": 9}),
]


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


def made(task, count=200, seed=0, **sizes):
    batch = task(count, **sizes, generator=torch.Generator().manual_seed(seed))
    assert len(batch.tokens) == len(batch.target) == count
    return zip(batch.tokens.tolist(), batch.target.tolist(), strict=True)


def test_sort_asks_for_the_rising_order():
    rows = made(tasks.sort, length=9, symbols=5)
    for row, answer in rows:
        counted = [symbol for symbol in range(5) for _ in range(row.count(symbol))]
        assert answer == counted


def test_copy_asks_for_the_row_again_after_the_sign():
    for row, answer in made(tasks.copy, length=4, symbols=5):
        assert len(row) == 8
        assert row[4] == 5
        assert max(row[:4]) < 5
        assert row[5:] == row[:3]
        assert answer == [IGNORE] * 4 + row[:4]


@pytest.mark.parametrize("digits", [1, 2, 5, 30])
def test_addition_asks_for_the_sum(digits):
    def number(symbols):
        return int("".join(map(str, symbols)))

    carried = 0
    for row, answer in made(tasks.addition, digits=digits):
        first, second = row[:digits], row[digits + 1 : 2 * digits + 1]
        assert (row[digits], row[2 * digits + 1]) == (10, 11)
        assert answer[: 2 * digits + 1] == [IGNORE] * (2 * digits + 1)
        total = answer[2 * digits + 1 :]
        assert total == [
            int(d) for d in f"{number(first) + number(second):0{digits + 1}}"
        ]
        assert row[2 * digits + 2 :] == total[:-1]
        carried += total[0]
    assert 20 < carried < 180


@pytest.mark.parametrize(("pairs", "lag"), [(1, 0), (3, 4), (5, 20)])
def test_recall_asks_for_the_value_of_the_key_at_the_end(pairs, lag):
    places = set()
    for row, answer in made(tasks.recall, pairs=pairs, lag=lag, symbols=5):
        shown, filler, asked = row[: 2 * pairs], row[2 * pairs : -1], row[-1]
        assert filler == [10] * lag
        values = dict(zip(shown[::2], shown[1::2], strict=True))
        assert all(key < 5 <= value < 10 for key, value in values.items())
        assert shown[::2].count(asked) == 1
        places.add(shown.index(asked) // 2)
        assert answer == [IGNORE] * (len(row) - 1) + [values[asked]]
    assert places == set(range(pairs))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_hops_asks_for_the_symbol_so_many_steps_away(steps):
    starts = set()
    for row, answer in made(tasks.hops, steps=steps, symbols=5):
        leads = dict(zip(row[:-1:2], row[1:-1:2], strict=True))
        assert set(leads) == set(leads.values()) == set(range(5))
        at, seen = row[-1], [row[-1]]
        for _ in range(steps):
            at = leads[at]
            assert at not in seen
            seen.append(at)
        assert answer == [IGNORE] * 10 + [at]
        starts.add(row[:-1:2].index(row[-1]))
    assert starts == set(range(5))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_cards_asks_where_so_many_steps_lead(steps):
    for row, answer in made(tasks.cards, steps=steps, symbols=6):
        assert len(row) == 6
        for place, found in enumerate(answer):
            at = place
            for _ in range(steps):
                at = row[at]
            assert found == at


def test_cups_asks_under_which_cup_the_ball_is():
    pairs = [(a, b) for a in range(5) for b in range(a + 1, 5)]
    last = set()
    for row, answer in made(tasks.cups, length=9, cups=5):
        cups = ["ball", *"...."]
        for swap, found in zip(row, answer, strict=True):
            a, b = pairs[swap]
            cups[a], cups[b] = cups[b], cups[a]
            assert cups.index("ball") == found
        last.add(answer[-1])
    assert last == set(range(5))


def test_parity_asks_whether_the_ones_are_odd():
    answers = []
    for row, answer in made(tasks.parity, length=9):
        odd = False
        for bit in row:
            odd = odd != (bit == 1)
        assert answer == [IGNORE] * 8 + [int(odd)]
        answers.append(odd)
    assert 70 < sum(answers) < 130


@pytest.mark.parametrize(("task", "sizes"), OTHERS)
def test_other_rows_depend_on_the_seed_alone(task, sizes):
    assert list(made(task, **sizes)) == list(made(task, **sizes))
    assert list(made(task, **sizes)) != list(made(task, seed=1, **sizes))


@pytest.mark.parametrize(("task", "sizes"), OTHERS)
def test_no_rows_are_refused(task, sizes):
    with pytest.raises(ValueError, match="count must be at least 1, not 0"):
        made(task, count=0, **sizes)


@pytest.mark.parametrize(
    ("task", "sizes", "message"),
    [
        (tasks.addition, {"digits": 0}, "digits must be at least 1, not 0"),
        (tasks.parity, {"length": 0}, "length must be at least 1, not 0"),
        (tasks.cards, {"steps": 0, "symbols": 5}, "steps must be at least 1, not 0"),
        (tasks.cups, {"length": 3, "cups": 1}, "cups must be at least 2, not 1"),
        (tasks.recall, {"pairs": 0, "lag": 0, "symbols": 5}, "not pairs=0, "),
        (tasks.recall, {"pairs": 6, "lag": 0, "symbols": 5}, "not pairs=6, symbols=5"),
        (tasks.recall, {"pairs": 2, "lag": -1, "symbols": 5}, "lag=-1"),
        (tasks.hops, {"steps": 0, "symbols": 5}, "not steps=0 and symbols=5"),
        (tasks.hops, {"steps": 5, "symbols": 5}, "not steps=5 and symbols=5"),
    ],
)
def test_sizes_that_cannot_be_are_named(task, sizes, message):
    with pytest.raises(ValueError, match=message):
        made(task, **sizes)


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
