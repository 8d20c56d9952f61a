"""The recipe of a language model: its texts, its loss, and how it goes on."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tfcourse.data.fast_bpe import FastBPE
from tfcourse.data.tokenizers import Tokenizer
from tfcourse.generation import greedy
from tfcourse.model.transformer import Transformer
from tfcourse.recipes import language_model
from tfcourse.recipes.catalogue import recipe
from tfcourse.recipes.language_model import complete, loss_per_token, read_text
from tfcourse.recipes.run import config_of
from tfcourse.recipes.settings import Settings
from tfcourse.recipes.task import Task

TINY: dict[str, Any] = {
    "d_model": 16,
    "d_ff": 16,
    "num_heads": 2,
    "num_decoder_layers": 1,
    "max_seq_len": 8,
    "batch": 3,
}
POEM = "".join(chr(97 + place % 7) for place in range(400))


@pytest.fixture
def poem(tmp_path: Path) -> Path:
    path = tmp_path / "poem.txt"
    path.write_text(POEM, encoding="utf-8")
    return path


def made(**changes: Any) -> tuple[Transformer, Task, Settings]:
    one = recipe("language-model")
    settings = one.settings.changed({**TINY, **changes})
    task = one.task(settings, None)
    return one.build(config_of(settings, task.tokenizer), settings), task, settings


def test_a_file_is_cut_into_train_look_and_test(poem: Path) -> None:
    train, look, test = read_text(str(poem), seed=0)
    assert [len(part[0]) for part in (train, look, test)] == [342, 18, 40]
    assert train[0] + look[0] + test[0] == POEM


def test_shakespeare_is_tested_on_the_last_tenth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = {"train": POEM[:360], "val": POEM[360:]}
    monkeypatch.setattr(language_model, "tiny_shakespeare", lambda: parts)
    train, look, test = read_text("shakespeare", seed=0)
    assert (train[0] + look[0], test) == (parts["train"], [parts["val"]])


def test_no_topic_of_the_reference_is_in_two_parts() -> None:
    parts = read_text("reference", seed=0)
    assert [len(part) for part in parts[1:]] == [4, 4]
    train, look, test = map(set, parts)
    assert not train & look
    assert not train & test
    assert not look & test
    assert len(train) > 60
    assert read_text("reference", seed=1)[2] != parts[2]


def test_a_text_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"reference, shakespeare or a file, not '.*x'"
    ):
        read_text(str(tmp_path / "x"), seed=0)


def test_batches_are_rows_of_the_model_s_length_for_all_steps(poem: Path) -> None:
    _, task, _ = made(text=str(poem), steps=50)
    batches = task.batches()
    assert len(batches) >= 50
    assert batches[0].tokens.shape == (3, 8)
    assert batches[0].document is not None


@pytest.mark.parametrize(("tokens", "size"), [("character", 4 + 7), ("bpe", 262)])
def test_tokens_are_characters_or_bpe(poem: Path, tokens: str, size: int) -> None:
    _, task, _ = made(text=str(poem), tokens=tokens, bpe_size=262)
    assert task.tokenizer.vocab_size == size


def test_the_file_of_tokens_goes_with_the_rows(poem: Path) -> None:
    _, task, _ = made(text=str(poem))
    batches = task.batches()
    path = batches.items.path
    assert path.exists()
    del batches
    assert not path.exists()


def test_the_loss_is_that_of_each_token_once(poem: Path) -> None:
    model, task, settings = made(text=str(poem), dropout=0.5)
    model.train()
    text = POEM[:21]
    batches = language_model.in_rows([text], task.tokenizer, 8, settings.training)
    score = loss_per_token(model, batches)
    ids = [task.tokenizer.start, *task.tokenizer.encode(text), task.tokenizer.stop]
    model.eval()
    losses = []
    for start in range(0, len(ids) - 1, 8):
        row = torch.tensor([ids[start : start + 9]])
        with torch.no_grad():
            logits = model(row[:, :-1])
        losses += F.cross_entropy(logits[0], row[0, 1:], reduction="none").tolist()
    assert len(losses) == 22
    assert score.value == pytest.approx(sum(losses) / 22, rel=1e-5)
    assert score.low < score.value < score.high
    assert "22 tokens" in score.how


def test_the_best_is_the_lowest_loss_on_text_that_no_test_has(
    poem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, task, _ = made(text=str(poem), patience=2)
    assert (task.best.lowest, task.best.patience) == (True, 2)
    seen: list[list[str]] = []

    def note(texts: list[str], *_: Any) -> Any:
        seen.append(texts)
        raise LookupError

    monkeypatch.setattr(language_model, "in_rows", note)
    for look in (task.validate, task.score):
        with pytest.raises(LookupError):
            look(model)
    _, expected_look, expected_test = read_text(str(poem), seed=0)
    assert seen == [expected_look, expected_test]


def test_the_model_begins_near_a_uniform_guess(poem: Path) -> None:
    model, task, _ = made(text=str(poem))
    assert task.validate(model) == pytest.approx(math.log(11), abs=0.05)


class Alphabet(Transformer):
    """Always goes on with the next letter of a, b ... g, and notes what it reads."""

    read: list[int]

    def forward(self, tokens: Any, *_: Any, **options: Any) -> Any:
        self.read.append(tokens.shape[1])
        following = 4 + (tokens[:, -1:] - 4 + 1) % 7
        cache = options.get("cache")
        if cache is not None:
            cache.advance(tokens.shape[1])
        return F.one_hot(following, self.config.vocab_size).float()


@pytest.fixture
def alphabet(poem: Path) -> tuple[Alphabet, Tokenizer]:
    _, task, settings = made(text=str(poem))
    model = Alphabet(config_of(settings, task.tokenizer))
    model.read = []
    assert isinstance(task.tokenizer, Tokenizer)
    return model, task.tokenizer


@pytest.mark.parametrize("count", [1, 5, 30])
def test_a_text_goes_on_beyond_the_room_of_the_model(
    alphabet: tuple[Alphabet, Tokenizer], count: int
) -> None:
    model, tokenizer = alphabet
    pieces = list(complete(model, tokenizer, "ab", count, greedy))
    assert "ab" + "".join(pieces) == POEM[: 2 + count]
    assert len(pieces) == count
    assert max(model.read) <= 8


def test_a_prompt_longer_than_the_room_is_read_from_its_end(
    alphabet: tuple[Alphabet, Tokenizer],
) -> None:
    model, tokenizer = alphabet
    assert "".join(complete(model, tokenizer, POEM[:30], 3, greedy)) == POEM[30:33]
    assert model.read[0] == 4


def test_a_text_ends_where_its_document_does(
    alphabet: tuple[Alphabet, Tokenizer],
) -> None:
    model, tokenizer = alphabet
    chosen = iter([[5], [tokenizer.stop], [6]])

    def choose(_: torch.Tensor) -> torch.Tensor:
        return torch.tensor(next(chosen))

    assert list(complete(model, tokenizer, "a", 9, choose)) == ["b"]


def test_a_character_of_several_tokens_is_written_when_it_is_whole() -> None:
    one = recipe("language-model")
    settings = one.settings.changed(TINY)
    tokenizer = FastBPE()
    model = one.build(config_of(settings, tokenizer), settings)
    euro = iter([[index] for index in tokenizer.encode("€!")])
    found = complete(model, tokenizer, "5 ", 4, lambda _: torch.tensor(next(euro)))
    assert list(found) == ["€", "!"]
