"""Planted bugs: each patches one thing and puts it back at the block's end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from torch import Tensor

from tfcourse.model import attention


@contextmanager
def softmax_over_queries() -> Iterator[None]:
    """Normalise each key's scores over the queries, as `softmax(dim=-2)` does."""

    def wrong(
        query: Tensor, key: Tensor, value: Tensor, *, scale: float, **options: Any
    ) -> Tensor:
        score = query @ key.mT * scale
        mask = options.get("mask")
        if options.get("is_causal"):
            mask = score.new_ones(score.shape[-2:]).tril().bool()
        if mask is not None:
            score = score.masked_fill(~mask, float("-inf"))
        return score.softmax(dim=-2).nan_to_num() @ value

    with patch.object(attention, "fused_attention", wrong):
        yield


@contextmanager
def heads_cut_across_positions() -> Iterator[None]:
    """Split heads by `view` alone, so that a head gets pieces of several positions."""

    def wrong(self: attention.Attention, x: Tensor) -> Tensor:
        return x.contiguous().view(len(x), -1, x.shape[1], self.head_dim)

    with patch.object(attention.Attention, "_split_heads", wrong):
        yield
