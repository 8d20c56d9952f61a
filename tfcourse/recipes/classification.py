"""The recipe of sentiment: an encoder that reads a sentence and names its sense."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from tfcourse.data.datasets import sst2
from tfcourse.data.fast_bpe import FastBPE
from tfcourse.data.pairs import Batches, label_batch
from tfcourse.data.tokenizers import AnyTokenizer
from tfcourse.model.transformer import Transformer
from tfcourse.recipes.settings import Settings, Training
from tfcourse.recipes.task import Recipe, Task, defaults, for_steps
from tfcourse.training.history import Best
from tfcourse.training.mode import mode
from tfcourse.training.scores import Score, accuracy, against_baseline

Pairs = list[tuple[str, str]]
SENSES = {"0": "negative", "1": "positive"}  # a label is to be one token
LOOKED_AT = 700


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """Sentences of film reviews, in a BPE of `bpe_size`."""

    bpe_size: int = 4000


def sst2_task(settings: Settings, tokenizer: AnyTokenizer | None) -> Task:
    """Take the data set, 700 of its training sentences to look at; test on its dev."""
    data: Sentences = settings.data
    training = settings.training
    splits = {name: _in_tokens(pairs) for name, pairs in sst2().items()}
    train, look = splits["train"][LOOKED_AT:], splits["train"][:LOOKED_AT]
    test = splits["val"]
    texts = (text for text, _ in train)
    tokens = tokenizer or FastBPE.from_texts(texts, data.bpe_size)

    def batches() -> Batches:
        once = Batches(
            train, tokens, label_batch, size=training.batch, seed=training.seed
        )
        return for_steps(once, training.steps)

    return Task(
        tokens,
        batches,
        lambda model: _score(model, look, tokens).value,
        Best(patience=training.patience),
        lambda model: _scores(model, tokens, splits["train"], test),
    )


@torch.no_grad()
def classify(
    model: Transformer,
    texts: Sequence[str],
    tokenizer: AnyTokenizer,
    labels: Sequence[str],
    batch_size: int = 256,
) -> list[str]:
    """Return the likeliest of the labels, each one token, for each text."""
    device = next(model.parameters()).device
    ids = torch.tensor([tokenizer.encode(label)[0] for label in labels], device=device)
    chosen: list[str] = []
    with mode(model, training=False):
        for first in range(0, len(texts), batch_size):
            asked = [(text, labels[0]) for text in texts[first : first + batch_size]]
            batch = label_batch(asked, tokenizer).to(device)
            hidden = model(batch.tokens, mask=batch.mask, output="hidden")
            logits = model.head(hidden[:, :1])[:, 0, ids]
            chosen += [labels[place] for place in logits.argmax(-1).tolist()]
    return chosen


def answer(
    model: Transformer, tokenizer: AnyTokenizer, _: Settings, texts: Sequence[str]
) -> list[str]:
    """Return "negative" or "positive" for each text, in any case and spacing."""
    lowered = [text.lower() for text in texts]
    found = classify(model, lowered, tokenizer, list(SENSES))
    return [SENSES[label] for label in found]


def baseline(train: Pairs, texts: Sequence[str]) -> list[str]:
    """Return what a linear model of words and pairs of words says (Wang and Manning
    2012 show how strong these are): logistic regression of their tf-idf."""
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", sublinear_tf=True),
        LogisticRegression(C=10.0, max_iter=1000),
    )
    model.fit(*map(list, zip(*train, strict=True)))
    return list(model.predict(list(texts)))


def _scores(
    model: Transformer, tokenizer: AnyTokenizer, train: Pairs, test: Pairs
) -> list[Score]:
    """Return accuracy, that of the baseline, and by how much the model is better."""
    texts, labels = zip(*test, strict=True)
    mine = classify(model, texts, tokenizer, list(SENSES))
    theirs = baseline(train, texts)
    return against_baseline(mine, theirs, labels, "of n-grams")


def _score(model: Transformer, pairs: Pairs, tokenizer: AnyTokenizer) -> Score:
    texts, labels = zip(*pairs, strict=True)
    return accuracy(classify(model, texts, tokenizer, list(SENSES)), labels)


def _in_tokens(pairs: Pairs) -> Pairs:
    token = {sense: label for label, sense in SENSES.items()}
    return [(text, token[sense]) for text, sense in pairs]


SST2 = Recipe(
    "the sense of film reviews, by an encoder alone, against words and pairs of words",
    defaults(
        Sentences(),
        Training(
            steps=800,
            batch=64,
            lr=5e-4,
            warmup=80,
            weight_decay=0.05,
            chunk=64,
            result="best",
        ),
        d_model=128,
        num_heads=4,
        d_ff=256,
        max_seq_len=128,
        num_encoder_layers=2,
        dropout=0.3,
    ),
    sst2_task,
    answer=answer,
)
