"""Costs are counted as one would by hand."""

import time

import pytest
import torch
from torch import nn

from tfcourse.course import costs
from tfcourse.course.costs import bytes_kept, flops, longest_chain, race
from tfcourse.model.attention import record_attention
from tfcourse.model.config import TransformerConfig
from tfcourse.model.transformer import Transformer


def chain_of_cells(cell: nn.RNNCellBase, steps: int) -> torch.Tensor:
    state = None
    for token in torch.randn(steps, 1, 8):
        found = cell(token, state)
        state, hidden = found, found[0] if isinstance(found, tuple) else found
    return hidden


def test_flops_are_two_for_each_multiplication() -> None:
    layer, x = nn.Linear(8, 4), torch.randn(3, 8)
    assert flops(lambda: layer(x)) == 2 * 3 * 8 * 4


def test_flops_of_attention_are_those_of_the_equation() -> None:
    sizes = {"vocab_size": 4, "d_model": 8, "num_heads": 2, "d_ff": 8}
    config = TransformerConfig(**sizes, max_seq_len=16, num_decoder_layers=1)
    attention = Transformer(config).decoder.blocks[0].self_attention
    with record_attention(attention):
        counted = flops(lambda: attention(torch.randn(1, 16, 8), is_causal=True))
    assert counted == 2 * 16 * (4 * 8 * 8 + 2 * 16 * 8)


@pytest.mark.parametrize(
    "cell", [nn.RNNCell(8, 8), nn.LSTMCell(8, 8), nn.GRUCell(8, 8)]
)
def test_a_recurrent_cell_waits_for_each_token(cell: nn.RNNCellBase) -> None:
    assert longest_chain(chain_of_cells(cell, 12)) == 12


@pytest.mark.parametrize("length", [4, 16])
def test_attention_is_four_products_deep_at_any_length(length: int) -> None:
    x = torch.randn(1, 2, length, 8, requires_grad=True)
    mixed = (x @ x.mT).softmax(-1) @ x  # projections before and after: two more
    assert longest_chain(mixed) == 2
    fused = nn.functional.scaled_dot_product_attention(x, x, x)
    assert longest_chain(fused) == 2


def test_other_steps_can_be_counted() -> None:
    x = torch.ones(3, requires_grad=True)
    assert longest_chain(x * x * x + x, {"Mul": 1}) == 2
    assert longest_chain(x * x * x + x) == 0


def test_a_chain_that_cannot_be_seen_is_refused() -> None:
    with pytest.raises(ValueError, match="no record"):
        longest_chain(torch.ones(3))
    with pytest.raises(ValueError, match=r"MkldnnRnnLayer.* hides its steps"):
        costs._products("MkldnnRnnLayerBackward0", costs.PRODUCTS)


def test_bytes_kept_counts_a_storage_once_and_no_inputs() -> None:
    x, y = torch.randn(10, requires_grad=True), torch.randn(10)
    assert bytes_kept(lambda: x * y, x, y) == 0
    assert bytes_kept(lambda: x * y) == 80 - 40  # y alone: only x needs a gradient
    assert bytes_kept(lambda: x.exp() * y, x, y) == 40
    assert bytes_kept(lambda: (x.exp() * y).exp(), x, y) == 80


def test_a_race_takes_turns_and_drops_the_first_round() -> None:
    order: list[str] = []

    def first() -> None:
        order.append("a")
        if len(order) == 1:
            spend(0.05)

    def second() -> None:
        order.append("b")
        spend(0.01)

    quick, slow = race(first, second, rounds=3)
    assert "".join(order) == "abababab"
    assert quick < 0.005 < slow
    with pytest.raises(ValueError, match="rounds must be at least 1, not 0"):
        race(first, rounds=0)


def spend(seconds: float) -> None:
    start = time.process_time()
    while time.process_time() - start < seconds:
        pass
