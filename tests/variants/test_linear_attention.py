"""The forms of linear attention are one function, and the layer fits into a model."""

import math

import pytest
import torch
from small_models import disturb, small_config, small_model, some_tokens
from torch import Tensor

from tfcourse.generation import generate
from tfcourse.model.cache import KVCache
from tfcourse.model.masks import padding, sliding_window
from tfcourse.model.transformer import Transformer
from tfcourse.probes import (
    assert_causal,
    assert_padding_invariant,
    assert_permutation_equivariant,
)
from tfcourse.variants.linear_attention import (
    LinearAttention,
    chunked_attention,
    feature_map,
    linear_attention,
    recurrent_attention,
)

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def inputs(seq: int = 11) -> list[Tensor]:
    """Return features of queries and keys, and values of another width."""
    query, key = torch.rand(2, 2, 3, seq, 5, dtype=torch.float64)
    return [query, key, torch.randn(2, 3, seq, 4, dtype=torch.float64)]


def by_hand(query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> Tensor:
    """Return Σⱼ φ(qᵢ)·φ(kⱼ) vⱼ / Σⱼ φ(qᵢ)·φ(kⱼ), number by number."""
    mixed = torch.zeros_like(value)
    for batch, head, i in torch.cartesian_prod(*map(torch.arange, value.shape[:3])):
        last = int(i) + 1 if causal else value.shape[2]
        weights = [float(query[batch, head, i] @ k) for k in key[batch, head, :last]]
        for weight, row in zip(weights, value[batch, head], strict=False):
            mixed[batch, head, i] += weight / math.fsum(weights) * row
    return mixed


@pytest.mark.parametrize(
    ("x", "expected"), [(2.0, 3.0), (0.0, 1.0), (-1.0, math.exp(-1))]
)
def test_the_feature_map_is_an_exponential_that_turns_into_a_line(
    x: float, expected: float
) -> None:
    found = feature_map(torch.tensor([x], dtype=torch.float64))
    assert found.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_the_result_is_a_mean_weighted_by_products_of_features(causal: bool) -> None:
    args = inputs()
    found = linear_attention(*args, is_causal=causal)
    assert torch.allclose(found, by_hand(*args, causal=causal), **EXACT)


def test_token_by_token_gives_what_all_at_once_gives() -> None:
    args = inputs()
    found, state = recurrent_attention(*args)
    assert torch.allclose(found, linear_attention(*args, is_causal=True), **EXACT)
    key, value = args[1:]
    assert torch.allclose(state[..., :-1], key.mT @ value, **EXACT)
    assert torch.allclose(state[..., -1], key.sum(2), **EXACT)


@pytest.mark.parametrize("chunk", [1, 3, 4, 11, 64])
def test_chunks_give_what_single_tokens_give(chunk: int) -> None:
    args = inputs()
    expected, last = recurrent_attention(*args)
    found, state = chunked_attention(*args, chunk=chunk)
    assert torch.allclose(found, expected, **EXACT)
    assert torch.allclose(state, last, **EXACT)


@pytest.mark.parametrize("form", [recurrent_attention, chunked_attention])
def test_reading_goes_on_from_a_state_whose_size_does_not_grow(form) -> None:
    args = inputs()
    expected, last = form(*args)
    first, state = form(*(part[:, :, :4] for part in args))
    assert state.shape == last.shape == (2, 3, 5, 5)
    kept = state.clone()
    second, end = form(*(part[:, :, 4:] for part in args), state)
    assert torch.allclose(torch.cat((first, second), dim=2), expected, **EXACT)
    assert torch.allclose(end, last, **EXACT)
    assert torch.equal(state, kept)


def test_gradients_are_the_same_in_every_form() -> None:
    args, upstream = [part.requires_grad_() for part in inputs()], inputs()[2]
    results = (
        linear_attention(*args, is_causal=True),
        recurrent_attention(*args)[0],
        chunked_attention(*args, chunk=3)[0],
    )
    expected, *others = (torch.autograd.grad(out, args, upstream) for out in results)
    for gradients in others:
        for found, wanted in zip(gradients, expected, strict=True):
            assert torch.allclose(found, wanted, **EXACT)


def test_a_query_that_sees_nothing_gets_zeros() -> None:
    query, key, value = inputs()
    key[:, :, :2] = 0
    args = [part.requires_grad_() for part in (query, key, value)]
    for found in (
        linear_attention(*args, is_causal=True),
        recurrent_attention(*args)[0],
        chunked_attention(*args, chunk=3)[0],
    ):
        assert found[:, :, :2].abs().max() == 0
        assert found[:, :, 2:].abs().min() > 0
        gradients = torch.autograd.grad(found.sum(), args)
        assert all(bool(part.isfinite().all()) for part in gradients)


def test_features_that_underflow_are_no_division_by_zero() -> None:
    feature = feature_map(torch.full((1, 1, 3, 2), -60.0))
    found = linear_attention(feature, feature, torch.ones(1, 1, 3, 2), is_causal=True)
    assert feature.max() == 0
    assert found.abs().max() == 0


@pytest.mark.parametrize("chunk", [0, -1])
def test_a_chunk_needs_a_size(chunk: int) -> None:
    with pytest.raises(ValueError, match=f"chunk must be at least 1, not {chunk}"):
        chunked_attention(*inputs(), chunk=chunk)


def layer(**options) -> LinearAttention:
    made = LinearAttention(small_config("encoder", **options)).double()
    disturb(made)
    return made.eval()


def model_with(family: str = "decoder", **options) -> Transformer:
    """Return a Transformer in which every self-attention is linear."""
    model = small_model(family, dtype=torch.float64, **options).eval()
    for stack in filter(None, (model.encoder, model.decoder)):
        for block in stack.blocks:
            block.self_attention = LinearAttention(model.config).double()
    return model


@pytest.mark.parametrize("causal", [False, True])
def test_the_layer_applies_the_equation_to_each_head(causal: bool) -> None:
    ours, x = layer(), torch.randn(2, 70, 8, dtype=torch.float64)  # above one chunk
    query, key, value = (
        project(x).view(2, 70, 2, 4).transpose(1, 2)
        for project in (ours.project_query, ours.project_key, ours.project_value)
    )
    args = feature_map(query), feature_map(key), value
    mixed = linear_attention(*args, is_causal=causal)
    expected = ours.project_out(mixed.transpose(1, 2).reshape(2, 70, 8))
    assert torch.allclose(ours(x, is_causal=causal), expected, **EXACT)


def test_grouped_heads_are_full_heads_with_repeated_weights() -> None:
    options = {"num_heads": 4, "head_dim": 3, "bias": False}
    grouped, full = layer(num_kv_heads=2, **options), layer(**options)
    for name in ("project_query", "project_out"):
        getattr(full, name).load_state_dict(getattr(grouped, name).state_dict())
    for name in ("project_key", "project_value"):
        heads = getattr(grouped, name).weight.unflatten(0, (2, 3))
        getattr(full, name).weight.data = heads.repeat_interleave(2, 0).flatten(0, 1)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    assert torch.allclose(grouped(x), full(x), **EXACT)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"dropout": 0.5}])
