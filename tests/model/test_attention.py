"""Attention against torch's own, in both of its paths: the equation and the kernel."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_models import (
    copied_attention,
    disturb,
    small_config,
    small_model,
    some_tokens,
    source_for,
)
from torch import Tensor

from tfcourse.model import attention
from tfcourse.model.attention import (
    FEW_KEYS,
    Attention,
    attention_weights,
    fused_attention,
    record_attention,
)
from tfcourse.model.masks import causal, dense
from tfcourse.model.positions import position_scheme
from tfcourse.probes import assert_matches_reference

BATCH, HEADS, QUERIES, KEYS, WIDTH = 2, 3, 4, 5, 6
GENERATOR = torch.Generator().manual_seed(0)


def heads(seq: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(BATCH, HEADS, seq, WIDTH, dtype=dtype)


def random_mask(*shape: int) -> Tensor:
    """Return a mask in which every row may attend to something."""
    mask = torch.rand(shape, generator=GENERATOR) < 0.6
    mask[..., 0] = True
    return mask


def random_bias(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


MASKS = {
    "none": None,
    "full": random_mask(BATCH, HEADS, QUERIES, KEYS),
    "of keys": random_mask(BATCH, 1, 1, KEYS),
    "of queries and keys": random_mask(QUERIES, KEYS),
}
BIASES = {
    "none": None,
    "full": random_bias(BATCH, HEADS, QUERIES, KEYS),
    "shared by rows": random_bias(1, HEADS, QUERIES, KEYS),
}


def both_paths(*args: Tensor, **options: Any) -> list[Tensor]:
    query, key, value = args
    weights = attention_weights(query, key, **options)
    return [weights @ value, fused_attention(query, key, value, **options)]


def layer(family: str = "encoder", **options: Any) -> Attention:
    made = Attention(small_config(family, **options)).double()
    disturb(made)
    return made.eval()


def test_the_weights_are_those_computed_by_hand() -> None:
    query = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    key = torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])
    found = attention_weights(query, key, scale=0.5)
    first = math.exp(1.5) / (math.exp(1.5) + 1)
    second = 1 / (1 + math.exp(1.0))
    expected = torch.tensor([[[first, 1 - first], [second, 1 - second]]])
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("scale", [WIDTH**-0.5, 1.0])
def test_both_paths_equal_torchs(mask: str, bias: str, scale: float) -> None:
    query, key, value = heads(QUERIES), heads(KEYS), heads(KEYS)
    allowed, added = MASKS[mask], BIASES[bias]
    additive = torch.zeros(BATCH, HEADS, QUERIES, KEYS, dtype=torch.float64)
    if added is not None:
        additive = additive + added
    if allowed is not None:
        additive = additive.masked_fill(~allowed, float("-inf"))
    expected = F.scaled_dot_product_attention(
        query, key, value, attn_mask=additive, scale=scale
    )
    for found in both_paths(query, key, value, scale=scale, mask=allowed, bias=added):
        assert torch.allclose(found, expected)


def test_is_causal_is_the_causal_rule_written_out() -> None:
    query, key, value = heads(KEYS), heads(KEYS), heads(KEYS)
    found = fused_attention(query, key, value, scale=1.0, is_causal=True)
    slots = torch.arange(KEYS)
    mask = dense(causal, batch=BATCH, query=slots, key=slots)
    for expected in both_paths(query, key, value, scale=1.0, mask=mask):
        assert torch.allclose(found, expected)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_row_that_may_see_nothing_is_zero_and_so_is_its_gradient(
    dtype: torch.dtype, bias: str
) -> None:
    query, key, value = heads(QUERIES, dtype), heads(KEYS, dtype), heads(KEYS, dtype)
    mask = random_mask(BATCH, 1, QUERIES, KEYS)
    mask[0, :, 2] = False
    mask[1] = False
    added = BIASES[bias]
    added = None if added is None else added.to(dtype)
    inputs = [part.requires_grad_() for part in (query, key, value)]
    for found in both_paths(*inputs, scale=0.4, mask=mask, bias=added):
        assert found[1].abs().max() == 0
        assert found[0, :, 2].abs().max() == 0
        assert found[0, :, 3].abs().min() > 0
        gradients = torch.autograd.grad(found.square().sum(), inputs)
        assert all(bool(part.isfinite().all()) for part in gradients)
        assert all(part[1].abs().max() == 0 for part in gradients)
        assert gradients[0][0, :, 2].abs().max() == 0


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("path", [0, 1], ids=["equation", "kernel"])
def test_gradients_are_right(mask: str, path: int) -> None:
    inputs = [heads(seq).requires_grad_() for seq in (QUERIES, KEYS, KEYS)]
    bias = BIASES["full"].clone().requires_grad_()

    def run(*args: Tensor) -> Tensor:
        *qkv, added = args
        return both_paths(*qkv, scale=0.5, mask=MASKS[mask], bias=added)[path]

    assert torch.autograd.gradcheck(run, (*inputs, bias), fast_mode=True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("crossed", [False, True], ids=["self", "cross"])
@pytest.mark.parametrize("masked", [False, True], ids=["open", "masked"])
def test_the_layer_equals_torchs_output_and_weights(
    bias: bool, crossed: bool, masked: bool
) -> None:
    ours = layer(bias=bias)
    theirs = copied_attention(ours, 8)
    x = torch.randn(2, 4, 8, dtype=torch.float64)
    memory = torch.randn(2, 6, 8, dtype=torch.float64) if crossed else None
    seen = x if memory is None else memory
    mask = random_mask(2, 2, 4, seen.shape[1]) if masked else None
    dropped = None if mask is None else ~mask.flatten(0, 1)  # torch: True = drop
    expected, weights = theirs(
        x, seen, seen, attn_mask=dropped, average_attn_weights=False
    )
    assert_matches_reference(lambda: ours(x, memory, mask=mask), lambda: expected)
    with record_attention(ours) as recorded:
        assert_matches_reference(lambda: ours(x, memory, mask=mask), lambda: expected)
    assert torch.allclose(recorded[""], weights)


@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("crossed", [False, True], ids=["self", "cross"])
def test_grouped_heads_are_full_heads_with_repeated_weights(
    kv_heads: int, crossed: bool
) -> None:
    grouped = layer(num_heads=4, num_kv_heads=kv_heads, head_dim=3)
    full = layer(num_heads=4, head_dim=3)
    for name in ("weight", "bias"):
        parts = getattr(grouped.project_in, name).split(grouped.sizes)
        repeated = [
            # Query heads 0 and 1 share key head 0; heads 2 and 3 share key head 1.
            part.unflatten(0, (kv_heads, 3)).repeat_interleave(4 // kv_heads, 0)
            for part in parts[1:]
        ]
        whole = torch.cat([parts[0], *(part.flatten(0, 1) for part in repeated)])
        getattr(full.project_in, name).data = whole
    full.project_out.load_state_dict(grouped.project_out.state_dict())
    x, memory = torch.randn(2, 2, 5, 8, dtype=torch.float64)
    seen = memory if crossed else None
    assert_matches_reference(lambda: grouped(x, seen), lambda: full(x, seen))


def test_queries_and_keys_are_turned_and_values_are_not() -> None:
    ours = layer()
    scheme = position_scheme(small_config(position="rotary"), causal=True).double()
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    same_place = scheme.rotation(torch.full((2, 3), 7))
    assert torch.allclose(ours(x, rotation=same_place), ours(x))
    places = scheme.rotation(torch.arange(3).expand(2, 3))
    assert not torch.allclose(ours(x, rotation=places), ours(x), atol=1e-3)


@pytest.mark.parametrize(("scaled", "scale"), [(True, 0.5), (False, 1.0)])
def test_scores_are_divided_by_the_root_of_the_head_width(
    scaled: bool, scale: float
) -> None:
    assert layer(scale_scores=scaled).scale == scale  # heads of width 4


@pytest.mark.parametrize("recording", [False, True])
def test_dropout_acts_on_the_weights_in_training_only(recording: bool) -> None:
    """With values of one, an output is the sum of the weights that were kept."""
    ours = Attention(small_config(dropout=0.5, num_heads=1))
    with torch.no_grad():
        ours.project_in.weight.zero_()  # equal scores
        ours.project_in.bias.copy_(torch.cat((torch.zeros(16), torch.ones(8))))
        ours.project_out.weight.copy_(torch.eye(8))
        ours.project_out.bias.zero_()
    x = torch.randn(50, 20, 8)

    def run() -> Tensor:
        if not recording:
            return ours(x)
        with record_attention(ours) as weights:
            out = ours(x)
        assert torch.allclose(weights[""], torch.tensor(1 / 20))  # before dropout
        return out

    kept = run()
    assert kept.mean().item() == pytest.approx(1.0, abs=0.05)
    assert kept.std().item() == pytest.approx(20**-0.5, rel=0.1)
    ours.eval()
    assert torch.allclose(run(), torch.ones(()))


FAMILY_LAYERS = {
    "encoder": {"encoder.blocks.0.self_attention", "encoder.blocks.1.self_attention"},
    "decoder": {"decoder.blocks.0.self_attention", "decoder.blocks.1.self_attention"},
}
FAMILY_LAYERS["encoder-decoder"] = {
    *FAMILY_LAYERS["encoder"],
    *FAMILY_LAYERS["decoder"],
    "decoder.blocks.0.cross_attention",
    "decoder.blocks.1.cross_attention",
}


@pytest.mark.parametrize("family", FAMILY_LAYERS)
def test_recording_names_every_layer_and_changes_no_output(family: str) -> None:
    model = small_model(family, dtype=torch.float64, num_heads=4, num_kv_heads=2)
    tokens, given = some_tokens(), source_for(model)
    fast = model(tokens, **given)
    with record_attention(model) as weights:
        assert torch.allclose(model(tokens, **given), fast)
    assert set(weights) == FAMILY_LAYERS[family]
    for name, weight in weights.items():
        keys = 5 if "cross" in name or (given and "encoder" in name) else 7
        queries = 5 if given and name.startswith("encoder") else 7
        assert weight.shape == (3, 4, queries, keys)
        assert not weight.requires_grad
        assert torch.allclose(weight.sum(-1), torch.ones((), dtype=torch.float64))
        if name.startswith("decoder") and "self" in name:
            assert weight.triu(1).abs().max() == 0
    assert torch.equal(model(tokens, **given), fast)  # the kernel again
    assert all(part.record is None for part in layers_of(model))


def layers_of(model: torch.nn.Module) -> list[Attention]:
    return [part for part in model.modules() if isinstance(part, Attention)]


def test_gradients_flow_while_recording() -> None:
    model = small_model(dtype=torch.float64)
    tokens = some_tokens()
    gradients = []
    for recording in (False, True):
        model.zero_grad()
        if recording:
            with record_attention(model):
                model(tokens).square().sum().backward()
        else:
            model(tokens).square().sum().backward()
        gradients.append([weight.grad for weight in model.parameters()])
    for fast, slow in zip(*gradients, strict=True):
        assert torch.allclose(fast, slow)


def test_recording_ends_after_an_error() -> None:
    model = small_model()
    with pytest.raises(ValueError, match="token id"), record_attention(model):
        model(torch.full((1, 2), 99))
    assert all(part.record is None for part in layers_of(model))


def test_a_layer_called_again_replaces_its_record() -> None:
    model = small_model(num_decoder_layers=1)
    with record_attention(model) as weights:
        model(some_tokens(seq=7))
        model(some_tokens(seq=2))
    assert weights["decoder.blocks.0.self_attention"].shape == (3, 2, 2, 2)


def test_a_model_without_attention_cannot_be_recorded() -> None:
    with (
        pytest.raises(ValueError, match="Linear has no Attention"),
        record_attention(torch.nn.Linear(2, 2)),
    ):
        pytest.fail("the block must not be entered")


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(
    ("keys", "training", "dtype", "by_kernel"),
    [
        (FEW_KEYS, True, torch.bfloat16, False),
        (FEW_KEYS + 1, True, torch.bfloat16, True),
        (FEW_KEYS, False, torch.bfloat16, True),
        (FEW_KEYS, True, torch.float32, True),
    ],
)
def test_gradients_of_few_keys_in_16_bits_are_not_left_to_the_kernel(
    monkeypatch,
    keys: int,
    training: bool,
    dtype: torch.dtype,
    by_kernel: bool,
    autocast,
) -> None:
    calls = []

    def counted(*arguments: Tensor, **options: Any) -> Tensor:
        calls.append(options["is_causal"])
        return fused_attention(*arguments, **options)

    layer = Attention(small_config())
    x = torch.randn(2, keys, small_config().d_model)
    expected = layer(x, is_causal=True)
    monkeypatch.setattr(attention, "fused_attention", counted)
    if not autocast:
        layer, x = layer.to(dtype), x.to(dtype)
    with (
        torch.set_grad_enabled(training),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        mixed = layer(x, is_causal=True)
    narrow = autocast or dtype == torch.bfloat16
    assert mixed.dtype == (torch.bfloat16 if narrow else torch.float32)
    by_kernel = by_kernel and not (autocast and training and keys == FEW_KEYS)
    assert calls == [True] * by_kernel
    torch.testing.assert_close(mixed.float(), expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_weights_in_16_bits_are_not_kept_and_their_gradient_is_the_same(
    dropout: float,
) -> None:
    layer = Attention(small_config(inner_dropout=dropout)).bfloat16()
    x = torch.randn(2, 9, small_config().d_model, dtype=torch.bfloat16)
    kept: list[torch.Size] = []

    def gradient(*, recorded: bool) -> list[Tensor]:
        kept.clear()
        layer.zero_grad()
        layer.record = (lambda weight: None) if recorded else None
        torch.manual_seed(1)

        def keep(tensor: Tensor) -> Tensor:
            kept.append(tensor.shape)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            mixed = layer(x, is_causal=True)
        mixed.square().sum().backward()
        return [p.grad.clone() for p in layer.parameters()]

    expected = gradient(recorded=True)
    assert any(shape[-2:] == (9, 9) for shape in kept)
    found = gradient(recorded=False)
    assert kept
    assert not any(shape[-2:] == (9, 9) for shape in kept)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
