"""Packed rows: every token once, and documents as if each were alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import no_shape_checks, small_model

from tfcourse.data.packed import PackedRows, pack, packed_batch, share_rows
from tfcourse.data.pairs import (
    IGNORE,
    Batch,
    Batches,
    label_batch,
    text_batch,
    translation_batch,
)
from tfcourse.data.tokenizers import Tokenizer
from tfcourse.model.masks import same_document

TOKENIZER = Tokenizer.from_texts(["0123456789"])  # the digit d has id d + 4
TEXTS = ["12", "", "345678", "9"]
IDS = [1, 5, 6, 2, 1, 2, 1, 7, 8, 9, 10, 11, 12, 2, 1, 13, 2]
NUMBERS = [0] * 4 + [1] * 2 + [2] * 8 + [3] * 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    pack(TEXTS, TOKENIZER, tmp_path / "new" / "packed.npy")
    return tmp_path / "new" / "packed.npy"


def test_one_file_has_all_tokens_and_the_numbers_of_their_documents(path: Path) -> None:
    assert np.load(path).tolist() == [IDS, NUMBERS]
    assert list(path.parent.iterdir()) == [path]


def test_a_batch_asks_for_the_next_token_of_the_same_document(path: Path) -> None:
    rows = PackedRows(path, 8)
    batch = packed_batch(rows[:], TOKENIZER)
    _ = IGNORE
    assert batch.tokens.tolist() == [IDS[:8], IDS[8:16]]
    assert batch.target.tolist() == [
        [5, 6, 2, _, 2, _, 7, 8],
        [9, 10, 11, 12, 2, _, 13, 2],
    ]
    assert batch.document.tolist() == [NUMBERS[:8], NUMBERS[8:16]]
    assert batch.position.tolist() == [
        [0, 1, 2, 3, 0, 1, 0, 1],
        [0, 1, 2, 3, 4, 5, 0, 1],
    ]


def test_the_last_row_is_filled_with_a_document_of_padding(path: Path) -> None:
    batch = packed_batch([PackedRows(path, 12)[1]], TOKENIZER)
    assert batch.tokens.tolist() == [[12, 2, 1, 13, 2] + [0] * 7]
    assert batch.target.tolist() == [[2, IGNORE, 13, 2] + [IGNORE] * 8]
    assert batch.document.tolist() == [[2, 2, 3, 3, 3] + [4] * 7]
    assert batch.position.tolist() == [[0, 1, 0, 1, 2, 0, 1, 2, 3, 4, 5, 6]]


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 16, 17, 40])
def test_every_token_is_asked_for_once_whatever_the_length(
    path: Path, length: int
) -> None:
    rows = PackedRows(path, length)
    batch = packed_batch(list(rows), TOKENIZER)
    assert batch.tokens.shape == (len(rows), length)
    asked = batch.target[batch.target != IGNORE].tolist()
    assert asked == [i for i, n in zip(IDS, [-1, *NUMBERS], strict=False) if i != 1]


def test_documents_in_a_row_get_the_logits_that_they_get_alone(tmp_path: Path) -> None:
    texts = ["12", "345", "6789", "1", "98765"]
    pack(texts, TOKENIZER, tmp_path / "packed.npy")
    model = small_model(
        vocab_size=TOKENIZER.vocab_size, max_seq_len=32, position="learned"
    )
    (row,) = PackedRows(tmp_path / "packed.npy", 32)
    batch = packed_batch([row], TOKENIZER)
    logits = model(batch.tokens, mask=batch.mask, position=batch.position)[0]
    rule = same_document(batch.document)
    again = model(batch.tokens, mask=rule, position=batch.position)[0]
    torch.testing.assert_close(again, logits)
    for number, text in enumerate(texts):
        alone = text_batch([text], TOKENIZER)
        own = logits[batch.document[0] == number][:-1]  # without the stop at the end
        torch.testing.assert_close(own, model(alone.tokens)[0], atol=1e-5, rtol=1e-5)
    assert logits.isfinite().all()


def test_batches_of_rows_depend_on_their_number_and_the_seed_alone(path: Path) -> None:
    def batches(seed: int) -> Batches:
        rows = PackedRows(path, 3)
        return Batches(rows, TOKENIZER, packed_batch, size=4, epochs=2, seed=seed)

    def equal(one: Batch, other: Batch) -> bool:
        return torch.equal(one.tokens, other.tokens)

    first = list(batches(0))
    assert [len(batch.tokens) for batch in first] == [4, 2, 4, 2]
    assert all(equal(batches(0)[k], first[k]) for k in (3, 0, 2))
    assert not all(map(equal, batches(1), first))
    assert not equal(first[0], first[2])
    for epoch in (first[:2], first[2:]):
        found = torch.cat([batch.tokens for batch in epoch]).flatten().tolist()
        assert sorted(found) == sorted([*IDS, 0])


def test_the_file_stays_on_disk_and_is_not_written_to(path: Path) -> None:
    rows = PackedRows(path, 4)
    assert isinstance(rows._packed, np.memmap)
    rows[0][:] = 9
    assert rows[0][0].tolist() == IDS[:5]
    assert np.load(path).tolist() == [IDS, NUMBERS]


def test_rows_are_counted_as_a_sequence_is(path: Path) -> None:
    rows = PackedRows(path, 4)
    assert len(rows) == len(list(rows)) == 4
    assert np.array_equal(rows[-1], rows[3])
    for beyond in (4, -5):
        with pytest.raises(IndexError):
            rows[beyond]


def test_what_cannot_be_packed_or_read_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="no documents"):
        pack([], TOKENIZER, path)
    with pytest.raises(ValueError, match="length must be at least 1, not 0"):
        PackedRows(path, 0)
    np.save(path, np.zeros((3, 5), np.int32))
    with pytest.raises(
        ValueError, match=r"int32 of shape \(2, tokens\), not .*\(3, 5\)"
    ):
        PackedRows(path, 4)
    np.save(path, np.zeros((2, 5)))
    with pytest.raises(ValueError, match="not float64"):
        PackedRows(path, 4)
    np.save(path, np.zeros((), np.int32))
    with pytest.raises(ValueError, match=r"not int32 of shape \(\)"):
        PackedRows(path, 4)
    np.save(path, np.array([{}]), allow_pickle=True)
    with pytest.raises(
        ValueError, match=r"packed.npy is no .npy file: .*[Pp]ython obj"
    ):
        PackedRows(path, 4)
    path.write_text("hello")
    with pytest.raises(ValueError, match=r"packed.npy is no .npy file"):
        PackedRows(path, 4)


# rows that share a row

LABELS = [("1", "3"), ("234567", "4"), ("89", "5"), ("7", "6"), ("65432", "7")]


def test_rows_lie_one_after_another_and_padding_at_the_end() -> None:
    whole = label_batch(LABELS, TOKENIZER)
    shared = share_rows(whole)
    _ = IGNORE
    # Lengths are 2, 7, 3, 2, 6: 20 places are three rows of at most 7.
    assert shared.tokens.tolist() == [
        [1, 6, 7, 8, 9, 10, 11],
        [1, 10, 9, 8, 7, 6, 0],
        [1, 5, 1, 12, 13, 1, 11],
    ]
    assert shared.target.tolist() == [
        [8, _, _, _, _, _, _],
        [11, _, _, _, _, _, _],
        [7, _, 9, _, _, 10, _],
    ]
    assert shared.document.tolist() == [[1] * 7, [4] * 7, [0, 0, 2, 2, 2, 3, 3]]
    assert shared.valid.tolist() == [[True] * 7, [True] * 6 + [False], [True] * 7]
    assert shared.position.tolist() == [
        [0, 1, 2, 3, 4, 5, 6],
        [0, 1, 2, 3, 4, 5, 0],
        [0, 1, 0, 1, 2, 0, 1],
    ]
    assert shared.source is shared.source_document is shared.source_position is None


def test_a_source_goes_where_its_tokens_go() -> None:
    pairs = [("1", "23456"), ("12345", "1"), ("2", "3"), ("4", "567"), ("", "")]
    whole = translation_batch(pairs, TOKENIZER)
    shared = share_rows(whole)
    assert len(shared.tokens) == len(shared.source) == 3
    assert shared.valid is None
    for number, (source, target) in enumerate(pairs):
        ids, answer = TOKENIZER.encode(source), TOKENIZER.encode(target)
        (row,) = {int(r) for r in (shared.document == number).nonzero()[:, 0]}
        own = (shared.document[row] == number) & (shared.target[row] != IGNORE)
        assert shared.tokens[row, own].tolist() == [1, *answer]
        assert shared.target[row, own].tolist() == [*answer, 2]
        assert shared.position[row, own].tolist() == list(range(len(answer) + 1))
        read = (shared.source_document[row] == number) & shared.source_valid[row]
        assert shared.source[row, read].tolist() == ids
        assert shared.source_position[row, read].tolist() == list(range(len(ids)))
    filling = shared.source[~shared.source_valid]
    assert (filling == 0).all()
    assert shared.source_valid.sum() == sum(len(source) for source, _ in pairs)


def test_many_short_rows_share_one() -> None:
    pairs = [("1" * 20, "2" * 20), *[("3", "4")] * 30]
    shared = share_rows(translation_batch(pairs, TOKENIZER))
    assert shared.tokens.shape == (4, 21)  # 21 and 30 times 2 places
    assert len(set(shared.document[0].tolist())) == 1  # the long one has a row alone


def test_padding_on_the_left_and_given_positions_stay_with_their_tokens() -> None:
    tokens = torch.tensor([[0, 0, 0, 5], [0, 6, 7, 8], [9, 0, 0, 0], [4, 3, 0, 0]])
    position = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 2], [7, 0, 0, 0], [4, 5, 0, 0]])
    target = tokens.where(tokens > 0, IGNORE)
    whole = Batch(tokens, target, valid=tokens > 0, position=position)
    shared = share_rows(whole)
    assert shared.tokens.tolist() == [[0, 0, 0, 5, 4, 3], [0, 6, 7, 8, 9, 0]]
    assert shared.valid.tolist() == (shared.tokens > 0).tolist()
    assert shared.position.tolist() == [[0, 0, 0, 0, 4, 5], [0, 0, 1, 2, 7, 0]]
    assert shared.document.tolist() == [[0, 0, 0, 0, 3, 3], [1, 1, 1, 1, 2, 2]]


def test_what_would_not_shrink_is_returned_as_it_is(path: Path) -> None:
    full, seen = torch.ones(4, 3, dtype=torch.long), torch.ones(4, 3, dtype=torch.bool)
    nothing = torch.full_like(full, IGNORE)
    for batch in (
        text_batch(["123", "1"], TOKENIZER),  # does not tell its padding
        packed_batch(list(PackedRows(path, 8)), TOKENIZER),  # has documents
        Batch(full, full, valid=seen),
        Batch(full[:1], full[:1], source=full[:1]),
        Batch(full, nothing, source=torch.rand(4, 2, 2)),
    ):
        with no_shape_checks():
            assert share_rows(batch) is batch
    shared = share_rows(Batch(full, nothing, source=full))
    assert shared.tokens.shape == (2, 2)  # a place each, though nothing is asked for
    assert shared.source.shape == (2, 6)
    assert shared.source_valid.all()
