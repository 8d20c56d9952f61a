"""Models of a few hundred weights, and copies of ours in `torch.nn`'s layers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jaxtyping
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tfcourse.model.attention import Attention
from tfcourse.model.config import Position, TransformerConfig
from tfcourse.model.layers import Block
from tfcourse.model.transformer import Transformer

SIZES = {"vocab_size": 11, "d_model": 8, "num_heads": 2, "d_ff": 12, "max_seq_len": 16}
FAMILIES = {
    "encoder-decoder": {"num_encoder_layers": 2, "num_decoder_layers": 2},
    "encoder": {"num_encoder_layers": 2},
    "decoder": {"num_decoder_layers": 2},
}
POSITIONS = get_args(Position)
CHOICES = {
    name: get_args(kind)
    for name, kind in get_type_hints(TransformerConfig).items()
    if get_origin(kind) is Literal
}


class EverythingOn(TorchDispatchMode):
    """Fail as soon as an operation makes a tensor on another device."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for part in tree_leaves(made):
            if isinstance(part, Tensor):
                assert part.device.type == self.device, f"{func} made {part.device}"
        return made


@contextmanager
def no_shape_checks() -> Iterator[None]:
    """Let wrong arguments reach the package's own checks, as they do for users."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def small_config(family: str = "decoder", **options: Any) -> TransformerConfig:
    return TransformerConfig(**{**SIZES, **FAMILIES[family], **options})


def small_model(
    family: str = "decoder",
    *,
    dtype: torch.dtype = torch.float32,
    train: bool = False,
    **options: Any,
) -> Transformer:
    model = Transformer(small_config(family, **options))
    disturb(model)
    return model.to(dtype).train(train)


@torch.no_grad()
def disturb(module: nn.Module) -> None:
    """Move every weight: biases of 0 and norms of 1 would hide faults."""
    for weight in module.parameters():
        weight.add_(torch.randn_like(weight), alpha=0.3)


def some_tokens(batch: int = 3, seq: int = 7, vocab: int = 11) -> Tensor:
    return torch.randint(vocab, (batch, seq))


def counted(valid: Tensor) -> Tensor:
    """Return positions that count real tokens only."""
    return (valid.long().cumsum(1) - 1).clamp(min=0)


def source_for(model: Transformer, batch: int = 3, seq: int = 5) -> dict[str, Tensor]:
    """Return the source that an encoder-decoder wants, or nothing."""
    if model.encoder is None or model.decoder is None:
        return {}
    return {"source": some_tokens(batch, seq, model.config.vocab_size)}


def memory_for(model: Transformer, batch: int = 3, seq: int = 5) -> dict[str, Tensor]:
    """Return a source already encoded, where there is one: calls are then cheaper."""
    given = source_for(model, batch, seq)
    return {"memory": model.encode(given["source"]).detach()} if given else {}


@torch.no_grad()
def copied_attention(ours: Attention, d_model: int) -> nn.MultiheadAttention:
    bias = ours.project_in.bias is not None
    theirs = nn.MultiheadAttention(d_model, ours.num_heads, bias=bias, batch_first=True)
    theirs.in_proj_weight.copy_(ours.project_in.weight)
    theirs.out_proj.weight.copy_(ours.project_out.weight)
    if bias:
        theirs.in_proj_bias.copy_(ours.project_in.bias)
        theirs.out_proj.bias.copy_(ours.project_out.bias)
    return theirs.to(ours.project_in.weight.dtype).eval()


def copied_block(ours: Block, config: TransformerConfig) -> nn.Module:
    """Return `ours` as nn.TransformerEncoderLayer, or DecoderLayer if it is crossed."""
    crossed = ours.cross_attention is not None
    kind = nn.TransformerDecoderLayer if crossed else nn.TransformerEncoderLayer
    theirs = kind(
        config.d_model,
        config.num_heads,
        config.d_ff,
        dropout=0.0,
        activation=config.activation,
        layer_norm_eps=config.norm_eps,
        batch_first=True,
        norm_first=config.norm_order == "pre",
        bias=config.bias,
    )
    pairs = [(theirs.linear1, ours.feed_forward.widen)]
    pairs += [(theirs.linear2, ours.feed_forward.narrow)]
    paths = [ours.around_self, ours.around_cross, ours.around_feed_forward]
    norms = [path.norm for path in paths if path is not None]
    pairs += [(getattr(theirs, f"norm{i}"), norm) for i, norm in enumerate(norms, 1)]
    for copy, original in pairs:
        copy.load_state_dict(original.state_dict())
    theirs.self_attn = copied_attention(ours.self_attention, config.d_model)
    if ours.cross_attention is not None:
        theirs.multihead_attn = copied_attention(ours.cross_attention, config.d_model)
    return theirs.eval()
