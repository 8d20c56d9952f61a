"""Promises that hold for every config, not only for the ones that were thought of."""

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import CHOICES, SIZES, counted, memory_for, small_model, some_tokens
from torch import Tensor

from tfcourse.generation import generate
from tfcourse.model.attention import record_attention
from tfcourse.model.cache import KVCache, StaticKVCache
from tfcourse.model.masks import MaskRule, both, padding, same_document, sliding_window
from tfcourse.model.transformer import Transformer
from tfcourse.probes import (
    assert_cache_equals_full,
    assert_causal,
    assert_matches_reference,
    assert_padding_invariant,
)

SWITCHES = (
    "gated",
    "bias",
    "scale_embedding",
    "scale_scores",
    "scale_logits",
    "tie_embeddings",
    "embedding_norm",
    "head_bias",
)


@st.composite
def options(draw: st.DrawFn) -> dict[str, Any]:
    """Draw all of a config but its layer counts."""
    kv_heads = draw(st.integers(1, 3))
    return {
        "num_heads": kv_heads * draw(st.integers(1, 2)),
        "num_kv_heads": kv_heads,
        "head_dim": draw(st.sampled_from([2, 4])),
        "d_model": draw(st.sampled_from([4, 6, 8])),
        "dropout": 0.1,
        "d_ff": draw(st.integers(1, 9)),
        "norm_eps": draw(st.sampled_from([1e-12, 1e-5, 0.1])),
        "rotary_base": draw(st.sampled_from([100.0, 10_000.0])),
        "relative_buckets": draw(st.sampled_from([4, 6, 32])),
        "relative_max_distance": draw(st.sampled_from([17, 128])),
        **{name: draw(st.sampled_from(known)) for name, known in CHOICES.items()},
        **{name: draw(st.booleans()) for name in SWITCHES},
    }


def model_of(
    family: str, chosen: dict[str, Any], seed: int, **more: Any
) -> Transformer:
    torch.manual_seed(seed)
    return small_model(family, dtype=torch.float64, **chosen, **more)


SEEDS = st.integers(0, 99)
LAYERS = st.integers(1, 2)
DECODERS = st.sampled_from(["decoder", "encoder-decoder"])
FAMILIES = st.sampled_from(["decoder", "encoder-decoder", "encoder"])
SIDES = st.sampled_from(["left", "right"])
WINDOWS = st.sampled_from([None, 1, 3])
EXACT = {"atol": 1e-8, "rtol": 1e-8}
TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def window(size: int | None) -> MaskRule | None:
    return None if size is None else sliding_window(size)


@settings(max_examples=120)
@given(DECODERS, options(), LAYERS, WINDOWS, st.booleans(), SEEDS)
def test_every_decoder_is_causal_in_training_too(
    family: str,
    chosen: dict[str, Any],
    layers: int,
    size: int | None,
    train: bool,
    seed: int,
) -> None:
    model = model_of(family, chosen, seed, num_decoder_layers=layers)
    memory = memory_for(model, batch=2)
    model.train(train)
    # Through a window of one, the first token never reaches the last output; but its
    # own output always shows that it was read.
    assert_causal(lambda ids: model(ids, mask=window(size), **memory), TOKENS, **EXACT)


@settings(max_examples=120)
@given(DECODERS, options(), WINDOWS, st.booleans(), SEEDS)
def test_every_cache_in_every_piece_equals_the_full_pass(
    family: str, chosen: dict[str, Any], size: int | None, static: bool, seed: int
) -> None:
    model = model_of(family, chosen, seed)
    memory = memory_for(model, batch=2)
    position = torch.tensor([[0, 1, 2, 3, 4], [2, 3, 4, 9, 11]])

    def new_cache() -> KVCache:
        if not static:
            return KVCache()
        return StaticKVCache(model.config, batch=2, capacity=7, dtype=torch.float64)

    def run(ids: Tensor, cache: KVCache | None) -> Tensor:
        read = 0 if cache is None else int(cache.length)
        here = position[:, read : read + ids.shape[1]]
        return model(ids, cache=cache, mask=window(size), position=here, **memory)

    assert_cache_equals_full(run, TOKENS, new_cache=new_cache, **EXACT)


@settings(max_examples=80)
@given(FAMILIES, options(), WINDOWS, SEEDS)
def test_every_recorded_row_sums_to_one_and_equals_the_fast_path(
    family: str, chosen: dict[str, Any], size: int | None, seed: int
) -> None:
    model = model_of(family, chosen, seed)
    memory = memory_for(model, batch=2)

    def run(ids: Tensor) -> Tensor:
        return model(ids, mask=window(size), **memory)

    def recorded(ids: Tensor) -> Tensor:
        with record_attention(model) as weights:
            out = run(ids)
        for weight in weights.values():
            assert torch.allclose(weight.sum(-1), torch.ones((), dtype=torch.float64))
        return out

    assert_matches_reference(recorded, run, TOKENS, **EXACT)


@settings(max_examples=80)
@given(FAMILIES, options(), SIDES, SEEDS)
def test_padding_changes_no_output_of_any_model(
    family: str, chosen: dict[str, Any], side: str, seed: int
) -> None:
    model = model_of(family, chosen, seed)
    memory = memory_for(model, batch=1).get("memory")

    def run(tokens: Tensor, valid: Tensor) -> Tensor:
        mask, position = padding(valid), counted(valid)
        if memory is None:
            return model(tokens, mask=mask, position=position)
        more = memory.expand(len(tokens), -1, -1)
        return model(tokens, mask=mask, position=position, memory=more)

    assert_padding_invariant(run, TOKENS, side=side, **EXACT)


@settings(max_examples=60)
@given(st.sampled_from(["decoder", "encoder"]), options(), WINDOWS, SEEDS)
def test_documents_packed_in_a_row_are_read_as_if_apart(
    family: str, chosen: dict[str, Any], size: int | None, seed: int
) -> None:
    model = model_of(family, chosen, seed)
    document = torch.tensor([[0, 0, 0, 1, 1], [0, 1, 1, 1, 2]])
    position = torch.tensor([[0, 1, 2, 0, 1], [0, 0, 1, 2, 0]])
    mask = both(same_document(document), window(size))
    with torch.no_grad():
        packed = model(TOKENS, mask=mask, position=position)
        for row, number in ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2)):
            own = document[row] == number
            apart = model(TOKENS[row : row + 1, own], mask=window(size))
            assert torch.allclose(packed[row, own], apart[0], **EXACT)


@settings(max_examples=60)
@given(DECODERS, options(), st.sampled_from(["grows", "static", "none"]), SEEDS)
def test_unequal_prompts_in_a_batch_continue_as_each_alone(
    family: str, chosen: dict[str, Any], kind: str, seed: int
) -> None:
    model = model_of(family, chosen, seed)
    source = some_tokens(2, 3)
    given: dict[str, Any] = {"max_new_tokens": 4, "use_cache": kind != "none"}
    if kind == "static":
        given["cache"] = StaticKVCache(
            model.config, batch=2, capacity=SIZES["max_seq_len"], dtype=torch.float64
        )
    if model.encoder is not None:
        given["source"] = source
    valid = torch.tensor([[False, False, True, True, True], [True] * 5])
    together = generate(model, TOKENS, prompt_mask=valid, **given)
    given.pop("cache", None)
    for row in range(2):
        alone = TOKENS[row : row + 1, valid[row]]
        if model.encoder is not None:
            given["source"] = source[row : row + 1]
        assert (
            together[row, 5:].tolist()
            == generate(model, alone, **given)[0, alone.shape[1] :].tolist()
        )
