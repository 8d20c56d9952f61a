"""Recipes that turn one text into another: dates, sentences, summaries."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tfcourse.data.buckets import BucketedBatches
from tfcourse.data.bundled import docstring_pairs
from tfcourse.data.datasets import multi30k
from tfcourse.data.dates import date_pairs
from tfcourse.data.fast_bpe import FastBPE
from tfcourse.data.many_dates import LANGUAGES, language_pairs
from tfcourse.data.pairs import Batches
from tfcourse.data.tokenizers import AnyTokenizer
from tfcourse.model.transformer import Transformer
from tfcourse.recipes.settings import Settings, Training
from tfcourse.recipes.task import Recipe, Task, defaults, for_steps
from tfcourse.training.evaluation import exact_match, translate
from tfcourse.training.history import Best
from tfcourse.training.scores import Score, accuracy, bleu, chrf, rouge
from tfcourse.training.step import batch_loss

Pairs = list[tuple[str, str]]
Measure = Callable[[Sequence[str], Sequence[str]], Score]
LOOKED_AT, TESTED_ON = 500, 1000  # dates


@dataclass(frozen=True, kw_only=True)
class Dates:
    """Dates of the CLDR in two languages; `style` is full, long, medium or short."""

    source: str = "de"
    target: str = "en"
    style: str = "full"
    count: int = 20_000
    beams: int = 1


def dates_task(settings: Settings, tokenizer: AnyTokenizer | None) -> Task:
    """Draw dates: to train on, to look at, and to test on."""
    data: Dates = settings.data
    drawn = date_pairs(
        data.source,
        data.target,
        count=data.count,
        test=LOOKED_AT + TESTED_ON,
        seed=settings.training.seed,
        style=data.style,
    )
    tokens = tokenizer or drawn.tokenizer
    look, test = drawn.test[:LOOKED_AT], drawn.test[LOOKED_AT:]
    training = settings.training
    return Task(
        tokens,
        lambda: in_batches(drawn.train, tokens, training),
        lambda model: exact_match(model, look, tokens),
        Best(patience=training.patience),
        lambda model: _translation_scores(model, test, tokens, data.beams, accuracy),
    )


@dataclass(frozen=True, kw_only=True)
class LiveDates:
    """Dates of the CLDR between any two of `languages`, which commas part."""

    languages: str = ",".join(LANGUAGES)
    count: int = 60_000
    beams: int = 1


def live_dates_task(settings: Settings, tokenizer: AnyTokenizer | None) -> Task:
    """Draw pairs of languages and days; no day to look at or test on is trained on."""
    data: LiveDates = settings.data
    training = settings.training
    drawn = language_pairs(
        data.languages.split(","),
        count=data.count,
        test=LOOKED_AT + TESTED_ON,
        seed=training.seed,
    )
    tokens = tokenizer or drawn.tokenizer
    look, test = drawn.test[:LOOKED_AT], drawn.test[LOOKED_AT:]
    return Task(
        tokens,
        lambda: in_batches(drawn.train, tokens, training),
        lambda model: exact_match(model, look, tokens),
        Best(patience=training.patience),
        lambda model: _translation_scores(model, test, tokens, data.beams, accuracy),
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


def multi30k_task(settings: Settings, tokenizer: AnyTokenizer | None) -> Task:
    """Take the data set as it is; at the first call, download it."""
    data: Multi30k = settings.data
    training = settings.training
    splits = multi30k(data.source, data.target)
    train = splits["train"]
    tokens = tokenizer or _learn(train, data.merges)

    def batches() -> Batches:
        once = BucketedBatches(
            train,
            tokens,
            size=len(train),
            max_tokens=data.max_tokens,
            seed=training.seed,
        )
        return for_steps(once, training.steps)

    return Task(
        tokens,
        batches,
        lambda model: _greedy_bleu(model, splits["val"], tokens),
        Best(patience=training.patience),
        lambda model: _translation_scores(
            model, splits["test"], tokens, data.beams, as_in_papers(data.target)
        ),
    )


def as_in_papers(language: str) -> Measure:
    """Return BLEU on lower-case Moses tokens, as papers on Multi30k report it."""
    cut = moses(language)

    def score(outputs: Sequence[str], references: Sequence[str]) -> Score:
        return bleu(
            [cut(text) for text in outputs],
            [cut(text) for text in references],
            name="BLEU, tokens",
            tokenize="none",
        )

    return score


def moses(language: str) -> Callable[[str], str]:
    """Return what lowers, normalises and cuts a text, as Multi30k's own tokens are."""
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    normalizer, cutter = MosesPunctNormalizer(language), MosesTokenizer(language)

    def cut(text: str) -> str:
        return cutter.tokenize(normalizer.normalize(text.lower()), return_str=True)

    return cut


@dataclass(frozen=True, kw_only=True)
class Summaries:
    """Docstrings of the standard library and their first lines.

    `max_body` is where a docstring is cut, in tokens.
    """

    bpe_size: int = 4000
    max_body: int = 160
    beams: int = 4


