"""The standard models of the battery once more, to compare ours with.

`by_torch` is made of torch.nn's own layers. `by_formula` writes out what these lack
(RMSNorm, rotary and relative positions, gates, grouped heads): slowly, head by head.
Both read our model's weights by name and use none of its code.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tfcourse.model.config import TransformerConfig

Weights = dict[str, Tensor]
Tokens = Int[Tensor, "batch seq"]
Logits = Float[Tensor, "batch seq vocab"]

TORCH_NAMES = {
    "self_attention.project_in.": "self_attn.in_proj_",
    "self_attention.project_out.": "self_attn.out_proj.",
    "cross_attention.project_in.": "multihead_attn.in_proj_",
    "cross_attention.project_out.": "multihead_attn.out_proj.",
    "around_self.norm.": "norm1.",
    "around_cross.norm.": "norm2.",
    "feed_forward.widen.": "linear1.",
    "feed_forward.narrow.": "linear2.",
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


@dataclass(frozen=True)
class Reference:
    """A model as a config and its weights, by the names of `model.state_dict()`."""

    config: TransformerConfig
    weights: Weights

    def by_torch(
        self,
        tokens: Tokens,
        source: Tokens | None = None,
        segment: Tokens | None = None,
    ) -> Logits:
        """Return the logits by torch.nn's layers."""
        if self.config.num_decoder_layers == 0:
            return self._head(self._torch_stack("encoder", tokens, segment=segment))
        memory = None if source is None else self._torch_stack("encoder", source)
        return self._head(self._torch_stack("decoder", tokens, memory))

    def by_formula(self, tokens: Tokens, source: Tokens | None = None) -> Logits:
        """Return the logits by the equations, for pre-norm, RMSNorm and gates."""
        memory = None if source is None else self._formula_stack("encoder", source)
        return self._head(self._formula_stack("decoder", tokens, memory))

    def _embed(self, tokens: Tensor, stack: str, segment: Tensor | None) -> Tensor:
        config, length = self.config, tokens.shape[1]
        x = self.weights["embedding.weight"][tokens]
        if config.scale_embedding:
            x = x * math.sqrt(config.d_model)
        if config.position == "learned":
            x = x + self.weights[f"{stack}.positions.table.weight"][:length]
        if config.position == "sinusoidal":
            x = x + sines_and_cosines(length, config.d_model)
        if segment is not None:
            x = x + self.weights["segments.weight"][segment]
        return (
            self._layer_norm(f"{stack}.first_norm.", x) if config.embedding_norm else x
        )

    def _head(self, x: Tensor) -> Tensor:
        config, weights = self.config, self.weights
        if config.head == "mlm":
            x = F.linear(x, *self._of("head_transform.0.").values())
            x = self._layer_norm("head_transform.2.", ACTIVATIONS[config.activation](x))
        if config.scale_logits:
            x = x / math.sqrt(config.d_model)
        matrix = "embedding.weight" if config.tie_embeddings else "unembedding.weight"
        return F.linear(x, weights[matrix], weights.get("head_bias"))

    def _of(self, prefix: str) -> Weights:
        """Return the weights whose names start with `prefix`, without it."""
        return {
            name.removeprefix(prefix): weight
            for name, weight in self.weights.items()
            if name.startswith(prefix)
        }

    def _layer_norm(self, prefix: str, x: Tensor) -> Tensor:
        scale, shift = self._of(prefix).values()
        return F.layer_norm(x, scale.shape, scale, shift, self.config.norm_eps)

    def _torch_stack(
        self,
        stack: str,
        tokens: Tensor,
        memory: Tensor | None = None,
        segment: Tensor | None = None,
    ) -> Tensor:
        config, x = self.config, self._embed(tokens, stack, segment)
        future = None
        if stack == "decoder":
            length = tokens.shape[1]
            future = torch.ones(length, length, dtype=torch.bool).triu(1)
        for index in range(getattr(config, f"num_{stack}_layers")):
            given = {} if memory is None else {"memory": memory}
            layer = self._torch_layer(f"{stack}.blocks.{index}.", crossed=bool(given))
            x = layer(x, **given, **{"tgt_mask" if given else "src_mask": future})
        pre = config.norm_order == "pre"
        return self._layer_norm(f"{stack}.last_norm.", x) if pre else x

    def _torch_layer(self, prefix: str, *, crossed: bool) -> nn.Module:
        """Return torch's layer with our weights under its names."""
        config = self.config
        kind: Any = nn.TransformerEncoderLayer
        names = TORCH_NAMES | {"around_feed_forward.norm.": "norm2."}
        if crossed:
            kind = nn.TransformerDecoderLayer
            names = TORCH_NAMES | {"around_feed_forward.norm.": "norm3."}
        layer = kind(
            config.d_model,
            config.num_heads,
            config.d_ff,
            activation=ACTIVATIONS[config.activation],
            layer_norm_eps=config.norm_eps,
            batch_first=True,
            norm_first=config.norm_order == "pre",
            device="meta",  # no random numbers for weights that are replaced
        )
        weights = {
            theirs + name: weight
            for ours, theirs in names.items()
            for name, weight in self._of(prefix + ours).items()
        }
        layer.load_state_dict(weights, assign=True)
        return layer.eval()

    def _formula_stack(
        self, stack: str, tokens: Tensor, memory: Tensor | None = None
    ) -> Tensor:
        x, config = self._embed(tokens, stack, None), self.config
        activation = ACTIVATIONS[config.activation]
        for index in range(getattr(config, f"num_{stack}_layers")):
            block = self._of(f"{stack}.blocks.{index}.")

            def norm(name: str, x: Tensor, block: Weights = block) -> Tensor:
                return self._rms_norm(block[f"around_{name}.norm.weight"], x)

            y = norm("self", x)
            x = x + self._attend(block, "self_attention", y, y, stack)
            if memory is not None:
                y = norm("cross", x)
                x = x + self._attend(block, "cross_attention", y, memory, None)
            y = norm("feed_forward", x)
            gate = activation(y @ block["feed_forward.gate.weight"].T)
            y = gate * (y @ block["feed_forward.widen.weight"].T)
            x = x + y @ block["feed_forward.narrow.weight"].T
        return self._rms_norm(self.weights[f"{stack}.last_norm.weight"], x)

    def _rms_norm(self, scale: Tensor, x: Tensor) -> Tensor:
        """Divide by the root mean square (Zhang & Sennrich 2019, equation 4)."""
        return (
            x
            / (x.square().mean(-1, keepdim=True) + self.config.norm_eps).sqrt()
            * scale
        )

    def _attend(
        self, block: Weights, name: str, x: Tensor, memory: Tensor, own: str | None
    ) -> Tensor:
        """Attend head by head; `own` names the stack whose tokens see themselves."""
        config, size = self.config, self.config.width_per_head
        matrix = block[f"{name}.project_in.weight"].split(size)
        heads, kv_heads = config.num_heads, config.kv_heads
        outputs = []
        for head in range(heads):
            shared = head * kv_heads // heads  # neighbours share
            query = x @ matrix[head].T
            key = memory @ matrix[heads + shared].T
            value = memory @ matrix[heads + kv_heads + shared].T
            if own and config.position == "rotary":
                query, key = (turn(part, config.rotary_base) for part in (query, key))
            score = query @ key.mT
            if config.scale_scores:
                score = score / math.sqrt(size)
            if own:
                score = score + self._offsets(own, head, x.shape[1])
            outputs.append(score.softmax(-1) @ value)
        return torch.cat(outputs, -1) @ block[f"{name}.project_out.weight"].T

    def _offsets(self, stack: str, head: int, length: int) -> Tensor:
        """Return what the offset of key and query adds to a score: -inf, a bias, 0."""
        config, causal = self.config, stack == "decoder"
        added = torch.zeros(length, length)
        for query in range(length):
            for key in range(length):
                if causal and key > query:
                    added[query, key] = -torch.inf
                elif config.position == "relative":
                    bucket = bucket_of(key - query, config, causal=causal)
                    table = self.weights[f"{stack}.positions.table.weight"]
                    added[query, key] = table[bucket, head]
        return added


