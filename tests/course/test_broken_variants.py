"""Planted bugs in experts and linear attention do what they say, and leave no trace."""

import pytest
import torch

from tfcourse.course import broken_variants
from tfcourse.model.config import TransformerConfig
from tfcourse.model.transformer import Transformer
from tfcourse.probes import assert_causal
from tfcourse.variants.experts import Experts
from tfcourse.variants.linear_attention import LinearAttention

SMALL = TransformerConfig(
    vocab_size=16,
    d_model=16,
    num_heads=2,
    d_ff=32,
    max_seq_len=16,
    num_decoder_layers=1,
    position="none",
)
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])


def router_gradient(layer: Experts, x: torch.Tensor) -> float:
    layer.zero_grad()
    (layer(x) * torch.randn(x.shape)).sum().backward()
    gradient = layer.router.weight.grad
    assert gradient is not None
    return float(gradient.norm())


def test_a_single_choice_that_is_normalised_leaves_the_router_without_gradient() -> (
    None
):
    layer, x = Experts(SMALL, 4, 1), torch.randn(2, 6, 16)
    right = layer(x)
    assert router_gradient(layer, x) > 1e-3
    with broken_variants.single_choice_normalised(layer):
        assert router_gradient(layer, x) < 1e-5
        assert not torch.allclose(layer(x), right)
    assert torch.equal(layer(x), right)
    assert router_gradient(layer, x) > 1e-3


def test_normalising_is_no_bug_where_two_are_chosen() -> None:
    with (
        pytest.raises(ValueError, match="top_k=1, not 2"),
        broken_variants.single_choice_normalised(Experts(SMALL, 4, 2)),
    ):
        pass


def test_a_divisor_that_sees_the_future_is_found_by_the_causal_probe() -> None:
    model = Transformer(SMALL)
    assert model.decoder is not None
    model.decoder.blocks[0].self_attention = LinearAttention(SMALL)
    assert_causal(model, TOKENS)
    with (
        broken_variants.divisor_sees_future(),
        pytest.raises(AssertionError, match="looks ahead"),
    ):
        assert_causal(model, TOKENS)
    assert_causal(model, TOKENS)
