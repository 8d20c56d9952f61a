"""Made reports: one piece of news, and a question whose answer stands in the text."""

from collections import Counter

import pytest

from tfcourse.data.fast_bpe import FastBPE
from tfcourse.data.pairs import IGNORE
from tfcourse.data.reports import (
    DID,
    QUESTIONS,
    Report,
    answer_span,
    reports,
    span_batch,
)
from tfcourse.data.tokenizers import Tokenizer

TRAIN, TEST = reports(count=400, test=100)
BPE = FastBPE.from_texts((text for r in TRAIN for text in (r.text, r.question)), 500)


def test_a_report_has_one_piece_of_news() -> None:
    for report in TRAIN:
        lines = report.text.removesuffix(" .").split(" . ")
        told = [line for line in lines if line.split()[2] in DID]
        assert told == [report.news]
        assert len(lines) == len({line.split()[1] for line in lines}) == 3


def test_the_news_stands_at_any_place_equally_often() -> None:
    places = Counter(
        r.text.removesuffix(" .").split(" . ").index(r.news) for r in TRAIN
    )
    assert all(100 < places[place] < 170 for place in range(3))


def test_the_answer_stands_in_the_text_once() -> None:
    for report in TRAIN:
        assert f" {report.text}".count(f" {report.answer} ") == 1
        assert report.answer in report.news
        assert report.question in QUESTIONS


def test_no_report_is_on_both_sides_and_the_seed_decides() -> None:
    assert not {r.text for r in TRAIN} & {r.text for r in TEST}
    assert reports(count=5, seed=1) == reports(count=5, seed=1)
    assert reports(count=5, seed=1) != reports(count=5, seed=2)


@pytest.mark.parametrize(
    "tokenizer", [BPE, Tokenizer.from_texts(r.text + r.question for r in TRAIN)]
)
def test_the_span_is_the_answer(tokenizer: FastBPE | Tokenizer) -> None:
    batch = span_batch(TEST, tokenizer)
    assert (batch.target[:, 2:] == IGNORE).all()
    for row, ends, report in zip(batch.tokens, batch.target, TEST, strict=True):
        first, last = ends[:2].tolist()
        assert row[0] == tokenizer.start
        found = tokenizer.decode(row[first : last + 1].tolist())
        assert found.strip() == report.answer


def test_a_tokenizer_that_does_not_cut_there_is_refused() -> None:
    class Whole(Tokenizer):
        def encode(self, text: str) -> list[int]:
            return [4] if text else []

    report = Report("the cat lost the key .", "the cat lost the key", "?", "the key")
    with pytest.raises(ValueError, match="does not cut around 'the key'"):
        answer_span(report, Whole(Tokenizer.from_texts(["x"]).symbols))


@pytest.mark.parametrize("sizes", [{"count": 0}, {"count": 1, "test": -1}])
def test_impossible_sizes_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        reports(**sizes)
