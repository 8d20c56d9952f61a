"""Attention: the equation, the library's fast kernel for it, and the layer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tfcourse.model.cache import KeyValue, LayerCache
from tfcourse.model.config import TransformerConfig
from tfcourse.model.positions import Rotation, rotate

Heads = Float[Tensor, "batch heads seq head_dim"]
Weights = Float[Tensor, "batch heads queries keys"]
Mask = Bool[Tensor, "..."] | None  # True = may attend
Bias = Float[Tensor, "..."] | None
FEW_KEYS = 128  # see entries 12 and 20 of benchmarks/LOG.md


def attention_weights(
    query: Float[Tensor, "*batch queries head_dim"],
    key: Float[Tensor, "*batch keys head_dim"],
    *,
    scale: float,
    mask: Mask = None,
    bias: Bias = None,
) -> Float[Tensor, "*batch queries keys"]:
    """Return how much each query takes from each key; rows sum to one.

    A row whose keys are all masked is zero. Source: Vaswani et al. 2017, equation 1.
    """
    # softmax(Q Kᵀ · scale + bias), over the keys
    score = query @ key.transpose(-2, -1) * scale
    if bias is not None:
        score = score + bias
    if mask is None:
        return score.softmax(dim=-1)
    weight = score.masked_fill(~mask, -torch.inf).softmax(dim=-1)
    return weight.masked_fill(~mask, 0.0)  # softmax over nothing is nan


def fused_attention(
    query: Heads,
    key: Float[Tensor, "batch heads keys head_dim"],
    value: Float[Tensor, "batch heads keys head_dim"],
    *,
    scale: float,
    mask: Mask = None,
    bias: Bias = None,
    is_causal: bool = False,
    dropout: float = 0.0,
) -> Heads:
    """Return weights @ value by the library's kernel, which stores no weights."""
    additive: Tensor | None = mask
    if bias is not None:
        additive = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=additive,
        dropout_p=dropout,
        is_causal=is_causal,
        scale=scale,
    )


def _is_slow_in_16_bits(query: Tensor, key: Tensor) -> bool:
    """Say whether the kernel's gradient, of few keys on a CPU, is slower than ours."""
    narrow = query.is_cpu and query.dtype.itemsize == 2
    return narrow and key.shape[2] <= FEW_KEYS and torch.is_grad_enabled()


class Attention(nn.Module):
    """Multi-head attention, of a sequence to itself or to a memory.

    Query, key and value are projected by one packed matrix, which is faster for small
    models than three. Source: Vaswani et al. 2017, section 3.2.2.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads, self.kv_heads = config.num_heads, config.kv_heads
        self.head_dim = config.width_per_head
        self.scale = self.head_dim**-0.5 if config.scale_scores else 1.0
        self.dropout = config.dropout_within
        heads = self.num_heads, self.kv_heads, self.kv_heads
        self.sizes = [self.head_dim * count for count in heads]
        self.project_in = nn.Linear(config.d_model, sum(self.sizes), bias=config.bias)
        self.project_out = nn.Linear(self.sizes[0], config.d_model, bias=config.bias)
        self.record: Callable[[Tensor], None] | None = None

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        memory: Float[Tensor, "batch source d_model"] | None = None,
        *,
        mask: Mask = None,
        bias: Bias = None,
        rotation: Rotation | None = None,
        is_causal: bool = False,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        """Mix the values of x, or of `memory` if there is one, into each token of x."""
        if memory is None:
            query, key, value = self._project_self(x, rotation, cache)
        else:
            query, key, value = self._project_cross(x, memory, cache)
        if self.kv_heads != self.num_heads:  # each key head serves a group of queries
            group = self.num_heads // self.kv_heads
            key, value = (part.repeat_interleave(group, dim=1) for part in (key, value))
        mix = self._mix_by_equation if self.record is not None else fused_attention
        if self.record is None and _is_slow_in_16_bits(query, key):
            # For the gradient the weights are computed again: the kernel keeps none.
            mix = partial(checkpoint, self._mix_by_equation, use_reentrant=False)
        mixed = mix(
            query,
            key,
            value,
            scale=self.scale,
            mask=mask,
            bias=None if bias is None else bias.to(query.dtype),
            is_causal=is_causal,
            dropout=self.dropout if self.training else 0.0,
        )
        return self.project_out(mixed.transpose(1, 2).flatten(2))

    def _mix_by_equation(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        is_causal: bool,
        dropout: float,
        mask: Tensor | None,
        **options: Any,
    ) -> Tensor:
        """Do by the equation what `fused_attention` does; show the weights if asked."""
        if is_causal:
            mask = query.new_ones(query.shape[2], key.shape[2]).tril().bool()
        weight = attention_weights(query, key, mask=mask, **options)
        if self.record is not None:
            self.record(weight)
        return F.dropout(weight, dropout) @ value

    def _project_self(
        self, x: Tensor, rotation: Rotation | None, cache: LayerCache | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        parts = self.project_in(x).split(self.sizes, dim=-1)
        query, key, value = (self._split_heads(part) for part in parts)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        if cache is not None:
            key, value = cache.append(key, value)
        return query, key, value

    def _project_cross(
        self, x: Tensor, memory: Tensor, cache: LayerCache | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        query = self._split_heads(self._linear(x, slice(self.sizes[0])))
        project = partial(self._project_memory, memory)
        key, value = project() if cache is None else cache.remember(project)
        return query, key, value

    def _project_memory(self, memory: Tensor) -> KeyValue:
        key, value = self._linear(memory, slice(self.sizes[0], None)).chunk(2, dim=-1)
        return self._split_heads(key), self._split_heads(value)

    def _linear(self, x: Tensor, rows: slice) -> Tensor:
        """Apply some rows of the packed projection."""
        weight, bias = self.project_in.weight, self.project_in.bias
        return F.linear(x, weight[rows], None if bias is None else bias[rows])

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, Weights]]:
    """Collect each layer's weights, [batch, heads, queries, keys], by module name.

    Within the block the equation runs in place of the kernel; a layer that is called
    again replaces what it had stored.
    """
    modules = model.named_modules()
    layers = {name: layer for name, layer in modules if isinstance(layer, Attention)}
    if not layers:
        raise ValueError(f"{type(model).__name__} has no Attention layer to record")
    weights: dict[str, Tensor] = {}
    try:
        for name, layer in layers.items():
            layer.record = lambda weight, name=name: weights.__setitem__(
                name, weight.detach()
            )
        yield weights
    finally:
        for layer in layers.values():
            layer.record = None
