"""The parts of a block: feed-forward network, residual path, norms."""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tfcourse.model.attention import Attention
from tfcourse.model.cache import LayerCache
from tfcourse.model.config import TransformerConfig
from tfcourse.model.positions import Rotation

Stream = Float[Tensor, "batch seq d_model"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


def make_norm(config: TransformerConfig) -> nn.Module:
    """Build the normalisation over d_model that `config.norm` names."""
    if config.norm == "rms":
        return nn.RMSNorm(config.d_model, eps=config.norm_eps)
    return nn.LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias)


class FeedForward(nn.Module):
    """Two linear maps around an activation, applied to each position by itself.

    A gated one has a third map whose output multiplies the activation's.
    Source: Vaswani et al. 2017, section 3.3; gates: Shazeer 2020.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.widen = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.gate = (
            nn.Linear(config.d_model, config.d_ff, bias=config.bias)
            if config.gated
            else None
        )
        self.narrow = nn.Linear(config.d_ff, config.d_model, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Stream) -> Stream:
        """Return W₂ f(W₁ x), or W₂ (f(W_g x) · W₁ x) with a gate."""
        hidden = self.widen(x)
        if self.gate is None:
            hidden = self.activation(hidden)
        else:
            hidden = self.activation(self.gate(x)) * hidden
        return self.narrow(self.dropout(hidden))


class Residual(nn.Module):
    """Add a layer's output to its input; the norm stands before the layer or after.

    Source: post-norm Vaswani et al. 2017, section 3.1; pre-norm Xiong et al. 2020.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = make_norm(config)
        self.dropout = nn.Dropout(config.dropout)
        self.pre = config.norm_order == "pre"

    def forward(self, x: Stream, layer: Callable[[Tensor], Tensor]) -> Stream:
        """Return x + layer(norm(x)), or norm(x + layer(x))."""
        if self.pre:
            return x + self.dropout(layer(self.norm(x)))
        return self.norm(x + self.dropout(layer(x)))


class Block(nn.Module):
    """One layer: self-attention, cross-attention if asked for, feed-forward."""

    def __init__(self, config: TransformerConfig, *, has_cross_attention: bool) -> None:
        super().__init__()
        self.self_attention = Attention(config)
        self.around_self = Residual(config)
        self.cross_attention = Attention(config) if has_cross_attention else None
        self.around_cross = Residual(config) if has_cross_attention else None
        self.feed_forward = FeedForward(config)
        self.around_feed_forward = Residual(config)

    def forward(
        self,
        x: Stream,
        memory: Float[Tensor, "batch source d_model"] | None = None,
        *,
        mask: Bool[Tensor, "..."] | None = None,
        memory_mask: Bool[Tensor, "..."] | None = None,
        rotation: Rotation | None = None,
        is_causal: bool = False,
        cache: LayerCache | None = None,
    ) -> Stream:
        """Pass x through the sub-layers; masks are True where attention is allowed."""
        own = partial(
            self.self_attention,
            mask=mask,
            rotation=rotation,
            is_causal=is_causal,
            cache=cache,
        )
        x = self.around_self(x, own)
        if self.cross_attention is not None and self.around_cross is not None:
            cross = partial(
                self.cross_attention, memory=memory, mask=memory_mask, cache=cache
            )
            x = self.around_cross(x, cross)
        return self.around_feed_forward(x, self.feed_forward)
