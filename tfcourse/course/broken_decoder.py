"""What a decoder needs, taken away: each block patches one model and restores it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tfcourse.data.pairs import IGNORE, Batch, pad, translation_batch
from tfcourse.data.tokenizers import Tokenizer
from tfcourse.model.transformer import Stack, Transformer


@contextmanager
def without_causal_mask(model: Transformer) -> Iterator[None]:
    """Let each position of the decoder see all others, the later ones too.

    Decode with `use_cache=False`: what a cache holds was computed with fewer tokens in
    sight. A model without a decoder raises `ValueError`.
    """
    with _called_with(_decoder(model), mask=None, is_causal=False):
        yield


@contextmanager
def padding_is_read(model: Transformer) -> Iterator[None]:
    """Leave the source's mask out of cross-attention; the encoder still has it.

    A model without cross-attention raises `ValueError`.
    """
    _cross_attentions(model)
    with _called_with(_decoder(model), memory_mask=None):
        yield


@contextmanager
def without_cross_attention(model: Transformer) -> Iterator[None]:
    """Let cross-attention add nothing to the residual stream.

    A model that has none raises `ValueError`.
    """
    with ExitStack() as stack:
        for layer in _cross_attentions(model):
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
def _called_with(module: nn.Module, **arguments: Any) -> Iterator[None]:
    """Replace keyword arguments of each call of the module."""

    def replace(
        _: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return positional, {**named, **arguments}

    handle = module.register_forward_pre_hook(replace, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _zeros(_: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    return torch.zeros_like(output)


def _decoder(model: Transformer) -> Stack:
    if model.decoder is None:
        raise ValueError("this model has num_decoder_layers=0: nothing decodes")
    return model.decoder


def _cross_attentions(model: Transformer) -> list[nn.Module]:
    found = [
        layer
        for name, layer in _decoder(model).named_modules()
        if name.endswith(".cross_attention")
    ]
    if not found:
        raise ValueError("this model has num_encoder_layers=0: it has no source")
    return found
