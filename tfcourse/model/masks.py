"""Mask rules: which query may attend to which key. True always means *may attend*.

A rule is a function of four index tensors (batch, head, query, key) that broadcast
against one another, and returns a boolean tensor: the signature of FlexAttention's
`mask_mod`. Query and key are *slots*, counted from the first token that the layer has
seen, so that the same rule serves a whole sequence and a cached step.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

MaskRule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def causal(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Allow a query to see itself and what stands before it."""
    return key <= query


def sliding_window(size: int) -> MaskRule:
    """Allow the `size` nearest slots up to and including the query's own."""
    if size < 1:
        raise ValueError(f"a sliding window needs a size of at least 1, not {size}")

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query - key < size)

    return rule


def padding(valid: Bool[Tensor, "batch keys"]) -> MaskRule:
    """Allow real tokens only; `valid` is True where a token is real."""
    if valid.dtype != torch.bool or valid.dim() != 2:
        raise ValueError(
            "padding takes a boolean tensor [batch, keys] that is True at real tokens, "
            f"not {valid.dtype} of shape {tuple(valid.shape)}"
        )

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        _check_shape("padding mask", valid, batch, key)
        return valid[batch, key]

    return rule


def same_document(
    document: Int[Tensor, "batch slots"],
    of_keys: Int[Tensor, "batch keys"] | None = None,
) -> MaskRule:
    """Allow keys of the query's own document, where several are packed in a row.

    `document` numbers the queries, and the keys too, unless they are a memory's.
    """
    of_keys = document if of_keys is None else of_keys

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        _check_shape("document numbers", of_keys, batch, key)
        return document[batch, query] == of_keys[batch, key]

    return rule


def _check_shape(name: str, table: Tensor, batch: Tensor, key: Tensor) -> None:
    # FlexAttention calls a rule with scalars, which say nothing of the whole shape.
    if batch.dim() and table.shape != (batch.numel(), key.numel()):
        raise ValueError(
            f"{name}: the shape is {tuple(table.shape)}, but there are "
            f"{batch.numel()} rows and {key.numel()} keys"
        )


def both(first: MaskRule | None, second: MaskRule | None) -> MaskRule | None:
    """Allow what both rules allow; None allows everything."""
    if first is None or second is None:
        return second if first is None else first

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return first(batch, head, query, key) & second(batch, head, query, key)

    return rule


def dense(
    rule: MaskRule,
    *,
    batch: int,
    query: Int[Tensor, " queries"],
    key: Int[Tensor, " keys"],
    heads: int = 1,
) -> Bool[Tensor, "#batch #heads #queries #keys"]:
    """Write a rule out as a tensor that broadcasts to [batch, heads, queries, keys]."""
    device = query.device
    allowed = rule(
        torch.arange(batch, device=device)[:, None, None, None],
        torch.arange(heads, device=device)[:, None, None],
        query[:, None],
        key,
    )
    if allowed.dtype != torch.bool:
        raise ValueError(f"a mask rule must return booleans, not {allowed.dtype}")
    # A rule that does not look at the batch, say, has no axis for it.
    return allowed[(None,) * (4 - allowed.dim())]