def summaries_task(settings: Settings, tokenizer: AnyTokenizer | None) -> Task:
    """Take the docstrings: 200 to test on, 100 to look at, the others to train on."""
    data: Summaries = settings.data
    training = settings.training
    drawn = docstring_pairs(test=300, seed=training.seed, vocab_size=data.bpe_size)
    tokens = tokenizer or drawn.tokenizer

    def cut(pairs: Pairs) -> Pairs:
        return [
            (tokens.decode(tokens.encode(body)[: data.max_body]), summary)
            for body, summary in pairs
        ]

    train, look, test = cut(drawn.train), cut(drawn.test[:100]), drawn.test[100:]
    return Task(
        tokens,
        lambda: in_batches(train, tokens, training),
        lambda model: translation_loss(model, look, tokens),
        Best(lowest=True, patience=training.patience),
        lambda model: _summary_scores(model, cut(test), test, tokens, data.beams),
    )


def lead(body: str, words: int = 12) -> str:
    """Return the first sentence, or what there is of it in so many words."""
    sentence = re.split(r"(?<=[.!?])\s", body, maxsplit=1)[0]
    return " ".join(sentence.split()[:words])


def _learn(pairs: Pairs, merges: int) -> AnyTokenizer:
    texts = (text for pair in pairs for text in pair)
    return FastBPE.from_texts(texts, FastBPE().vocab_size + merges)


def in_batches(items: Pairs, tokenizer: AnyTokenizer, training: Training) -> Batches:
    """Return batches of equal numbers of items, enough for all steps."""
    once = Batches(items, tokenizer, size=training.batch, seed=training.seed)
    return for_steps(once, training.steps)


def answer(
    model: Transformer,
    tokenizer: AnyTokenizer,
    settings: Settings,
    texts: Sequence[str],
) -> list[str]:
    """Return the model's translation of each text, by as many beams as are set."""
    return translate(model, texts, tokenizer, num_beams=settings.data.beams)


def _greedy_bleu(model: Transformer, pairs: Pairs, tokenizer: AnyTokenizer) -> float:
    sources, references = zip(*pairs, strict=True)
    outputs = translate(model, sources, tokenizer)
    return bleu(outputs, references).value


def _translation_scores(
    model: Transformer,
    pairs: Pairs,
    tokenizer: AnyTokenizer,
    beams: int,
    first: Measure,
) -> list[Score]:
    sources, references = zip(*pairs, strict=True)
    outputs = translate(model, sources, tokenizer, num_beams=beams)
    return [f(outputs, references) for f in (first, bleu, chrf)]


def _summary_scores(
    model: Transformer, cut: Pairs, pairs: Pairs, tokenizer: AnyTokenizer, beams: int
) -> list[Score]:
    references = [summary for _, summary in pairs]
    outputs = translate(model, [body for body, _ in cut], tokenizer, num_beams=beams)
    leads = [lead(body) for body, _ in pairs]
    baseline = rouge(leads, references)
    return [
        *rouge(outputs, references),
        *(replace(score, name=f"{score.name} of lead") for score in baseline),
    ]


def translation_loss(
    model: Transformer, pairs: Pairs, tokenizer: AnyTokenizer
) -> float:
    """Return the mean loss of the right translations, in nats a token."""
    device = next(model.parameters()).device
    total = count = 0.0
    for batch in Batches(pairs, tokenizer):
        summed, tokens = batch_loss(model, batch.to(device))
        total, count = total + summed.item(), count + tokens.item()
    return total / count


DATES = Recipe(
    "dates from one language into another; half a minute on two cores",
    defaults(
        Dates(),
        Training(steps=600, lr=2e-3, warmup=30, checkpoint_every=50),
        d_model=64,
        num_heads=4,
        d_ff=256,
        max_seq_len=64,
        num_encoder_layers=2,
        num_decoder_layers=2,
    ),
    dates_task,
    answer=answer,
)

# Small enough to be sent with a page of the book: `tfcourse.course.live` exports it.
LIVE_DATES = Recipe(
    "dates between any two of 16 languages: the model that runs in the book",
    defaults(
        LiveDates(),
        Training(
            steps=3000,
            lr=2e-3,
            warmup=100,
            result="best",
            evaluate_every=250,
            checkpoint_every=250,
        ),
        d_model=64,
        num_heads=4,
        d_ff=256,
        max_seq_len=32,
        num_encoder_layers=2,
        num_decoder_layers=2,
    ),
    live_dates_task,
    answer=answer,
)

# The Transformer-Tiny of Wu et al. 2021, section 4.1, and how they train it. Theirs is
# fairseq's model, which drops nothing within attention and feed-forward unless told to.
MULTI30K = Recipe(
    "captions of pictures from English into German; hours on two cores",
    defaults(
        Multi30k(),
        Training(
            steps=8000,
            lr=0.005,
            schedule="inverse_sqrt",
            warmup=2000,
            weight_decay=0.0,
            clip=None,
            label_smoothing=0.1,
            chunk=256,
            average=10,
            evaluate_every=500,
            parts=4,
        ),
        d_model=128,
        num_heads=4,
        d_ff=256,
        max_seq_len=128,
        num_encoder_layers=4,
        num_decoder_layers=4,
        norm_order="post",
        dropout=0.3,
        inner_dropout=0.0,
    ),
    multi30k_task,
    answer=answer,
)

SUMMARIES = Recipe(
    "docstrings and their first lines, against their first sentences",
    defaults(
        Summaries(),
        Training(
            steps=600,
            batch=32,
            warmup=60,
            label_smoothing=0.1,
            chunk=256,
            result="best",
            evaluate_every=50,
        ),
        d_model=128,
        num_heads=4,
        d_ff=512,
        max_seq_len=256,
        num_encoder_layers=2,
        num_decoder_layers=2,
        dropout=0.2,
    ),
    summaries_task,
    answer=answer,
)
