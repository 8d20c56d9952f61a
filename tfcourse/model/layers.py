"""The parts of a block: feed-forward network, residual path, norms."""

from collections.abc import Callable
from functools import partial
from typing import TypedDict

from jaxtyping import Float
from torch import Tensor, nn

from tfcourse.model.attention import Attention, Bias, Mask
from tfcourse.model.cache import LayerCache
from tfcourse.model.config import TransformerConfig
from tfcourse.model.positions import Rotation

Stream = Float[Tensor, "batch seq d_model"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "silu": nn.SiLU,
}


def make_norm(config: TransformerConfig) -> nn.Module:
    """Build the normalisation over d_model that `config.norm` names."""
    if config.norm == "rms":
        return nn.RMSNorm(config.d_model, eps=config.norm_eps)
    return nn.LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias)


def make_mlm_transform(config: TransformerConfig) -> nn.Module:
    """Build the layer below BERT's logits (Devlin et al. 2019, their code)."""
    return nn.Sequential(
        nn.Linear(config.d_model, config.d_model),
        ACTIVATIONS[config.activation](),
        make_norm(config),
    )


class FeedForward(nn.Module):
    """Two linear maps around an activation, applied to each position by itself.

    A gated one has a third map whose output multiplies the activation's.
    Source: Vaswani et al. 2017, section 3.3; gates: Shazeer 2020.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]()
        wide = partial(nn.Linear, config.d_model, config.d_ff, bias=config.bias)
        self.widen = wide()
        self.gate = wide() if config.gated else None
        self.narrow = nn.Linear(config.d_ff, config.d_model, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout_within)

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


class Scope(TypedDict, total=False):
    """What attention is told besides the vectors: see `Attention.forward`."""

    mask: Mask
    bias: Bias
    rotation: Rotation | None
    is_causal: bool


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
        own: Scope | None = None,
        cross: Scope | None = None,
        cache: LayerCache | None = None,
    ) -> Stream:
        """Pass x through the sub-layers: what it may see of itself, of the memory."""
        attend = partial(self.self_attention, cache=cache, **(own or {}))
        x = self.around_self(x, attend)
        if self.cross_attention is not None and self.around_cross is not None:
            attend = partial(
                self.cross_attention, memory=memory, cache=cache, **(cross or {})
            )
            x = self.around_cross(x, attend)
        return self.around_feed_forward(x, self.feed_forward)
