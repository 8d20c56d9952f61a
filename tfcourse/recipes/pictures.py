"""Recipes whose models read pictures: which digit it is, and where digits stand."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tfcourse.data.digits import Digits, digit_grids, handwritten_digits
from tfcourse.data.pairs import IGNORE, Batch, Batches, pad
from tfcourse.data.tokenizers import AnyTokenizer, Tokenizer
from tfcourse.generation import generate
from tfcourse.model.config import TransformerConfig
from tfcourse.model.transformer import Transformer
from tfcourse.recipes.settings import Settings, Training
from tfcourse.recipes.task import Recipe, Task, defaults, for_steps
from tfcourse.training.history import Best
from tfcourse.training.mode import mode
from tfcourse.training.scores import Score, accuracy, against_baseline
from tfcourse.variants.pictures import PictureTransformer

Seen = tuple[Tensor, str]  # a picture [height, width], and what is to be said of it
LOOKED_AT = 200  # pictures
TESTED_ON = 1000  # grids
TOGETHER = 256  # pictures that are read at once


@dataclass(frozen=True, kw_only=True)
class Scans:
    """Handwritten digits, in patches of `patch` x `patch` of their 8 x 8 pixels."""

    patch: int = 2


def digits_task(settings: Settings, tokenizer: AnyTokenizer | None) -> Task:
    """Take the digits: 360 to test on, 200 to look at, 1,237 to train on."""
    training = settings.training
    known, unknown = handwritten_digits(seed=training.seed)
    seen, test = _labelled(known), _labelled(unknown)
    look, train = seen[:LOOKED_AT], seen[LOOKED_AT:]
    tokens = tokenizer or Tokenizer.from_texts("0123456789")
    return Task(
        tokens,
        lambda: _batches(train, tokens, training),
        lambda model: _right(model, tokens, look).value,
        Best(patience=training.patience),
        lambda model: _scores_of_digits(model, tokens, seen, test),
    )


@dataclass(frozen=True, kw_only=True)
class Captions:
    """Grids of `side` x `side` cells with `number` digits in them, and captions.

    `count` grids are drawn to train on, of digits that those for testing do not show. A
    digit has 8 x 8 pixels, in patches of `patch` x `patch`.
    """

    count: int = 20_000
    side: int = 3
    number: int = 3
    patch: int = 4


def captions_task(settings: Settings, tokenizer: AnyTokenizer | None) -> Task:
    """Draw grids: to train on, and of other digits 200 to look at, 1,000 to test on."""
    data: Captions = settings.data
    training = settings.training
    known, unknown = handwritten_digits(seed=training.seed)
    generator = torch.Generator().manual_seed(training.seed)

    def draw(digits: Digits, count: int) -> list[Seen]:
        grids = digit_grids(
            digits, count, side=data.side, number=data.number, generator=generator
        )
        return list(zip(grids.images, grids.captions, strict=True))

    train = draw(known, data.count)
    others = draw(unknown, LOOKED_AT + TESTED_ON)
    look, test = others[:LOOKED_AT], others[LOOKED_AT:]
    tokens = tokenizer or Tokenizer.from_texts(caption for _, caption in train)
    return Task(
        tokens,
        lambda: _batches(train, tokens, training),
        lambda model: _right(model, tokens, look).value,
        Best(patience=training.patience),
        lambda model: _scores_of_captions(model, tokens, test),
    )


def picture_batch(items: Sequence[Seen], tokenizer: AnyTokenizer) -> Batch:
    """Batch of pictures and what to write about them, begun by the start token.

    One token is asked for where a label is all there is to say: no stop follows.
    """
    texts = [tokenizer.encode(text) for _, text in items]
    is_label = all(len(ids) == 1 for ids in texts)
    end = [] if is_label else [tokenizer.stop]
    target = [[*ids, *end] for ids in texts]
    return Batch(
        tokens=pad([[tokenizer.start, *ids[:-1]] for ids in target], tokenizer.pad),
        target=pad(target, IGNORE),
        source=torch.stack([picture for picture, _ in items]),
    )


def describe(
    model: Transformer, tokenizer: AnyTokenizer, pictures: Sequence[Tensor]
) -> list[str]:
    """Return what the model says of each picture: a text, or a label of one token."""
    device = next(model.parameters()).device
    said: list[str] = []
    with mode(model, training=False), torch.no_grad():
        for first in range(0, len(pictures), TOGETHER):
            source = torch.stack([*pictures[first : first + TOGETHER]]).to(device)
            start = torch.full_like(source[:, 0, :1], tokenizer.start).long()
            if model.decoder is None:
                new = model(start, source).argmax(-1)
            else:
                room = model.config.max_seq_len - 1
                new = generate(
                    model,
                    start,
                    max_new_tokens=room,
                    source=source,
                    stop_token=tokenizer.stop,
                )[:, 1:]
            said += [tokenizer.decode(row) for row in new.tolist()]
    return said


def build(config: TransformerConfig, settings: Settings) -> PictureTransformer:
    """Return a model that reads pictures in the patches that are set."""
    return PictureTransformer(config, settings.data.patch)


def _labelled(digits: Digits) -> list[Seen]:
    labels = map(str, digits.labels.tolist())
    return list(zip(digits.images, labels, strict=True))


def _batches(items: list[Seen], tokenizer: AnyTokenizer, training: Training) -> Batches:
    once = Batches(
        items, tokenizer, picture_batch, size=training.batch, seed=training.seed
    )
    return for_steps(once, training.steps)


def _right(model: Transformer, tokenizer: AnyTokenizer, items: Sequence[Seen]) -> Score:
    pictures, texts = zip(*items, strict=True)
    return accuracy(describe(model, tokenizer, pictures), texts)


def baseline(train: Sequence[Seen], pictures: Sequence[Tensor]) -> list[str]:
    """Return what a linear model of the pixels says."""
    images, labels = zip(*train, strict=True)
    model = LogisticRegression(max_iter=2000)
    model.fit(torch.stack(images).flatten(1).numpy(), labels)
    return list(model.predict(torch.stack([*pictures]).flatten(1).numpy()))


def _scores_of_digits(
    model: Transformer,
    tokenizer: AnyTokenizer,
    train: Sequence[Seen],
    test: Sequence[Seen],
) -> list[Score]:
    """Return accuracy, that of a linear model, and by how much ours is better."""
    pictures, labels = zip(*test, strict=True)
    mine = describe(model, tokenizer, pictures)
    theirs = baseline(train, pictures)
    return against_baseline(mine, theirs, labels, "of pixels")


def _scores_of_captions(
    model: Transformer, tokenizer: AnyTokenizer, test: Sequence[Seen]
) -> list[Score]:
    """Return how many captions are right, and how many name the right digits."""
    pictures, texts = zip(*test, strict=True)
    said = describe(model, tokenizer, pictures)
    named = partial(filter, str.isdigit)
    return [
        accuracy(said, texts),
        replace(
            accuracy(
                ["".join(named(text)) for text in said],
                ["".join(named(text)) for text in texts],
            ),
            name="digits named",
        ),
    ]


DIGITS = Recipe(
    "handwritten digits by an encoder alone, against a linear model of their pixels",
    defaults(
        Scans(),
        Training(steps=600, lr=2e-3, warmup=60, weight_decay=0.05),
        d_model=64,
        num_heads=4,
        d_ff=128,
        max_seq_len=32,
        num_encoder_layers=2,
        position="learned",
        dropout=0.1,
    ),
    digits_task,
    build=build,
)

CAPTIONS = Recipe(
    "where digits stand in a picture, in words: patches read, a sentence written",
    defaults(
        Captions(),
        Training(steps=3000, lr=1e-3, warmup=100, evaluate_every=500),
        d_model=64,
        num_heads=4,
        d_ff=256,
        max_seq_len=64,
        num_encoder_layers=2,
        num_decoder_layers=2,
        position="learned",
    ),
    captions_task,
    build=build,
)
