"""The recipe of sentiment: what it reads, what it chooses, what it is compared with."""

from typing import Any

import pytest
import torch

from tfcourse.data.pairs import label_batch
from tfcourse.model.transformer import Transformer
from tfcourse.recipes import classification
from tfcourse.recipes.catalogue import recipe
from tfcourse.recipes.classification import baseline, classify
from tfcourse.recipes.run import config_of
from tfcourse.recipes.settings import Settings
from tfcourse.recipes.task import Task
from tfcourse.training.loop import fit

TINY: dict[str, Any] = {
    "d_model": 16,
    "d_ff": 16,
    "num_heads": 2,
    "num_encoder_layers": 1,
    "bpe_size": 280,
    "batch": 4,
    "dropout": 0.0,
}
REVIEWS = [
    (f"{word} {noun} no {number}", "positive" if word == "fine" else "negative")
    for number in range(3)
    for word in ("fine", "dull")
    for noun in ("plot", "cast")
]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> tuple[Transformer, Task, Settings]:
    splits = {"train": REVIEWS, "val": REVIEWS[:4]}
    monkeypatch.setattr(classification, "sst2", lambda: splits)
    monkeypatch.setattr(classification, "LOOKED_AT", 2)
    one = recipe("sst2")
    settings = one.settings.changed(TINY)
    task = one.task(settings, None)
    return one.build(config_of(settings, task.tokenizer), settings), task, settings


def test_what_is_looked_at_is_not_trained_on(
    made: tuple[Transformer, Task, Settings],
) -> None:
    items = made[1].batches().items
    assert [text for text, _ in items] == [text for text, _ in REVIEWS[2:]]
    assert {label for _, label in items} == {"0", "1"}


def test_the_likeliest_label_is_chosen_whatever_other_tokens_are_likelier(
    made: tuple[Transformer, Task, Settings],
) -> None:
    model, task, _ = made
    texts = [text for text, _ in REVIEWS]
    model.train()
    found = classify(model, texts, task.tokenizer, ["0", "1"], batch_size=5)
    assert model.training
    model.eval()
    zero, one = (task.tokenizer.encode(label)[0] for label in "01")
    for text, label in zip(texts, found, strict=True):
        batch = label_batch([(text, "0")], task.tokenizer)
        with torch.no_grad():
            logits = model(batch.tokens)[0, 0]
        assert label == ("0" if logits[zero] > logits[one] else "1")


def test_it_learns_what_one_word_says(made: tuple[Transformer, Task, Settings]) -> None:
    model, task, settings = made
    batches = [*task.batches()][:40]
    fit(model, batches, lr=1e-2)
    answer = recipe("sst2").answer
    assert answer is not None
    answers = answer(
        model, task.tokenizer, settings, ["FINE plot no 1", "dull cast no 2"]
    )
    assert answers == ["positive", "negative"]
    assert task.validate(model) == 1.0
    accuracy, of_n_grams, difference = task.score(model)
    assert (accuracy.value, of_n_grams.value, difference.value) == (1.0, 1.0, 0.0)
    assert of_n_grams.name == "of n-grams"


def test_the_baseline_learns_from_words_and_pairs() -> None:
    train = [("not good", "0"), ("good", "1"), ("not bad", "1"), ("bad", "0")] * 5
    assert baseline(train, ["not good", "good", "not bad", "bad"]) == [
        "0",
        "1",
        "1",
        "0",
    ]
