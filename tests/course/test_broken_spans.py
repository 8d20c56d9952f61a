"""The planted labels are one token too early, and reading them back shows it."""

from collections.abc import Callable

import torch

from tfcourse.course.broken_spans import start_not_counted
from tfcourse.data.fast_bpe import FastBPE
from tfcourse.data.pairs import Batch
from tfcourse.data.reports import reports, span_batch

REPORTS, _ = reports(count=50, test=0)
BPE = FastBPE.from_texts((r.text for r in REPORTS), 400)


def read_back(make: Callable[..., Batch]) -> list[bool]:
    batch = make(REPORTS, BPE)
    rows = zip(batch.tokens.tolist(), batch.target[:, :2].tolist(), strict=True)
    texts = [BPE.decode(row[first : last + 1]).strip() for row, (first, last) in rows]
    return [text == r.answer for text, r in zip(texts, REPORTS, strict=True)]


def test_only_the_labels_differ_by_one() -> None:
    right, wrong = span_batch(REPORTS, BPE), start_not_counted(REPORTS, BPE)
    assert torch.equal(right.tokens, wrong.tokens)
    assert (right.target - wrong.target)[:, :2].eq(1).all()
    assert torch.equal(right.target[:, 2:], wrong.target[:, 2:])


def test_reading_the_labels_back_names_it() -> None:
    assert all(read_back(span_batch))
    assert not any(read_back(start_not_counted))
