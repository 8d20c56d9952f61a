"""Attention by torch's FlexAttention, which takes the very mask rules of this package.

The rule is asked once which blocks of 128 x 128 pairs it allows at all; compiled on a
GPU, the kernel skips the others and evaluates the rule within those that are left.
Source: Dong et al. 2024; torch.nn.attention.flex_attention.
"""

from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.nn.attention.flex_attention import flex_attention as torch_flex_attention

from tfcourse.model.masks import MaskRule

Queries = Float[Tensor, "batch heads queries head_dim"]
Keys = Float[Tensor, "batch kv_heads keys head_dim"]


def flex_attention(
    query: Queries,
    key: Keys,
    value: Keys,
    *,
    scale: float,
    rule: MaskRule | BlockMask | None = None,
    compiled: bool = False,
) -> Queries:
    """Return weights @ value where `rule` allows it; zeros where it allows nothing.

    Keys may have fewer heads than queries: each then serves a group. For many calls,
    give as rule what `block_mask` made of it once. Only the compiled kernel saves time
    and memory; without it torch warns, and makes all scores. Gradients need a GPU: to
    ask for them on a CPU raises `ValueError`.
    """
    inputs, device = (query, key, value), query.device.type
    if device in ("cpu", "mps") and any(part.requires_grad for part in inputs):
        raise ValueError(
            f"FlexAttention has no gradients on device {device}: compute queries, keys "
            "and values under torch.no_grad(), or use fused_attention"
        )
    if rule is not None and not isinstance(rule, BlockMask):
        rule = block_mask(rule, query, key)
    kernel: Callable[..., Tensor] = torch_flex_attention
    if compiled:
        kernel = _compiled()
    grouped = query.shape[1] != key.shape[1]
    return kernel(*inputs, block_mask=rule, scale=scale, enable_gqa=grouped)


def block_mask(rule: MaskRule, query: Queries, key: Keys) -> BlockMask:
    """Return which blocks of these queries and keys the rule allows."""
    return create_block_mask(
        # torch counts a rule's arguments, which a decorator or a partial may hide.
        lambda b, h, q, k: rule(b, h, q, k),
        B=query.shape[0],
        H=query.shape[1],
        Q_LEN=query.shape[2],
        KV_LEN=key.shape[2],
        device=query.device,
    )


@cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(torch_flex_attention)
