"""Batches: what is read, what is asked, what is padding, and in which order."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from tfcourse.data.pairs import (
    IGNORE,
    Batch,
    Batches,
    label_batch,
    pad,
    prefix_batch,
    text_batch,
    translation_batch,
)
from tfcourse.data.tokenizers import Tokenizer
from tfcourse.model.masks import dense

TOKENIZER = Tokenizer.from_texts(["0123456789"])  # the digit d has id d + 4
PAIRS = [("12", "345"), ("6", "7")]


def test_a_translator_reads_the_output_shifted_right() -> None:
    batch = translation_batch(PAIRS, TOKENIZER)
    assert batch.source.tolist() == [[5, 6], [10, 0]]
    assert batch.source_valid.tolist() == [[True, True], [True, False]]
    assert batch.tokens.tolist() == [[1, 7, 8, 9], [1, 11, 0, 0]]
    assert batch.target.tolist() == [[7, 8, 9, 2], [11, 2, IGNORE, IGNORE]]
    assert batch.mask is None


def test_a_prefix_is_read_and_not_asked_for() -> None:
    batch = prefix_batch(PAIRS, TOKENIZER)
    assert batch.tokens.tolist() == [[5, 6, 1, 7, 8, 9], [10, 1, 11, 0, 0, 0]]
    assert batch.target.tolist() == [
        [IGNORE, IGNORE, 7, 8, 9, 2],
        [IGNORE, 11, 2, IGNORE, IGNORE, IGNORE],
    ]
    assert batch.source is None


def test_a_language_model_is_asked_for_every_token() -> None:
    batch = text_batch(["345", "7"], TOKENIZER)
    assert batch.tokens.tolist() == [[1, 7, 8, 9], [1, 11, 0, 0]]
    assert batch.target.tolist() == [[7, 8, 9, 2], [11, 2, IGNORE, IGNORE]]


def test_a_label_is_due_at_the_first_position() -> None:
    batch = label_batch([("12", "3"), ("6", "7")], TOKENIZER)
    assert batch.tokens.tolist() == [[1, 5, 6], [1, 10, 0]]
    assert batch.target.tolist() == [[7, IGNORE, IGNORE], [11, IGNORE, IGNORE]]
    assert batch.valid.tolist() == [[True, True, True], [True, True, False]]


def test_a_label_of_several_tokens_is_named() -> None:
    with pytest.raises(ValueError, match="must be one token; '34' is 2"):
        label_batch([("12", "34")], TOKENIZER)


def test_the_masks_hide_padding_from_every_query() -> None:
    batch = translation_batch(PAIRS, TOKENIZER)
    written = dense(
        batch.source_mask, batch=2, query=torch.arange(4), key=torch.arange(2)
    ).expand(2, 1, 4, 2)
    assert written[0].all()
    assert written[1, 0].tolist() == [[True, False]] * 4


def test_padding_goes_where_it_is_asked_to() -> None:
    assert pad([[1, 2], [3]], 0).tolist() == [[1, 2], [3, 0]]
    assert pad([[1, 2], [3]], 9, left=True).tolist() == [[1, 2], [9, 3]]
    assert pad([[], []], 0).dtype == torch.long


def test_a_batch_of_packed_documents_hides_them_from_each_other() -> None:
    document = torch.tensor([[0, 0, 1, 1]])
    slots = torch.arange(4)
    tokens = torch.tensor([[5, 6, 7, 0]])
    packed = Batch(tokens, tokens, document=document)
    written = dense(packed.mask, batch=1, query=slots, key=slots)[0, 0]
    assert written.tolist() == (document == document.T).tolist()
    padded = Batch(tokens, tokens, valid=tokens != 0, document=document)
    written = dense(padded.mask, batch=1, query=slots, key=slots)[0, 0]
    assert written.tolist() == ((document == document.T) & (tokens != 0)).tolist()


def packed(pairs: list[tuple[str, str]], tokenizer: Tokenizer) -> Batch:
    batch = text_batch([text for text, _ in pairs], tokenizer)
    return replace(batch, position=batch.tokens * 2, document=batch.tokens * 3)


@pytest.mark.parametrize("make", [translation_batch, label_batch, packed])
def test_a_batch_moves_whole(make: Callable[..., Batch]) -> None:
    batch = make([("12", "3"), ("6", "7")], TOKENIZER)
    moved = batch.to("meta")
    for name, tensor in vars(batch).items():
        there = getattr(moved, name)
        assert (there is None) == (tensor is None)
        assert there is None or (there.is_meta and there.shape == tensor.shape)


def test_rows_are_chosen_in_every_tensor() -> None:
    batch = packed([("", "345"), ("", "7"), ("", "89")], TOKENIZER)
    chosen = batch.rows(torch.tensor([2, 0]))
    for name in ("tokens", "target", "position", "document"):
        assert torch.equal(getattr(chosen, name), getattr(batch, name)[[2, 0]])
    assert torch.equal(batch.rows(slice(1, None, 2)).tokens, batch.tokens[1:2])


def test_a_length_counts_what_is_not_padding() -> None:
    pairs = [("12", "345"), ("6", "7")]
    assert translation_batch(pairs, TOKENIZER).lengths().tolist() == [2 + 4, 1 + 2]
    labels = label_batch([("12", "3"), ("6", "7")], TOKENIZER)
    assert labels.lengths().tolist() == [3 + 1, 2 + 1]


@pytest.mark.parametrize(
    ("make", "source_end", "end"), [(translation_batch, 1, 2), (label_batch, None, 2)]
)
def test_columns_of_padding_are_cut_from_the_end(
    make: Callable[..., Batch], source_end: int | None, end: int
) -> None:
    pairs = [("1234", "3" if make is label_batch else "345"), ("6", "7")]
    short = make(pairs, TOKENIZER).rows(slice(1, 2))
    assert short.tokens.shape[1] > end
    cut = short.trimmed()
    alone = make(pairs[1:], TOKENIZER)
    assert cut.tokens.shape == (1, end)
    for name, tensor in vars(alone).items():
        assert tensor is None or torch.equal(getattr(cut, name), tensor), name
    assert source_end is None or cut.source.shape == (1, source_end)


def test_a_token_that_an_encoder_sees_is_not_cut() -> None:
    tokens = torch.tensor([[5, 6, 7]])
    target = torch.tensor([[5, IGNORE, IGNORE]])
    assert Batch(tokens, target).trimmed().tokens.shape == (1, 3)
    seen = torch.tensor([[True, True, False]])
    assert Batch(tokens, target, valid=seen).trimmed().tokens.shape == (1, 2)
    assert Batch(tokens, target, source=tokens).trimmed().tokens.shape == (1, 1)
    nothing = target.masked_fill(target > 0, IGNORE)
    assert Batch(tokens, nothing, source=tokens).trimmed().tokens.shape == (1, 1)


def numbers(count: int) -> list[tuple[str, str]]:
    return [(f"{n:03}", f"{n:03}") for n in range(count)]


def contents(batches: Batches) -> list[list[str]]:
    return [[TOKENIZER.decode(row) for row in batch.tokens] for batch in batches]


def test_each_epoch_has_every_item_once_in_a_new_order() -> None:
    batches = Batches(numbers(10), TOKENIZER, size=4, epochs=3)
    found = contents(batches)
    assert [len(rows) for rows in found] == [4, 4, 2] * 3
    assert len(batches) == 9
    assert batches.per_epoch == 3
    epochs = [[row for rows in found[i : i + 3] for row in rows] for i in (0, 3, 6)]
    for epoch in epochs:
        assert sorted(epoch) == [source for source, _ in numbers(10)]
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_batch_depends_on_its_number_and_the_seed_alone() -> None:
    batches = Batches(numbers(10), TOKENIZER, size=4, epochs=3, seed=1)
    found = contents(batches)
    torch.manual_seed(5)
    assert contents(batches) == found
    for k in (8, 0, 4):
        assert [TOKENIZER.decode(row) for row in batches[k].tokens] == found[k]
    assert contents(Batches(numbers(10), TOKENIZER, size=4, epochs=3, seed=2)) != found


@pytest.mark.parametrize("k", [-1, 9])
def test_there_is_no_batch_beyond_the_last(k: int) -> None:
    with pytest.raises(IndexError, match=rf"batch {k} is outside 0 \.\.\. 8"):
        Batches(numbers(10), TOKENIZER, size=4, epochs=3)[k]


@pytest.mark.parametrize("name", ["size", "epochs"])
def test_sizes_that_cannot_be_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        Batches(numbers(3), TOKENIZER, **{name: 0})


def test_batches_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no items"):
        Batches([], TOKENIZER)
