"""Made reports with one piece of news: to summarise, and to answer questions from.

A report is three sentences. Two say where an animal is, "the cat sat on the mat"; one,
at any place, says what an animal did, "the goat broke the vase". That one is the news.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tfcourse.data.pairs import IGNORE, Batch, pad
from tfcourse.data.tokenizers import AnyTokenizer

ANIMALS = ("cat", "dog", "goat", "hen", "fox", "cow", "pig", "hare", "mouse", "frog")
PLACES = ("mat", "bench", "roof", "wall", "path", "bridge", "hill", "stove")
RESTED, WHERE = ("sat", "lay", "slept", "stood"), ("on", "under", "near", "behind")
DID = ("broke", "stole", "found", "lost")
THINGS = ("vase", "cake", "key", "ring", "shoe", "drum", "lamp", "kite")
QUESTIONS = ("who did it ?", "to which thing ?", "what happened ?")
SENTENCES = 3


@dataclass(frozen=True)
class Report:
    """A report with its news, and a question whose answer stands in it, once."""

    text: str
    news: str
    question: str
    answer: str


def reports(*, count: int, test: int = 500, seed: int = 0) -> tuple[list[Report], ...]:
    """Return `count` reports to train on and `test` others, no two of the same text.

    A `count` below 1 and a `test` below 0 raise `ValueError`.
    """
    if count < 1 or test < 0:
        raise ValueError(
            f"count must be at least 1 and test at least 0, not {count} and {test}"
        )
    drawn = random.Random(seed)
    found: dict[str, Report] = {}
    while len(found) < count + test:
        report = _report(drawn)
        found.setdefault(report.text, report)
    made = list(found.values())
    return made[:count], made[count:]


def _report(drawn: random.Random) -> Report:
    animals, places = drawn.sample(ANIMALS, SENTENCES), drawn.sample(PLACES, SENTENCES)
    lines = [
        f"the {animal} {drawn.choice(RESTED)} {drawn.choice(WHERE)} the {place}"
        for animal, place in zip(animals, places, strict=True)
    ]
    news_at, thing = drawn.randrange(SENTENCES), f"the {drawn.choice(THINGS)}"
    who = f"the {animals[news_at]}"
    lines[news_at] = f"{who} {drawn.choice(DID)} {thing}"
    answers = (who, thing, lines[news_at])
    question, answer = drawn.choice(list(zip(QUESTIONS, answers, strict=True)))
    return Report(" . ".join(lines) + " .", lines[news_at], question, answer)


def span_batch(reports: Sequence[Report], tokenizer: AnyTokenizer) -> Batch:
    """Batch for an encoder that marks the answer: question, stop, report.

    `target` has at its first two places where the answer begins and where its last
    token stands (Devlin et al. 2019, section 4.2, whose separator `stop` is here).
    """
    rows, spans = [], []
    for report in reports:
        before = [*tokenizer.encode(report.question), tokenizer.stop]
        rows.append([tokenizer.start, *before, *tokenizer.encode(report.text)])
        first, last = answer_span(report, tokenizer)
        spans.append([first + 1 + len(before), last + 1 + len(before)])
    tokens = pad(rows, tokenizer.pad)
    target = torch.full_like(tokens, IGNORE)
    target[:, :2] = torch.tensor(spans)
    return Batch(tokens=tokens, target=target, valid=tokens != tokenizer.pad)


def answer_span(report: Report, tokenizer: AnyTokenizer) -> tuple[int, int]:
    """Return the first and the last token of the answer among those of the text.

    The tokenizer must cut before each word, as BPE does and a vocabulary of words; one
    that does not raises `ValueError`.
    """
    begins = f" {report.text}".index(f" {report.answer} ")
    before = report.text[: max(0, begins - 1)]
    through = report.text[: begins + len(report.answer)]
    first, end = len(tokenizer.encode(before)), len(tokenizer.encode(through))
    whole = tokenizer.encode(report.text)
    if tokenizer.decode(whole[first:end]).strip() != report.answer:
        raise ValueError(f"the tokenizer does not cut around {report.answer!r}")
    return first, end - 1