def test_a_decoder_with_it_is_causal(options) -> None:
    model = model_with(**options)
    assert assert_causal(model, some_tokens()) < 1e-12


def test_an_encoder_with_it_sees_all_and_no_padding() -> None:
    model, tokens = model_with("encoder"), some_tokens(seq=9)
    assert_padding_invariant(lambda x, v: model(x, mask=padding(v)), tokens)
    no_order = model_with("encoder", position="none")
    assert_permutation_equivariant(no_order, torch.arange(9)[None])
    changed = tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 11
    moved = (model(changed) - model(tokens)).abs().amax(dim=(0, 2))
    assert moved.min() > 0


def test_a_mask_of_the_keys_may_differ_between_heads_and_be_causal_too() -> None:
    ours, x = layer(), torch.randn(1, 6, 8, dtype=torch.float64)
    mask = torch.ones(1, 2, 1, 6, dtype=torch.bool)
    mask[:, 1] = False  # the second head sees nothing: its part is zero
    mask[:, 0, :, 2] = False  # the first head does not see token 2
    out = ours(x, mask=mask, is_causal=True)
    other = x.clone()
    other[:, 2] += 1
    moved = (ours(other, mask=mask, is_causal=True) - out).abs().amax(-1)[0]
    assert (moved > 0).tolist() == [False, False, True, False, False, False]
    ours.project_out.weight.data[:, :4] = 0
    assert torch.allclose(ours(x, mask=mask), ours.project_out.bias.expand(1, 6, 8))


def test_a_model_with_it_trains_and_generates() -> None:
    model = model_with(num_decoder_layers=1)
    tokens = some_tokens()
    model(tokens).square().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        # A constant added to all queries or keys is no constant after φ.
        assert weight.grad.abs().max() > 0, name
    longer = generate(model, tokens, max_new_tokens=4, use_cache=False)
    assert longer.shape == (3, 11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": torch.zeros(1, 3, 8)}, "takes no memory"),
        ({"bias": torch.zeros(1, 1, 3, 3)}, "takes no bias"),
        ({"rotation": (torch.ones(1, 1, 3, 2),) * 2}, "takes no rotation"),
        ({"cache": KVCache().layer(0)}, "takes no cache"),
        ({"mask": torch.ones(1, 1, 3, 3, dtype=torch.bool)}, r"\(1, 1, 3, 3\)"),
    ],
)
def test_what_it_cannot_do_is_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearAttention(small_config())(torch.zeros(1, 3, 8), **options)


@pytest.mark.parametrize("position", ["rotary", "alibi", "relative"])
def test_positions_within_the_scores_are_refused(position: str) -> None:
    with pytest.raises(ValueError, match="linear attention takes no"):
        model_with(position=position)(some_tokens())


def test_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="mask of the keys alone"):
        model_with()(some_tokens(), mask=sliding_window(2))