def sines_and_cosines(length: int, width: int) -> Float[Tensor, "length width"]:
    """Return the table of Vaswani et al. 2017, section 3.5, number by number."""
    return torch.tensor(
        [
            [
                (math.cos if i % 2 else math.sin)(
                    place / 10_000 ** ((i - i % 2) / width)
                )
                for i in range(width)
            ]
            for place in range(length)
        ]
    )


def turn(x: Float[Tensor, "batch seq width"], base: float) -> Tensor:
    """Multiply x by e^(i·p·angle), where x's second half is the imaginary part.

    Source: Su et al. 2021, section 3.2; halves as in Llama's weights on Hugging Face.
    """
    half, places = x.shape[-1] // 2, torch.arange(x.shape[1])
    angle = places[:, None] * torch.tensor([base ** (-i / half) for i in range(half)])
    turned = torch.complex(*x.split(half, -1)) * torch.polar(torch.ones(()), angle)
    return torch.cat((turned.real, turned.imag), dim=-1)


def bucket_of(offset: int, config: TransformerConfig, *, causal: bool) -> int:
    """Return T5's bucket of one offset key - query (Raffel et al. 2020, their code)."""
    count, first, distance = config.relative_buckets, 0, max(-offset, 0)
    if not causal:
        count, distance = count // 2, abs(offset)
        first = count if offset > 0 else 0
    exact = count // 2
    if distance < exact:
        return first + distance
    octaves = math.log(distance / exact) / math.log(
        config.relative_max_distance / exact
    )
    return first + min(exact + int(octaves * (count - exact)), count - 1)
