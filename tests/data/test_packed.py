"""Packed rows: every token once, and documents as if each were alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import small_model

from tfcourse.data.packed import PackedRows, pack, packed_batch
from tfcourse.data.pairs import IGNORE, Batch, Batches, text_batch
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
