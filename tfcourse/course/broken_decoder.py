"""What a decoder needs, taken away: each block patches one model and restores it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tfcourse.data.pairs import IGNORE, Batch, pad, translation_batch
from tfcourse.data.tokenizers import Tokenizer
from tfcourse.model.transformer import Transformer


@contextmanager
def without_causal_mask(model: Transformer) -> Iterator[None]:
    """Let each position of the decoder see all others, the later ones too.

    Decode with `use_cache=False`: what a cache holds was computed with fewer tokens in
    sight. A model without a decoder raises `ValueError`.
    """
    layers = _attentions(model, "self_attention")
    with _called_with(layers, mask=None, is_causal=False):
        yield


@contextmanager
def padding_is_read(model: Transformer) -> Iterator[None]:
    """Leave the source's mask out of cross-attention; the encoder still has it.

    A model without cross-attention raises `ValueError`.
    """
    with _called_with(_attentions(model, "cross_attention"), mask=None):
        yield


@contextmanager
def without_cross_attention(model: Transformer) -> Iterator[None]:
    """Let cross-attention add nothing to the residual stream.

    A model that has none raises `ValueError`.
    """
    with ExitStack() as stack:
        for layer in _attentions(model, "cross_attention"):
            handle = layer.register_forward_hook(_zeros)
            stack.callback(handle.remove)
        yield


def unshifted_batch(pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer) -> Batch:
    """Batch as `translation_batch` makes it, but for the shift of the target.

    The decoder reads y1 ... yn, stop, and should answer just that.
    """
    right = translation_batch(pairs, tokenizer)
    rows = [row[row != IGNORE].tolist() for row in right.target]
    return Batch(
        tokens=pad(rows, tokenizer.pad),
        target=right.target,
        source=right.source,
        source_valid=right.source_valid,
    )


@contextmanager
def _called_with(layers: Sequence[nn.Module], **arguments: Any) -> Iterator[None]:
    """Replace keyword arguments of each call of the layers."""

    def replace(
        _: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return positional, {**named, **arguments}

    with ExitStack() as stack:
        for layer in layers:
            handle = layer.register_forward_pre_hook(replace, with_kwargs=True)
            stack.callback(handle.remove)
        yield


def _zeros(_: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    return torch.zeros_like(output)


def _attentions(model: Transformer, kind: str) -> list[nn.Module]:
    """Return the decoder's layers of the kind self_attention or cross_attention."""
    if model.decoder is None:
        raise ValueError("this model has num_decoder_layers=0: nothing decodes")
    found = [getattr(block, kind) for block in model.decoder.blocks]
    if None in found:
        raise ValueError("this model has num_encoder_layers=0: it has no source")
    return found
