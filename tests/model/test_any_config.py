"""Promises that hold for every config, not only for the ones that were thought of."""

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import CHOICES, memory_for, small_model, some_tokens
from torch import Tensor

from tfcourse.model.attention import record_attention
from tfcourse.model.cache import KVCache
from tfcourse.model.masks import padding
from tfcourse.model.transformer import Transformer
from tfcourse.probes import (
    assert_cache_equals_full,
    assert_causal,
    assert_matches_reference,
    assert_padding_invariant,
)


@st.composite
def options(draw: st.DrawFn) -> dict[str, Any]:
    kv_heads = draw(st.integers(1, 3))
    heads = kv_heads * draw(st.integers(1, 2))
    switches = ("gated", "bias", "scale_embedding", "scale_scores", "tie_embeddings")
    return {
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": draw(st.sampled_from([2, 4])),
        "d_model": draw(st.sampled_from([4, 6, 8])),
        "dropout": 0.1,
        "d_ff": draw(st.integers(1, 9)),
        "norm_eps": draw(st.sampled_from([1e-12, 1e-5, 0.1])),
        **{name: draw(st.sampled_from(known)) for name, known in CHOICES.items()},
        **{name: draw(st.booleans()) for name in switches},
    }


def model_of(
    family: str, chosen: dict[str, Any], seed: int, **more: Any
) -> Transformer:
    torch.manual_seed(seed)
    return small_model(family, dtype=torch.float64, **chosen, **more)


SEEDS = st.integers(0, 99)
LAYERS = st.integers(1, 2)
DECODERS = st.sampled_from(["decoder", "encoder-decoder"])
EXACT = {"atol": 1e-8, "rtol": 1e-8}


@settings(max_examples=60)
@given(DECODERS, options(), LAYERS, st.booleans(), SEEDS)
def test_every_decoder_is_causal_and_cached_and_recorded_alike(
    family: str, chosen: dict[str, Any], layers: int, train: bool, seed: int
) -> None:
    model = model_of(family, chosen, seed, num_decoder_layers=layers)
    memory = memory_for(model.eval(), batch=2)
    model.train(train)
    tokens = some_tokens(batch=2, seq=5)
    tokens[:, -1] = (tokens[:, 0] + 1) % 11  # not all equal

    def run(ids: Tensor, cache: KVCache | None = None) -> Tensor:
        return model(ids, cache=cache, **memory)

    def recorded(ids: Tensor) -> Tensor:
        with record_attention(model) as weights:
            out = run(ids)
        for weight in weights.values():
            assert torch.allclose(weight.sum(-1), torch.ones((), dtype=torch.float64))
        return out

    assert_causal(run, tokens, **EXACT)
    model.eval()
    assert_cache_equals_full(run, tokens, **EXACT)
    assert_matches_reference(recorded, run, tokens, **EXACT)


@settings(max_examples=30)
@given(options(), st.sampled_from(["left", "right"]), SEEDS)
def test_every_encoder_ignores_padding(
    chosen: dict[str, Any], side: str, seed: int
) -> None:
    model = model_of("encoder", chosen, seed)

    def run(tokens: Tensor, valid: Tensor) -> Tensor:
        position = (valid.long().cumsum(1) - 1).clamp(min=0)
        return model(tokens, mask=padding(valid), position=position)

    assert_padding_invariant(run, torch.arange(10).view(2, 5), side=side, **EXACT)
