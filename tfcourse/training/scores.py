"""How good answers are: BLEU, chrF, ROUGE and accuracy, each with its interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

# sacrebleu and rouge_score are imported by the functions that need them.

RESAMPLES = 1000


@dataclass(frozen=True)
class Score:
    """A figure with its 95 % interval, and how exactly it was measured."""

    name: str
    value: float
    low: float
    high: float
    how: str = ""

    def __str__(self) -> str:
        interval = f"[{self.low:.4g}, {self.high:.4g}]"
        return f"{self.name:<14} {self.value:.4g}  {interval}  {self.how}".rstrip()


def bleu(
    outputs: Sequence[str],
    references: Sequence[str],
    *,
    name: str = "BLEU",
    lowercase: bool = False,
    tokenize: str = "13a",
) -> Score:
    """Return corpus BLEU, 0 to 100, by sacrebleu (Papineni et al. 2002; Post 2018).

    `how` is sacrebleu's signature. `tokenize` is "none" for texts that are cut into
    tokens by spaces already.
    """
    from sacrebleu.metrics import BLEU

    # sacrebleu warns of texts that look like tokens, unless they are meant to be.
    metric = BLEU(lowercase=lowercase, tokenize=tokenize, force=tokenize == "none")
    return _by_sacrebleu(name, metric, outputs, references)


def chrf(outputs: Sequence[str], references: Sequence[str]) -> Score:
    """Return chrF2, 0 to 100: F-score of character n-grams (Popovic 2015)."""
    from sacrebleu.metrics import CHRF

    return _by_sacrebleu("chrF", CHRF(), outputs, references)


def rouge(outputs: Sequence[str], references: Sequence[str]) -> list[Score]:
    """Return mean ROUGE-1, -2 and -L F-scores, 0 to 100, with stems (Lin 2004)."""
    from rouge_score.rouge_scorer import RougeScorer

    _check(outputs, references)
    kinds = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
    scorer = RougeScorer(list(kinds), use_stemmer=True)
    each = [
        scorer.score(reference, output)
        for output, reference in zip(outputs, references, strict=True)
    ]
    return [
        mean_score(name, [100 * score[kind].fmeasure for score in each], "stems")
        for kind, name in kinds.items()
    ]


def accuracy(answers: Sequence[str], references: Sequence[str]) -> Score:
    """Return the share of answers that are the expected one, 0 to 1."""
    _check(answers, references)
    right = [a == b for a, b in zip(answers, references, strict=True)]
    return mean_score("accuracy", [float(r) for r in right], f"of {len(right)}")


def against_baseline(
    answers: Sequence[str],
    theirs: Sequence[str],
    references: Sequence[str],
    name: str,
) -> list[Score]:
    """Return accuracy, that of a baseline, and by how much the first is better."""
    _check(theirs, references)
    ahead = [
        float(a == right) - float(b == right)
        for a, b, right in zip(answers, theirs, references, strict=True)
    ]
    return [
        accuracy(answers, references),
        replace(accuracy(theirs, references), name=name),
        mean_score("difference", ahead, "of the two, on the same items"),
    ]


def mean_score(name: str, values: Sequence[float], how: str = "") -> Score:
    """Return the mean of values, one for each item, with a bootstrap interval.

    The items are drawn again, with replacement, 1,000 times (Efron 1979; Koehn 2004).
    """
    if not values:
        raise ValueError(f"there is nothing to take the mean of: {name}")
    each = np.asarray(values, dtype=float)
    low, high = _interval(len(each), lambda chosen: float(each[chosen].mean()))
    return Score(name, float(each.mean()), low, high, how)


def _by_sacrebleu(
    name: str, metric: Any, outputs: Sequence[str], references: Sequence[str]
) -> Score:
    _check(outputs, references)
    whole = metric.corpus_score(list(outputs), [list(references)])
    # sacrebleu's own bootstrap is private too, and draws from NumPy's global generator
    # after seeding it; what each sentence adds to the counts is all it takes.
    counts = np.array(
        metric._extract_corpus_statistics(list(outputs), [list(references)])
    )

    def score(chosen: np.ndarray) -> float:
        summed = counts[chosen].sum(0).tolist()
        return float(metric._compute_score_from_stats(summed).score)

    low, high = _interval(len(outputs), score)
    return Score(name, whole.score, low, high, str(metric.get_signature()))


def _interval(count: int, score: Callable[[np.ndarray], float]) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of the score of resampled items."""
    generator = np.random.default_rng(0)
    scores = [score(generator.integers(count, size=count)) for _ in range(RESAMPLES)]
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)


def _check(outputs: Sequence[str], references: Sequence[str]) -> None:
    if not outputs or len(outputs) != len(references):
        raise ValueError(
            f"{len(outputs)} outputs do not go with {len(references)} references"
        )
