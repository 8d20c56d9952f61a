"""Several documents in a row: of a file where all lie end to end, or of one batch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
import torch
from jaxtyping import Int, Int32
from torch import Tensor

from tfcourse.data.files import replacing
from tfcourse.data.pairs import IGNORE, Batch, pad, side_of
from tfcourse.data.tokenizers import AnyTokenizer

Row = Int32[np.ndarray, "2 places"]


def pack(texts: Iterable[str], tokenizer: AnyTokenizer, path: Path | str) -> None:
    """Write documents as one NumPy array of 32-bit numbers, [2, tokens], into a .npy.

    The first line has the ids, with start before and stop behind each document, the
    second the number of each token's document. No documents raise `ValueError`.
    """
    ids = [[tokenizer.start, *tokenizer.encode(t), tokenizer.stop] for t in texts]
    if not ids:
        raise ValueError("there are no documents to pack")
    numbers = np.repeat(np.arange(len(ids)), [len(document) for document in ids])
    packed = np.stack([np.concatenate(ids), numbers]).astype(np.int32)
    with replacing(path) as beside, beside.open("wb") as file:
        np.save(file, packed)


@dataclass(frozen=True)
class PackedRows(Sequence[Row]):
    """The rows of a file that `pack` wrote, to make `Batches` of with `packed_batch`.

    A row is `length` tokens and the one after them, which the next row begins with, and
    their document numbers. The last row is filled with padding, as if it were one more
    document. The file stays on disk: rows are read when they are asked for. What `pack`
    cannot have written, and a length below 1, raise `ValueError`.
    """

    path: Path
    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"length must be at least 1, not {self.length}")
        if (shape := self._packed.shape)[:1] != (2,) or self._packed.dtype != np.int32:
            raise ValueError(
                f"{self.path} must be int32 of shape (2, tokens), not "
                f"{self._packed.dtype} of shape {shape}"
            )

    @cached_property
    def _packed(self) -> np.ndarray:
        try:
            return np.load(self.path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise ValueError(f"{self.path} is no .npy file: {error}") from error

    def __len__(self) -> int:
        return -(-(self._packed.shape[1] - 1) // self.length)  # the last is asked for

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        start = range(len(self))[index] * self.length
        row = np.array(self._packed[:, start : start + self.length + 1])
        filling = np.zeros((2, self.length + 1 - row.shape[1]), np.int32)
        filling[1] = row[1, -1] + 1
        return np.concatenate([row, filling], axis=1)


def packed_batch(rows: Sequence[Row], tokenizer: AnyTokenizer) -> Batch:
    """Batch for a decoder: each token is to be foretold from those of its document.

    `position` counts from where a document begins in the row. No target is asked for
    over the border of two documents, nor of padding. Give the model `mask=batch.mask`
    and `position=batch.position`, and documents do not see each other (Krell et al.
    2021).
    """
    stacked = torch.from_numpy(np.stack(rows)).long()
    tokens, following = stacked[:, 0, :-1], stacked[:, 0, 1:]
    document, next_document = stacked[:, 1, :-1], stacked[:, 1, 1:]
    asked = (document == next_document) & (following != tokenizer.pad)
    place = torch.arange(tokens.shape[1]).expand_as(tokens)
    begins = torch.zeros_like(tokens)
    begins[:, 1:] = (place[:, 1:]) * (document[:, 1:] != document[:, :-1])
    return Batch(
        tokens=tokens,
        target=following.where(asked, IGNORE),
        position=place - begins.cummax(1).values,
        document=document,
    )


def share_rows(batch: Batch) -> Batch:
    """Return the batch in fewer rows, which hold several of its rows as documents.

    The model computes the same from less padding (Krell et al. 2021): masks hide the
    other documents, positions count anew in each. There are as many rows as would be
    full at the length of the longest, but at most half as many as before, filled about
    evenly. A batch that would not shrink, that does not tell its padding, or has
    documents or pictures, is returned as it is.
    """
    pictures = batch.source is not None and batch.source.is_floating_point()
    if pictures or batch.document is not None:
        return batch
    lengths = {side: end.cpu().numpy() for side, end in batch.ends().items()}
    rows = _fill(np.stack(list(lengths.values()), axis=1))
    old = {side: getattr(batch, side) for side in lengths}
    new = {side: _places(rows, lengths[side], old[side]) for side in lengths}
    return _laid(batch, new) if _size(new) < _size(old) else batch


def _size(sides: dict[str, Tensor]) -> int:
    return sum(side.numel() for side in sides.values())


def _fill(lengths: Int[np.ndarray, "batch sides"]) -> list[list[int]]:
    """Distribute rows, the longest first, each to where the least has gathered."""
    full = int(np.max(-(-lengths.sum(0) // lengths.max(0))))
    rows: list[list[int]] = [[] for _ in range(min(full, -(-len(lengths) // 2)))]
    gathered = np.zeros((len(rows), lengths.shape[1]), dtype=int)
    for index in np.argsort(-lengths.sum(1), kind="stable"):
        row = (gathered + lengths[index]).max(1).argmin()
        rows[row].append(int(index))
        gathered[row] += lengths[index]
    return [sorted(row) for row in rows]


def _places(rows: list[list[int]], lengths: np.ndarray, side: Tensor) -> Tensor:
    """Return for each new place the number of the old one, counted row by row, or -1.

    Shape: [new rows, longest new row].
    """
    width = side.shape[1]
    places = [[i * width + p for i in row for p in range(lengths[i])] for row in rows]
    return pad(places, -1).to(side.device)


def _laid(batch: Batch, places: dict[str, Tensor]) -> Batch:
    """Return the batch with everything at its new place, and its documents numbered.

    Padding belongs to the last document of its row, so that it too sees something.
    """

    def moved(name: str, tensor: Tensor) -> Tensor:
        place = places[side_of(name)]
        filling = IGNORE if name == "target" else 0
        return tensor.flatten()[place.clamp(min=0)].masked_fill(place < 0, filling)

    told: dict[str, Tensor] = {}
    for side, place in places.items():
        prefix, width = "source_" * (side == "source"), getattr(batch, side).shape[1]
        told[f"{prefix}document"] = (place // width).cummax(1).values
        told[f"{prefix}position"] = (place % width).where(place >= 0, 0)
    if "source" in places:
        told["source_valid"] = places["source"] >= 0
    given = {k: v for k, v in vars(batch.each(moved)).items() if v is not None}
    return Batch(**(told | given))
