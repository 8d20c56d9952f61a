"""BLEU, chrF, ROUGE and accuracy: their values, their intervals, their refusals."""

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from small_models import no_shape_checks

from tfcourse.training.scores import Score, accuracy, bleu, chrf, mean_score, rouge

OUTPUTS = [
    "A man sits on a bench .",
    "Two dogs are running over the meadow .",
    "A girl reads",
] * 9
REFERENCES = [
    "A man sits on a wooden bench .",
    "Two dogs run across a meadow .",
    "A girl reads a book .",
] * 9


def test_bleu_and_chrf_are_sacrebleus() -> None:
    expected = sacrebleu.corpus_bleu(OUTPUTS, [REFERENCES])
    assert bleu(OUTPUTS, REFERENCES).value == pytest.approx(expected.score)
    expected = sacrebleu.corpus_chrf(OUTPUTS, [REFERENCES])
    assert chrf(OUTPUTS, REFERENCES).value == pytest.approx(expected.score)


def test_bleu_is_that_of_papineni_by_hand() -> None:
    # 4 of 5 words, 3 of 4 pairs, 2 of 3 triples, 1 of 2 quadruples; 5 words for 6.
    precisions = [4 / 5, 3 / 4, 2 / 3, 1 / 2]
    expected = math.exp(1 - 6 / 5) * math.prod(precisions) ** 0.25
    score = bleu(["a b c d x"], ["a b c d e f"], tokenize="none")
    assert score.value == pytest.approx(100 * expected)


def test_texts_that_are_meant_to_be_tokens_are_not_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tokens = ["a man sits on a bench ."] * 120
    bleu(tokens, tokens, tokenize="none")
    assert caplog.text == ""
    bleu(tokens, tokens)
    assert "tokenized period" in caplog.text


def test_case_and_tokens_are_as_asked_for() -> None:
    assert bleu(["A B, c d e"], ["a b , c d e"]).value < 60
    assert bleu(["A B, c d e"], ["a b , c d e"], lowercase=True).value == (
        pytest.approx(100)
    )
    score = bleu(["a b c d"], ["a b c d"], name="mine", tokenize="none", lowercase=True)
    assert score.name == "mine"
    assert {"tok:none", "case:lc"} <= set(score.how.split("|"))


def test_rouge_is_the_mean_f_score_of_rouge_score() -> None:
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    pairs = list(zip(OUTPUTS, REFERENCES, strict=True))
    for name, score in zip(
        ("rouge1", "rouge2", "rougeL"), rouge(OUTPUTS, REFERENCES), strict=True
    ):
        each = [scorer.score(right, out)[name].fmeasure for out, right in pairs]
        assert score.value == pytest.approx(100 * np.mean(each))
        assert score.name == f"ROUGE-{name[5:]}"


def test_rouge_of_a_small_case_is_that_by_hand() -> None:
    # Three of three words in common with four, two of two pairs with three, and so on.
    one, two, longest = rouge(["return the list"], ["return the sorted list"])
    assert one.value == pytest.approx(100 * 2 * 1 * 0.75 / 1.75)
    assert two.value == pytest.approx(100 * 2 * (1 / 2) * (1 / 3) / (5 / 6))
    assert longest.value == pytest.approx(one.value)


def test_accuracy_counts_what_is_equal() -> None:
    score = accuracy(["a", "b", "c", "d"], ["a", "x", "c", "d"])
    assert (score.name, score.value, score.how) == ("accuracy", 0.75, "of 4")


def test_the_interval_of_a_mean_is_about_two_standard_errors() -> None:
    values = np.random.default_rng(3).normal(5.0, 2.0, size=400)
    score = mean_score("length", list(values))
    error = values.std() / 20
    assert score.value == pytest.approx(values.mean())
    assert score.low == pytest.approx(score.value - 1.96 * error, abs=0.3 * error)
    assert score.high == pytest.approx(score.value + 1.96 * error, abs=0.3 * error)


def half_right(outputs: list[str], references: list[str]) -> list[Any]:
    return [bleu(outputs, references), chrf(outputs, references)]


@pytest.mark.parametrize("measure", [half_right, rouge])
def test_intervals_hold_the_value_and_narrow_with_more_items(
    measure: Callable[..., list[Score]],
) -> None:
    few = measure(OUTPUTS[:9], REFERENCES[:9])
    many = measure(OUTPUTS * 4, REFERENCES * 4)
    for small, large in zip(few, many, strict=True):
        for score in (small, large):
            assert score.low < score.value < score.high
        assert large.high - large.low < 0.6 * (small.high - small.low)


def test_resampling_is_the_same_each_time_and_leaves_generators_alone() -> None:
    def states() -> str:
        return repr((random.getstate(), np.random.get_state(legacy=False)))

    with no_shape_checks():  # beartype draws from Python's generator
        before = states()
        first, second = (
            [bleu(OUTPUTS, REFERENCES), *rouge(OUTPUTS, REFERENCES)] for _ in range(2)
        )
        assert states() == before
    assert first == second


@pytest.mark.parametrize("measure", [bleu, chrf, rouge, accuracy])
@pytest.mark.parametrize(("outputs", "references"), [([], []), (["a"], ["a", "b"])])
def test_lists_that_do_not_go_together_are_refused(
    measure: Callable[..., Any], outputs: list[str], references: list[str]
) -> None:
    message = f"{len(outputs)} outputs do not go with {len(references)} references"
    with pytest.raises(ValueError, match=message):
        measure(outputs, references)


def test_a_mean_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to take the mean of: accuracy"):
        mean_score("accuracy", [])


def test_a_score_is_written_with_its_interval_and_how_it_was_measured() -> None:
    score = Score("accuracy", 0.75, 0.5, 1.0, "of 4")
    assert str(score) == "accuracy       0.75  [0.5, 1]  of 4"
