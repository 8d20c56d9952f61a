"""Exercises on tokens, summaries and answers, with the mistakes people make in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from tfcourse.course.exercise import Exercise
from tfcourse.data.bpe import Pair, merge

Words = Sequence[str]
Span = tuple[int, int]


def _random(count: int, seed: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def _merge_first(ids: list[int], pair: Pair, new: int) -> list[int]:
    for place in range(len(ids) - 1):
        if tuple(ids[place : place + 2]) == tuple(pair):
            return [*ids[:place], new, *ids[place + 2 :]]
    return ids


def _merge_from_right(ids: list[int], pair: Pair, new: int) -> list[int]:
    return merge(ids[::-1], pair[::-1], new)[::-1]


def _merge_either_order(ids: list[int], pair: Pair, new: int) -> list[int]:
    merged, place = [], 0
    while place < len(ids):
        if sorted(ids[place : place + 2]) == sorted(pair):
            merged.append(new)
            place += 2
        else:
            merged.append(ids[place])
            place += 1
    return merged


def _merge_step_one(ids: list[int], pair: Pair, new: int) -> list[int]:
    merged = []
    for place in range(len(ids)):
        found = tuple(ids[place : place + 2]) == tuple(pair)
        merged.append(new if found else ids[place])
    return merged


def _merge_overlapping(ids: list[int], pair: Pair, new: int) -> list[int]:
    hits = {
        place
        for place in range(len(ids) - 1)
        if tuple(ids[place : place + 2]) == tuple(pair)
    }
    return [
        new if place in hits else ids[place]
        for place in range(len(ids))
        if place in hits or place - 1 not in hits
    ]


MERGE_PAIR = Exercise(
    name="merge_pair",
    cases=lambda: [
        ([5, 6, 7, 5, 6], (5, 6), 9),
        ([1, 1, 1, 2], (1, 1), 8),
        ([6, 5, 6, 6], (5, 6), 9),
        ([3], (3, 3), 4),
    ],
    answer=lambda ids, pair, new: merge(ids, tuple(pair), new),
    mistakes={
        "only the first occurrence is merged": _merge_first,
        "it goes from right to left: 1 1 1 is to become `new` 1": _merge_from_right,
        "a pair has an order: 6 5 is not the pair (5, 6)": _merge_either_order,
        "the second number of a merged pair is still there: go on two places "
        "further": _merge_step_one,
        "pairs overlap: in 1 1 1 the middle number can be merged once "
        "only": _merge_overlapping,
    },
)


def _harmonic(precision: float, recall: float) -> float:
    both = precision + recall
    return 2 * precision * recall / both if both else 0.0


def _shared(output: Words, reference: Words) -> int:
    return (Counter(output) & Counter(reference)).total()


def _f_score(
    shared: Callable[[Words, Words], float],
) -> Callable[[Words, Words], float]:
    def score(output: Words, reference: Words) -> float:
        found = shared(output, reference)
        return _harmonic(found / len(output), found / len(reference))

    return score


def _unclipped(output: Words, reference: Words) -> int:
    return sum(word in reference for word in output)


def _in_place(output: Words, reference: Words) -> int:
    return sum(map(str.__eq__, output, reference))


def _of_sets(output: Words, reference: Words) -> float:
    shared = len(set(output) & set(reference))
    return _harmonic(shared / len(set(output)), shared / len(set(reference)))


def _plain_mean(output: Words, reference: Words) -> float:
    shared = _shared(output, reference)
    return (shared / len(output) + shared / len(reference)) / 2


ROUGE_1 = Exercise(
    name="rouge_1",
    cases=lambda: [
        (["the", "cat"], ["the", "cat", "sat", "on", "the", "mat"]),
        (["the", "the", "the", "hat"], ["the", "cat", "sat", "on", "the", "mat"]),
        (["mat", "the", "on", "cat", "sat"], ["the", "cat", "sat"]),
        (["dog"], ["cat"]),
    ],
    answer=_f_score(_shared),
    mistakes={
        "this is the precision alone": lambda output, reference: (
            _shared(output, reference) / len(output)
        ),
        "this is the recall alone": lambda output, reference: (
            _shared(output, reference) / len(reference)
        ),
        "a word counts as often as it occurs in *both*: *the the the* shares two "
        "with a text that has it twice": _f_score(_unclipped),
        "these are sets: a word that occurs twice in both counts twice": _of_sets,
        "words count wherever they stand, not only at the same place": _f_score(
            _in_place
        ),
        "this is the plain mean of precision and recall, not the harmonic "
        "one": _plain_mean,
    },
)


def _best(start: Tensor, end: Tensor, spans: Iterable[Span]) -> Span:
    return max(spans, key=lambda span: float(start[span[0]] + end[span[1]]))


def _spans(count: int, longest: int) -> list[Span]:
    return [(i, j) for i in range(count) for j in range(i, min(i + longest, count))]


def _answer_span(start: Tensor, end: Tensor, longest: int) -> Span:
    return _best(start, end, _spans(len(start), longest))


def _each_for_itself(start: Tensor, end: Tensor, longest: int) -> Span:
    return int(start.argmax()), int(end.argmax())


def _either_side(start: Tensor, end: Tensor, longest: int) -> Span:
    near = [
        (i, j)
        for i in range(len(start))
        for j in range(len(end))
        if abs(j - i) < longest
    ]
    return _best(start, end, near)


def _start_first(start: Tensor, end: Tensor, longest: int) -> Span:
    first = int(start.argmax())
    return first, first + int(end[first : first + longest].argmax())


def _exclusive(start: Tensor, end: Tensor, longest: int) -> Span:
    first, last = _answer_span(start, end, longest)
    return first, last + 1


def _span_case(
    start: list[float], end: list[float], longest: int
) -> tuple[object, ...]:
    return torch.tensor(start), torch.tensor(end), longest


BEST_SPAN = Exercise(
    name="best_span",
    cases=lambda: [
        # the best end stands before the best start
        _span_case([0.0, 1.0, 5.0, 0.0], [0.0, 4.0, 1.0, 2.0], 4),
        # the best pair is one token too long
        _span_case([5.0, 0.0, 2.0, 0.0], [0.0, 1.0, 0.5, 6.0], 3),
        # a better pair begins at the second-best start
        _span_case([3.0, 0.0, 2.5, 0.0, 0.0], [0.0, 0.5, 0.0, 4.0, 0.0], 3),
        # the best pair has just as many tokens as are allowed
        _span_case([0.0, 5.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.0, 6.0, 0.0], 3),
        # the best pair is much too long
        _span_case([5.0, 0.0, 0.0, 0.0, 0.0, 1.0], [0.0, 0.2, 0.0, 0.0, 0.0, 6.0], 2),
        (_random(9, 1), _random(9, 2), 4),
    ],
    answer=_answer_span,
    mistakes={
        "start and end were chosen each for itself: the end may then stand before the "
        "start": _each_for_itself,
        "spans that end before they begin are among the candidates": _either_side,
        "the best start was fixed first: a little less there may be more "
        "together": _start_first,
        "no span is refused for being too long": lambda start, end, longest: (
            _answer_span(start, end, len(start))
        ),
        "spans of `longest` tokens are allowed; the limit is one too "
        "small": lambda start, end, longest: _answer_span(start, end, longest - 1),
        "spans are one token too long: from i to j there are j − i + 1": (
            lambda start, end, longest: _answer_span(start, end, longest + 1)
        ),
        "the end is the last token of the answer, not the one behind it": _exclusive,
    },
)
