"""Linear attention: a state of fixed size in place of all keys and values.

With weights φ(q)·φ(k) in place of exp(q·k), the sum over keys can be taken before the
query is known: (φ(q) φ(k)ᵀ) v = φ(q) (φ(k)ᵀ v). The functions below compute the same
numbers from features φ(q), φ(k) >= 0. There is no scale, as a factor would cancel.
Source: Katharopoulos et al. 2020, sections 3.2 to 3.4.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tfcourse.model.cache import LayerCache
from tfcourse.model.config import TransformerConfig
from tfcourse.model.positions import Rotation

Features = Float[Tensor, "batch heads seq features"]
Values = Float[Tensor, "batch heads seq head_dim"]
# Σ φ(k) vᵀ over the keys read. A last column sums the φ(k), as if each v ended in 1.
State = Float[Tensor, "batch heads features width"]


def feature_map(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return φ(x) = elu(x) + 1, which is positive (the source's equation 7)."""
    return F.elu(x) + 1


def linear_attention(
    query: Features, key: Features, value: Values, *, is_causal: bool = False
) -> Values:
    """Return each query's weighted mean of the values, in one step for all queries.

    A causal one writes all weights out, and so takes the square of the length.
    """
    value = _with_ones(value)
    if not is_causal:
        return _mean(query @ (key.mT @ value))
    return _mean((query @ key.mT).tril() @ value)


def recurrent_attention(
    query: Features, key: Features, value: Values, state: State | None = None
) -> tuple[Values, State]:
    """Return the causal result token by token, as an RNN would, and the last state.

    Source: Katharopoulos et al. 2020, equations 16 to 20.
    """
    value = _with_ones(value)
    state = _nothing_read(key, value) if state is None else state
    rows = []
    for token in range(query.shape[2]):
        now = slice(token, token + 1)
        state = state + key[:, :, now].mT @ value[:, :, now]
        rows.append(_mean(query[:, :, now] @ state))
    return torch.cat(rows, dim=2), state


def chunked_attention(
    query: Features,
    key: Features,
    value: Values,
    state: State | None = None,
    *,
    chunk: int = 64,
) -> tuple[Values, State]:
    """Return the causal result and the last state, `chunk` tokens at a time.

    Within a chunk the weights are written out; what came before it is in the state. The
    time grows linearly with the length, and goes into large products. Source: Sun et
    al. 2023 (RetNet), section 2.1.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, not {chunk}")
    value = _with_ones(value)
    state = _nothing_read(key, value) if state is None else state
    parts = [part.split(chunk, dim=2) for part in (query, key, value)]
    rows = []
    for q, k, v in zip(*parts, strict=True):
        rows.append(_mean((q @ k.mT).tril() @ v + q @ state))
        state = state + k.mT @ v
    return torch.cat(rows, dim=2), state


def _with_ones(value: Tensor) -> Tensor:
    return F.pad(value, (0, 1), value=1.0)


def _nothing_read(key: Tensor, value: Tensor) -> Tensor:
    return key.new_zeros(*key.shape[:2], key.shape[-1], value.shape[-1])


def _mean(weighted: Tensor) -> Tensor:
    """Divide by the sum of the weights; a query that sees nothing gets zeros."""
    total = weighted[..., -1:]
    return weighted[..., :-1] / total.masked_fill(total == 0, 1.0)


class LinearAttention(nn.Module):
    """Multi-head linear attention with the call of `model.attention.Attention`.

    `block.self_attention = LinearAttention(config)` replaces a block's attention. There
    are no weights that dropout could act on: `config.dropout` is not used here.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.head_dim = config.width_per_head
        self.group = config.num_heads // config.kv_heads
        inner, kv_inner = (
            heads * self.head_dim for heads in (config.num_heads, config.kv_heads)
        )
        self.project_query = nn.Linear(config.d_model, inner, bias=config.bias)
        self.project_key = nn.Linear(config.d_model, kv_inner, bias=config.bias)
        self.project_value = nn.Linear(config.d_model, kv_inner, bias=config.bias)
        self.project_out = nn.Linear(inner, config.d_model, bias=config.bias)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        memory: Float[Tensor, "batch source d_model"] | None = None,
        *,
        mask: Bool[Tensor, "#batch #heads queries #seq"] | None = None,
        bias: Tensor | None = None,
        rotation: Rotation | None = None,
        is_causal: bool = False,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        """Mix the values of x into each token of it.

        A mask may hide keys from all queries alike, as padding does. Other masks, a
        bias, a rotation, a memory and a cache raise `ValueError`.
        """
        given = {"memory": memory, "bias": bias, "rotation": rotation, "cache": cache}
        refused = [name for name, value in given.items() if value is not None]
        if refused:
            raise ValueError(f"linear attention takes no {' and no '.join(refused)}")
        if mask is not None and mask.shape[2] != 1:
            raise ValueError(
                "linear attention takes a mask of the keys alone, [batch, heads, 1, "
                f"keys], not {tuple(mask.shape)}: its sums are the same for all queries"
            )
        query = feature_map(self._split_heads(self.project_query(x)))
        key = feature_map(self._split_heads(self.project_key(x)))
        value = self._split_heads(self.project_value(x))
        key, value = (part.repeat_interleave(self.group, 1) for part in (key, value))
        if mask is not None:
            key = key * mask.mT  # a feature of zero is a weight of zero
        if is_causal:
            mixed, _ = chunked_attention(query, key, value)
        else:
            mixed = linear_attention(query, key, value)
        return self.project_out(mixed.transpose(1, 2).flatten(2))

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
