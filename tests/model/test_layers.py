"""Blocks against torch's layers, and their parts against the formulas."""

import pytest
import torch
from small_models import copied_block, disturb, small_config
from torch import Tensor, nn

from tfcourse.model.layers import Block, FeedForward, Residual, make_norm
from tfcourse.model.masks import padding
from tfcourse.model.transformer import Stack
from tfcourse.probes import assert_matches_reference

PADDED = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)


def vectors(seq: int) -> Tensor:
    return torch.randn(2, seq, 8, dtype=torch.float64)


@pytest.mark.parametrize("crossed", [False, True], ids=["encoder", "decoder"])
@pytest.mark.parametrize("norm_order", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_stack_equals_torchs(
    crossed: bool, norm_order: str, activation: str, bias: bool
) -> None:
    config = small_config(
        "encoder-decoder" if crossed else "encoder",
        norm_order=norm_order,
        activation=activation,
        bias=bias,
        norm_eps=1e-3,
        position="none",
    )
    ours = Stack(config, is_decoder=crossed)
    disturb(ours)  # also makes the two layers differ
    ours = ours.double().eval()
    theirs = [copied_block(block, config).double() for block in ours.blocks]
    last = nn.LayerNorm(8, eps=1e-3, bias=bias).double()
    if norm_order == "pre":
        last.load_state_dict(ours.last_norm.state_dict())
    x, memory = vectors(4), vectors(5)
    allowed = torch.ones(4, 4, dtype=torch.bool).tril()

    def run_ours() -> Tensor:
        if crossed:
            return ours(x, memory, memory_mask=padding(PADDED))
        return ours(memory, mask=padding(PADDED))

    def run_theirs() -> Tensor:
        y = x if crossed else memory
        for block in theirs:  # torch: True = drop
            if crossed:
                y = block(y, memory, ~allowed, memory_key_padding_mask=~PADDED)
            else:
                y = block(y, src_key_padding_mask=~PADDED)
        return y if norm_order == "post" else last(y)

    assert_matches_reference(run_ours, run_theirs)


def test_is_causal_and_a_written_mask_are_one_path_to_a_block() -> None:
    block = Block(small_config(), has_cross_attention=False).double().eval()
    x, allowed = vectors(4), torch.ones(4, 4, dtype=torch.bool).tril()
    assert_matches_reference(
        lambda: block(x, own={"is_causal": True}),
        lambda: block(x, own={"mask": allowed}),
    )


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_norms_are_their_formulas(kind: str) -> None:
    norm = make_norm(small_config(norm=kind, norm_eps=0.1)).double()
    disturb(norm)
    x = vectors(3) + 1
    centred = x - x.mean(-1, keepdim=True) if kind == "layer" else x
    expected = centred / (centred.square().mean(-1, keepdim=True) + 0.1).sqrt()
    expected = expected * norm.weight + (norm.bias if kind == "layer" else 0)
    assert torch.allclose(norm(x), expected)


def test_a_norm_has_a_bias_only_if_asked_for() -> None:
    assert make_norm(small_config(bias=False)).bias is None


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", lambda x: x.clamp(min=0)),
        ("gelu", lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2),
        (
            "gelu_tanh",
            lambda x: (
                x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2
            ),
        ),
        ("silu", lambda x: x / (1 + torch.exp(-x))),
    ],
)
def test_the_feed_forward_network_is_its_formula(name, function, gated: bool) -> None:
    ours = FeedForward(small_config(activation=name, gated=gated)).double().eval()
    disturb(ours)
    x = vectors(3)
    wide = ours.widen(x)
    hidden = function(wide) if ours.gate is None else function(ours.gate(x)) * wide
    assert (ours.gate is not None) == gated
    assert ours.gate is None or ours.gate.bias is not None
    plain = FeedForward(small_config(gated=gated, bias=False))
    assert {name for name, _ in plain.named_parameters()} == {
        f"{part}.weight" for part in ("widen", "narrow", *(["gate"] if gated else []))
    }
    assert torch.allclose(ours(x), ours.narrow(hidden))


@pytest.mark.parametrize("norm_order", ["pre", "post"])
def test_the_residual_path_is_its_formula(norm_order: str) -> None:
    path = Residual(small_config(norm_order=norm_order)).double().eval()
    disturb(path)
    x, layer = vectors(3), nn.Linear(8, 8).double()
    pre, post = x + layer(path.norm(x)), path.norm(x + layer(x))
    assert torch.allclose(path(x, layer), pre if norm_order == "pre" else post)
    assert not torch.allclose(pre, post, atol=0.1)


@pytest.mark.parametrize("norm_order", ["pre", "post"])
def test_dropout_spares_the_residual_stream(norm_order: str) -> None:
    path = Residual(small_config(norm_order=norm_order, dropout=0.5))
    x = torch.ones(1, 500, 8)
    path.norm = nn.Identity()
    assert set(path(x, lambda y: y).unique().tolist()) == {1.0, 3.0}  # 1 + 0, 1 + 2


def test_dropout_acts_between_the_two_maps_of_the_network() -> None:
    ours = FeedForward(small_config(dropout=0.5, d_ff=1))
    x = torch.randn(1, 1, 8).expand(1, 500, 8)
    with torch.no_grad():
        ours.widen.weight.zero_()
        ours.widen.bias.fill_(1.0)
    out = ours(x)[0, :, 0]
    dropped, kept = (
        ours.narrow.bias[0],
        ours.narrow.bias[0] + 2 * ours.narrow.weight[0, 0],
    )
    assert torch.allclose(out.unique(), torch.stack((dropped, kept)).sort().values)


def test_inner_dropout_is_of_attention_weights_and_hidden_units_alone() -> None:
    block = Block(
        small_config(dropout=0.5, inner_dropout=0.0), has_cross_attention=True
    )
    for path in (block.around_self, block.around_cross, block.around_feed_forward):
        path.dropout = nn.Identity()
    x, memory = vectors(5).float(), vectors(3).float()
    first, second = block(x, memory), block(x, memory)
    assert torch.equal(first, second)
    dropped = Block(
        small_config(dropout=0.0, inner_dropout=0.5), has_cross_attention=True
    )
    for part in (dropped.self_attention, dropped.feed_forward):
        assert not torch.equal(part(x), part(x))
    assert not torch.equal(
        dropped.cross_attention(x, memory), dropped.cross_attention(x, memory)
    )
