"""Exercises on inputs other than text and on forgetting, with people's mistakes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tfcourse.course.broken_reader import cut_in_strips
from tfcourse.course.exercise import Exercise


def _answer_patches(images: Tensor, patch: int) -> Tensor:
    rows = images.unfold(1, patch, patch).unfold(2, patch, patch)
    return rows.flatten(3).flatten(1, 2)


def _numbered_pixels(count: int, side: int) -> Tensor:
    return torch.arange(count * side * side).float().view(count, side, side)


CUT_PATCHES = Exercise(
    name="cut_patches",
    cases=lambda: [
        (_numbered_pixels(1, 4), 2),
        (_numbered_pixels(2, 6), 2),
        (_numbered_pixels(2, 6), 3),
    ],
    answer=_answer_patches,
    mistakes={
        "these are parts of rows, no squares: `reshape` keeps the reading order": (
            cut_in_strips
        ),
        "the patches run down the columns; they are numbered row by row": (
            lambda images, p: (
                _answer_patches(images.transpose(1, 2), p)
                .unflatten(2, (p, p))
                .transpose(2, 3)
                .flatten(2)
            )
        ),
        "the pixels inside each patch run down its columns": lambda images, p: (
            _answer_patches(images, p).unflatten(2, (p, p)).transpose(2, 3).flatten(2)
        ),
        "this is the picture transposed: rows and columns are exchanged": (
            lambda images, p: _answer_patches(images.transpose(1, 2), p)
        ),
        "these are the pixels of a patch by patches: exchange the last two": (
            lambda images, p: F.unfold(images[:, None], p, stride=p)
        ),
        "the patches overlap: step by the size of a patch": lambda images, p: (
            images.unfold(1, p, 1).unfold(2, p, 1).flatten(3).flatten(1, 2)
        ),
    },
)


def _answer_importance(gradients: Tensor) -> Tensor:
    return gradients.square().mean(0)


IMPORTANCE = Exercise(
    name="importance",
    cases=lambda: [
        (torch.tensor([[3.0, 1.0, 0.0], [-3.0, 1.0, 0.5]]),),
        (torch.tensor([[0.5, -2.0], [1.5, 2.0], [-1.0, 4.0], [0.0, 0.0]]),),
    ],
    answer=_answer_importance,
    mistakes={
        "square first, then take the mean: gradients of opposite sign cancel": (
            lambda g: g.mean(0).square()
        ),
        "it is the mean over the examples, not their sum": lambda g: g.square().sum(0),
        "the gradients are squared, not taken without sign": lambda g: g.abs().mean(0),
        "the mean is not subtracted: this is the variance": (
            lambda g: g.var(0, unbiased=False)
        ),
        "no root is taken: EWC multiplies by the square": (
            lambda g: g.square().mean(0).sqrt()
        ),
        "one number for each parameter: the mean runs over the examples": (
            lambda g: g.square().mean(1)
        ),
    },
)


def _lost(right: Tensor, best: Tensor) -> float:
    return (best - right[-1])[:-1].mean().item()


def _answer_forgetting(right: Tensor) -> float:
    return _lost(right, right[:-1].max(0).values)


FORGETTING = Exercise(
    name="forgetting",
    cases=lambda: [
        (torch.tensor([[0.9, 0.1, 0.1], [0.95, 0.8, 0.2], [0.5, 0.6, 0.9]]),),
        (torch.tensor([[1.0, 0.3], [0.4, 0.9]]),),
        (torch.tensor([[0.6, 0.2, 0.1], [0.7, 0.9, 0.3], [0.8, 0.4, 0.7]]),),
    ],
    answer=_answer_forgetting,
    mistakes={
        "the last task was learned just now: leave it out of the mean": (
            lambda r: (r.max(0).values - r[-1]).mean().item()
        ),
        "compare with the best so far, which need not be right after learning": (
            lambda r: _lost(r, r.diagonal())
        ),
        "the sign is turned: what is lost counts as positive": (
            lambda r: -_answer_forgetting(r)
        ),
        "this is the accuracy at the end, not what was lost": (
            lambda r: r[-1, :-1].mean().item()
        ),
        "a gain is a negative loss: do not count the last look among the best": (
            lambda r: _lost(r, r.max(0).values)
        ),
        "rows are moments and columns are tasks; these are exchanged": (
            lambda r: _answer_forgetting(r.T)
        ),
    },
    tolerance=1e-4,
)


def _pairs(sessions: Tensor) -> tuple[Tensor, Tensor]:
    return sessions[:, :-1].flatten(), sessions[:, 1:].flatten()


def _likeliest(before: Tensor, after: Tensor, items: int) -> Tensor:
    ones = torch.ones(len(before))
    counts = torch.zeros(items, items).index_put((before, after), ones, True)
    return counts.argmax(1)


def _across_rows(sessions: Tensor, items: int) -> Tensor:
    joined = sessions.flatten()
    return _likeliest(joined[:-1], joined[1:], items)


NEXT_ITEM = Exercise(
    name="next_item",
    cases=lambda: [
        (torch.tensor([[0, 1, 0, 1], [2, 0, 1, 2], [2, 0, 2, 0]]), 3),
        (torch.tensor([[3, 1, 2], [0, 3, 1], [0, 3, 0], [0, 3, 0], [0, 1, 2]]), 4),
    ],
    answer=lambda sessions, items: _likeliest(*_pairs(sessions), items),
    mistakes={
        "one session does not continue the one before: count inside rows": _across_rows,
        "this is what comes before each item, not after": lambda s, items: _likeliest(
            *_pairs(s)[::-1], items
        ),
        "this is the most popular item, whatever came before": lambda s, items: (
            s.flatten().bincount(minlength=items).argmax().repeat(items)
        ),
        "only the first step of each session is counted": lambda s, items: _likeliest(
            *_pairs(s[:, :2]), items
        ),
        "only the last step of each session is counted": lambda s, items: _likeliest(
            *_pairs(s[:, -2:]), items
        ),
    },
)
