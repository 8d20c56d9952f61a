"""Recipes that turn one text into another: dates, sentences, summaries."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tfcourse.data.buckets import BucketedBatches
from tfcourse.data.bundled import docstring_pairs
from tfcourse.data.datasets import multi30k
from tfcourse.data.dates import date_pairs
from tfcourse.data.fast_bpe import FastBPE
from tfcourse.data.pairs import Batches
from tfcourse.model.transformer import Transformer
from tfcourse.recipes.settings import Settings, Training
from tfcourse.recipes.task import AnyKind, Recipe, Task, defaults, epochs_for
from tfcourse.training.evaluation import exact_match, translate
from tfcourse.training.history import Best
from tfcourse.training.scores import Score, accuracy, bleu, chrf, rouge

Pairs = list[tuple[str, str]]
HIGHEST = Best()


@dataclass(frozen=True, kw_only=True)
class Dates:
    """Dates of the CLDR in two languages; `style` is full, long, medium or short."""

    source: str = "de"
    target: str = "en"
    style: str = "full"
    count: int = 20_000
    beams: int = 1


def dates_task(settings: Settings, tokenizer: AnyKind | None) -> Task:
    """Draw dates: to train on, 500 to look at, and 1,000 to test on."""
    data: Dates = settings.data
    drawn = date_pairs(
        data.source,
        data.target,
        count=data.count,
        test=1500,
        seed=settings.training.seed,
        style=data.style,
    )
    tokenizer = tokenizer or drawn.tokenizer
    look, test = drawn.test[:500], drawn.test[500:]
    training = settings.training
    return Task(
        tokenizer,
        lambda: in_batches(drawn.train, tokenizer, training),
        lambda model: exact_match(model, look, tokenizer),
        replace(HIGHEST, patience=training.patience),
        lambda model: _translation_scores(model, test, tokenizer, data.beams, accuracy),
    )


@dataclass(frozen=True, kw_only=True)
class Multi30k:
    """Captions of pictures in English and German; `merges` of one BPE for both.

    `max_tokens` is the budget of a step's source and of its target, padding included.
    """

    source: str = "en"
    target: str = "de"
    merges: int = 10_000
    max_tokens: int = 8192
    beams: int = 5


def multi30k_task(settings: Settings, tokenizer: AnyKind | None) -> Task:
    """Take the data set as it is; at the first call, download it."""
    data: Multi30k = settings.data
    training = settings.training
    splits = multi30k(data.source, data.target)
    train = splits["train"]
    if tokenizer is None:
        texts = (text for pair in train for text in pair)
        tokenizer = FastBPE.from_texts(texts, FastBPE().vocab_size + data.merges)

    def batches() -> Batches:
        bucketed = BucketedBatches(
            train, tokenizer, size=len(train), max_tokens=data.max_tokens
        )
        epochs = epochs_for(training.steps, bucketed.per_epoch)
        return replace(bucketed, epochs=epochs, seed=training.seed)

    return Task(
        tokenizer,
        batches,
        lambda model: _greedy_bleu(model, splits["val"], tokenizer),
        replace(HIGHEST, patience=training.patience),
        lambda model: _translation_scores(
            model, splits["test"], tokenizer, data.beams, as_in_papers(data.target)
        ),
    )


def as_in_papers(language: str) -> Callable[[Sequence[str], Sequence[str]], Score]:
    """Return BLEU on lower-case Moses tokens, as papers on Multi30k report it."""
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    normalizer, cutter = MosesPunctNormalizer(language), MosesTokenizer(language)

    def cut(text: str) -> str:
        return cutter.tokenize(normalizer.normalize(text.lower()), return_str=True)

    def score(outputs: Sequence[str], references: Sequence[str]) -> Score:
        return bleu(
            [cut(text) for text in outputs],
            [cut(text) for text in references],
            name="BLEU, tokens",
            tokenize="none",
        )

    return score


@dataclass(frozen=True, kw_only=True)
class Summaries:
    """Docstrings of the standard library and their first lines."""

    vocab_size: int = 4000
    max_body: int = 200
    beams: int = 1


def in_batches(items: Pairs, tokenizer: AnyKind, training: Training) -> Batches:
    """Return batches of equal numbers of items, enough for all steps."""
    once = Batches(items, tokenizer, size=training.batch, seed=training.seed)
    return replace(once, epochs=epochs_for(training.steps, once.per_epoch))


def answer(
    model: Transformer, tokenizer: AnyKind, settings: Settings, texts: Sequence[str]
) -> list[str]:
    """Return the model's translation of each text, by as many beams as are set."""
    return translate(model, texts, tokenizer, num_beams=settings.data.beams)


def _greedy_bleu(model: Transformer, pairs: Pairs, tokenizer: AnyKind) -> float:
    sources, references = zip(*pairs, strict=True)
    outputs = translate(model, sources, tokenizer)
    return bleu(outputs, references).value


def _translation_scores(
    model: Transformer,
    pairs: Pairs,
    tokenizer: AnyKind,
    beams: int,
    first: Callable[[Sequence[str], Sequence[str]], Score],
) -> list[Score]:
    sources, references = zip(*pairs, strict=True)
    outputs = translate(model, sources, tokenizer, num_beams=beams)
    return [f(outputs, references) for f in (first, bleu, chrf)]
