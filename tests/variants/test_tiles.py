"""Attention in tiles is exact, in both directions, and makes no table of all scores."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tfcourse.model.attention import attention_weights, fused_attention
from tfcourse.model.masks import (
    MaskRule,
    both,
    causal,
    dense,
    padding,
    same_document,
    sliding_window,
)
from tfcourse.variants.tiles import tiled_attention

BATCH, HEADS, SEQ, WIDTH = 2, 3, 12, 4
VALID = torch.ones(BATCH, SEQ, dtype=torch.bool)
VALID[0, 7:] = False
VALID[1, :5] = False  # the first rows of a causal mask see nothing then
TILES = [1, 4, 5, 12, 100]


def even_heads_see_even_slots(
    batch: Tensor, head: Tensor, query: Tensor, key: Tensor
) -> Tensor:
    return (head % 2 == 1) | (key % 2 == 0)


def before_slot_three(
    batch: Tensor, head: Tensor, query: Tensor, key: Tensor
) -> Tensor:
    return query < 3


RULES: dict[str, MaskRule | None] = {
    "none": None,
    "causal": causal,
    "sliding window": sliding_window(3),
    "padding": padding(VALID),
    "causal and padding": both(causal, padding(VALID)),
    "documents": same_document(torch.arange(SEQ).expand(BATCH, -1) // 5),
    "by head": even_heads_see_even_slots,
    "of queries alone": before_slot_three,
}


def heads(seq: int = SEQ, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(BATCH, HEADS, seq, WIDTH, dtype=dtype)


def written(rule: MaskRule | None, queries: int = SEQ) -> Tensor | None:
    if rule is None:
        return None
    slots = torch.arange(SEQ)
    return dense(rule, batch=BATCH, heads=HEADS, query=slots[:queries], key=slots)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("rule", RULES)
def test_tiles_give_what_all_scores_at_once_give(rule: str, tile: int) -> None:
    query, key, value = heads(), heads(), heads()
    found = tiled_attention(query, key, value, scale=0.7, rule=RULES[rule], tile=tile)
    mask = written(RULES[rule])
    weights = attention_weights(query, key, scale=0.7, mask=mask)
    fused = fused_attention(query, key, value, scale=0.7, mask=mask)
    assert torch.allclose(found, weights @ value, rtol=1e-12, atol=1e-14)
    assert torch.allclose(found, fused, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rule", RULES)
def test_fewer_queries_than_keys_are_the_first(rule: str) -> None:
    query, key, value = heads(5), heads(), heads()
    found = tiled_attention(query, key, value, scale=0.7, rule=RULES[rule], tile=4)
    mask = written(RULES[rule], queries=5)
    weights = attention_weights(query, key, scale=0.7, mask=mask)
    assert torch.allclose(found, weights @ value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("rule", RULES)
def test_gradients_are_those_of_the_equation(rule: str, tile: int) -> None:
    inputs = [heads().requires_grad_() for _ in range(3)]
    query, key, value = inputs
    upstream = heads()
    found = tiled_attention(*inputs, scale=0.7, rule=RULES[rule], tile=tile)
    weights = attention_weights(query, key, scale=0.7, mask=written(RULES[rule]))
    expected = torch.autograd.grad(weights @ value, inputs, upstream)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, upstream), expected, strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    def run(*inputs: Tensor) -> Tensor:
        return tiled_attention(*inputs, scale=0.7, rule=RULES["padding"], tile=5)

    inputs = tuple(heads().requires_grad_() for _ in range(3))
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


def test_second_derivatives_are_refused() -> None:
    x = heads().requires_grad_()
    found = tiled_attention(x, x, x, scale=1.0).sum()
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(found, x, create_graph=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_query_that_may_see_nothing_gets_zeros_and_no_gradient(
    dtype: torch.dtype,
) -> None:
    inputs = [heads(dtype=dtype).requires_grad_() for _ in range(3)]
    found = tiled_attention(*inputs, scale=1.0, rule=RULES["causal and padding"])
    assert found[1, :, :5].abs().max() == 0
    assert found[1, :, 5:].abs().min() > 0
    gradients = torch.autograd.grad(found.square().sum(), inputs)
    assert gradients[0][1, :, :5].abs().max() == 0
    assert all(part[1, :, :5].abs().max() == 0 for part in gradients)
    assert all(bool(part.isfinite().all()) for part in gradients)


@pytest.mark.parametrize("middle", [-5000, 0, 5000])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("tile", [1, 5, 100])
def test_scores_of_ten_thousand_do_not_overflow(
    tile: int, sign: int, middle: int
) -> None:
    """Rising and falling scores: the largest comes last, and first."""
    query, value = torch.ones(BATCH, HEADS, SEQ, WIDTH), heads(dtype=torch.float32)
    steps = middle + torch.linspace(-2500, 2500, SEQ)[:, None] * sign
    inputs = [query, steps.expand(BATCH, HEADS, SEQ, WIDTH).clone(), value]
    for part in inputs:
        part.requires_grad_()
    found = tiled_attention(*inputs, scale=1.0, tile=tile)
    top = value[:, :, -1:] if sign == 1 else value[:, :, :1]
    assert torch.allclose(found, top.expand_as(found))
    gradients = torch.autograd.grad(found.sum(), inputs)
    assert all(bool(part.isfinite().all()) for part in gradients)


class Largest(TorchDispatchMode):
    """Note the most elements of a tensor that any operation makes."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for part in tree_leaves(made):
            if isinstance(part, Tensor):
                self.size = max(self.size, part.numel())
        return made


def largest_and_saved(seq: int, tile: int, rule: MaskRule | None) -> tuple[int, int]:
    """Return the largest tensor of both passes, and all that is kept between them."""
    inputs = [torch.randn(1, 1, seq, WIDTH, requires_grad=True) for _ in range(3)]
    saved: dict[int, int] = {}

    def pack(part: Tensor) -> Tensor:
        saved[part.data_ptr()] = part.numel()
        return part

    with Largest() as largest:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda part: part):
            found = tiled_attention(*inputs, scale=1.0, rule=rule, tile=tile)
        found.sum().backward()
    return largest.size, sum(saved.values())


@pytest.mark.parametrize("rule", [None, causal, sliding_window(3)])
@pytest.mark.parametrize("seq", [64, 256])
def test_memory_grows_linearly_with_the_length(seq: int, rule: MaskRule | None) -> None:
    tile = 8
    largest, saved = largest_and_saved(seq, tile, rule)
    assert largest <= seq * max(tile, WIDTH)
    # Query, key, value, the output, and a number for each row.
    assert saved == seq * (4 * WIDTH + 1)


def test_the_measure_of_memory_sees_a_table_of_scores() -> None:
    largest, _ = largest_and_saved(64, 64, None)
    assert largest == 64 * 64
    with Largest() as one:
        heads() @ heads().mT
    assert one.size == BATCH * HEADS * SEQ * SEQ


def test_tiles_that_a_rule_forbids_are_skipped() -> None:
    """Outside the allowed tiles even a value of nan does no harm."""
    query, key, value = heads(), heads(), heads()
    value[:, :, 8:] = torch.nan
    found = tiled_attention(query, key, value, scale=1.0, rule=causal, tile=4)
    assert bool(found[:, :, :8].isfinite().all())
    assert bool(found[:, :, 8:].isnan().all())


@pytest.mark.parametrize("tile", [0, -1])
def test_a_tile_needs_a_size(tile: int) -> None:
    with pytest.raises(ValueError, match=f"tile must be at least 1, not {tile}"):
        tiled_attention(heads(), heads(), heads(), scale=1.0, tile=tile)
