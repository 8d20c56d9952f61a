"""Exact attention in tiles: no table of all scores is made, in either direction.

The softmax of a row is built up tile by tile: the largest score and the sum so far are
kept, and what has been summed is scaled down whenever a larger score comes. Sources:
Milakov & Gimelshein 2018 (the online softmax); Rabe & Staats 2021 (attention in linear
memory); Dao et al. 2022 (FlashAttention; section 3.1, backward pass: appendix B.2).
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tfcourse.model.masks import MaskRule, dense

Queries = Float[Tensor, "batch heads queries head_dim"]
Keys = Float[Tensor, "batch heads keys head_dim"]


def tiled_attention(
    query: Queries,
    key: Keys,
    value: Keys,
    *,
    scale: float,
    rule: MaskRule | None = None,
    tile: int = 128,
) -> Queries:
    """Return weights @ value with memory that grows linearly with the length.

    The rule is written out for `tile` queries at a time, and tiles in which it allows
    nothing are skipped. A query that may see nothing gets zeros. Gradients are computed
    from recomputed tiles; to ask for second derivatives raises `RuntimeError`. Sums are
    kept in the precision of the inputs: 16 bits lose digits that kernels keep.
    """
    if tile < 1:
        raise ValueError(f"tile must be at least 1, not {tile}")
    return _TiledAttention.apply(query, key, value, scale, rule, tile)


def _scores(
    query: Tensor, key: Tensor, scale: float, rule: MaskRule | None, tile: int
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield (rows, columns, scores there), -inf where the rule forbids."""
    slots = [torch.arange(part.shape[2], device=part.device) for part in (query, key)]
    batch, heads = query.shape[:2]
    for row in range(0, query.shape[2], tile):
        rows, strip = slice(row, row + tile), None
        if rule is not None:
            strip = dense(
                rule, batch=batch, heads=heads, query=slots[0][rows], key=slots[1]
            ).expand(-1, -1, -1, key.shape[2])
        for column in range(0, key.shape[2], tile):
            columns = slice(column, column + tile)
            if strip is not None and not bool(strip[..., columns].any()):
                continue
            score = query[:, :, rows] @ key[:, :, columns].mT * scale
            if strip is not None:
                score = score.masked_fill(~strip[..., columns], -torch.inf)
            yield rows, columns, score


class _TiledAttention(torch.autograd.Function):
    """Both passes, since autograd by itself would keep every tile of the first."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        rule: MaskRule | None,
        tile: int,
    ) -> Tensor:
        mixed = torch.zeros_like(query)  # Σ exp(score - top) · value so far
        total = query.new_zeros(*query.shape[:3], 1)  # Σ exp(score - top) so far
        # The largest score so far. Not -inf at first: -inf - -inf is nan.
        top = torch.full_like(total, torch.finfo(query.dtype).min)
        for rows, columns, score in _scores(query, key, scale, rule, tile):
            before = top[:, :, rows]
            higher = torch.maximum(before, score.amax(-1, keepdim=True))
            shrink, weight = (before - higher).exp(), (score - higher).exp()
            mixed[:, :, rows] *= shrink
            mixed[:, :, rows] += weight @ value[:, :, columns]
            total[:, :, rows] *= shrink
            total[:, :, rows] += weight.sum(-1, keepdim=True)
            top[:, :, rows] = higher
        total = total.masked_fill(total == 0, 1.0)  # rows that may see nothing
        mixed = mixed / total
        ctx.save_for_backward(query, key, value, mixed, top + total.log())
        ctx.options = scale, rule, tile
        return mixed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # as create_graph=True has it
            raise RuntimeError("tiled_attention has no second derivatives")
        query, key, value, mixed, log_total = ctx.saved_tensors
        scale, rule, tile = ctx.options
        d_query, d_key, d_value = map(torch.zeros_like, (query, key, value))
        # A row's weights sum to one, so lifting all its scores alike changes nothing.
        shared = (grad * mixed).sum(-1, keepdim=True)
        for rows, columns, score in _scores(query, key, scale, rule, tile):
            weight = (score - log_total[:, :, rows]).exp()
            d_weight = grad[:, :, rows] @ value[:, :, columns].mT
            d_score = weight * (d_weight - shared[:, :, rows]) * scale
            d_query[:, :, rows] += d_score @ key[:, :, columns]
            d_key[:, :, columns] += d_score.mT @ query[:, :, rows]
            d_value[:, :, columns] += weight.mT @ grad[:, :, rows]
        return d_query, d_key, d_value, None, None, None
