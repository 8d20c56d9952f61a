"""Batches of texts of like length, as many in each as a budget of tokens allows."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from tfcourse.data.pairs import Batch, Batches
from tfcourse.data.tokenizers import PAD


@dataclass(frozen=True)
class BucketedBatches(Batches):
    """Batches of items of about the same length, in a new order each epoch.

    Neither `tokens` nor `source` of a batch has more than `max_tokens` places, padding
    included, nor more than `size` rows (token budgets: Vaswani et al. 2017, section
    5.1). In all else it is like `Batches`. Which lengths stand together is the same in
    all epochs, which of several items of one length is not. An item that is longer than
    the budget raises `ValueError`.
    """

    size: int = 1024
    max_tokens: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        for item, lengths in zip(self.items, self._lengths, strict=True):
            if max(lengths) > self.max_tokens:
                raise ValueError(
                    f"max_tokens={self.max_tokens}, but {item!r} takes {max(lengths)}"
                )

    @property
    def per_epoch(self) -> int:
        """Batches in one pass over the items."""
        return len(self._cuts)

    @cached_property
    def _lengths(self) -> list[tuple[int, int]]:
        """Tokens that each item takes, and source tokens: alone, it has no padding."""
        batches = (self.make([item], self.tokenizer) for item in self.items)
        return [
            (
                batch.tokens.shape[1],
                0 if batch.source is None else batch.source.shape[1],
            )
            for batch in batches
        ]

    @cached_property
    def _cuts(self) -> list[slice]:
        """Where each batch begins and ends among the items, ordered by length."""
        cuts, start = [], 0
        for place, lengths in enumerate(sorted(self._lengths, key=_order)):
            rows = place - start + 1
            # The last is the longest so far, for so they are ordered.
            if rows > self.size or rows * max(lengths) > self.max_tokens:
                cuts.append(slice(start, place))
                start = place
        return [*cuts, slice(start, len(self.items))]

    def _plan(self, epoch: int) -> list[list[int]]:
        shuffled = random.Random(f"{self.seed} {epoch}")
        order = shuffled.sample(range(len(self.items)), len(self.items))
        order.sort(key=lambda index: _order(self._lengths[index]))  # ties stay shuffled
        return [order[c] for c in shuffled.sample(self._cuts, len(self._cuts))]


def _order(lengths: tuple[int, int]) -> tuple[int, int, int]:
    """Order by the longer side, which the budget is of, then by each."""
    return max(lengths), *lengths


def padding_share(batches: Iterable[Batch]) -> float:
    """Return which share of all places in `tokens` and `source` is padding, 0 to 1."""
    padded = places = 0
    for batch in batches:
        for tensor in (batch.tokens, batch.source):
            if tensor is not None:
                padded += int((tensor == PAD).sum())
                places += tensor.numel()
    return padded / places
