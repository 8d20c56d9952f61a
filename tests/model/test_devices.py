"""The promises of the core on each device: `pytest -m gpu` keeps them on CUDA."""

from typing import Any

import pytest
import torch
from small_models import POSITIONS, counted, small_model, some_tokens
from torch import Tensor

from tfcourse.generation import beam_search, generate
from tfcourse.model.attention import record_attention
from tfcourse.model.cache import KVCache, StaticKVCache
from tfcourse.model.masks import padding
from tfcourse.model.transformer import Transformer
from tfcourse.probes import (
    assert_cache_equals_full,
    assert_causal,
    assert_matches_reference,
    assert_padding_invariant,
)

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, on_cuda])]
# Differences that rounding explains, as logits are of size 10.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.3}
everywhere = pytest.mark.parametrize("device", DEVICES)
formats = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
positions = pytest.mark.parametrize("position", POSITIONS)


def model_on(device: str, dtype: torch.dtype, family: str, **options: Any) -> Any:
    """Return a model and what else it is called with."""
    model = small_model(family, num_kv_heads=1, **options).to(device, dtype)
    if family == "decoder":
        return model, {}
    return model, {"memory": model.encode(some_tokens(2, 5).to(device)).detach()}


@everywhere
@formats
@positions
@pytest.mark.parametrize("family", ["decoder", "encoder-decoder"])
def test_causal_cached_and_recorded_alike(
    device: str, dtype: torch.dtype, position: str, family: str
) -> None:
    model, given = model_on(device, dtype, family, position=position)
    tokens, near = some_tokens(batch=2).to(device), {"atol": TOLERANCE[dtype]}

    def run(ids: Tensor, cache: KVCache | None = None) -> Tensor:
        return model(ids, cache=cache, **given)

    def recorded(ids: Tensor) -> Tensor:
        with record_attention(model) as weights:
            out = run(ids)
        for weight in weights.values():
            assert (weight.float().sum(-1) - 1).abs().max() < 0.02
        return out

    def new_static() -> StaticKVCache:
        room = {"batch": 2, "capacity": 9, "device": device, "dtype": dtype}
        return StaticKVCache(model.config, **room)

    assert_causal(run, tokens, **near)
    assert_matches_reference(recorded, run, tokens, **near)
    assert_cache_equals_full(run, tokens, **near)
    assert_cache_equals_full(run, tokens, new_cache=new_static, **near)


@everywhere
@formats
@positions
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(
    device: str, dtype: torch.dtype, position: str, side: str
) -> None:
    model, _ = model_on(device, dtype, "decoder", position=position)

    def run(tokens: Tensor, valid: Tensor) -> Tensor:
        return model(tokens, mask=padding(valid), position=counted(valid))

    tokens = some_tokens(batch=2).to(device)
    assert_padding_invariant(run, tokens, side=side, atol=TOLERANCE[dtype])


@everywhere
@positions
def test_every_device_gives_the_same_logits_gradients_and_tokens(
    device: str, position: str
) -> None:
    here = small_model("encoder-decoder", position=position)
    there = Transformer(here.config).eval()
    there.load_state_dict(here.state_dict())
    there.to(device)
    tokens, source = some_tokens(2), some_tokens(2, 5)
    logits, found = here(tokens, source), there(tokens.to(device), source.to(device))
    assert torch.allclose(found.cpu(), logits, atol=1e-4)
    onto = torch.randn_like(logits)
    (logits * onto).sum().backward()
    (found * onto.to(device)).sum().backward()
    for own, other in zip(here.parameters(), there.parameters(), strict=True):
        assert torch.allclose(other.grad.cpu(), own.grad, atol=1e-3, rtol=1e-3)
    options = {"max_new_tokens": 6, "source": source, "stop_token": 2}
    moved = {**options, "source": source.to(device)}
    prompt = tokens[:, :2]
    expected = generate(here, prompt, **options)
    assert torch.equal(generate(there, prompt.to(device), **moved).cpu(), expected)
    expected, _ = beam_search(here, prompt, num_beams=3, **options)
    best, _ = beam_search(there, prompt.to(device), num_beams=3, **moved)
    assert torch.equal(best.cpu(), expected)
