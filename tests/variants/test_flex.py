"""FlexAttention with the package's rules gives what the equation gives."""

from collections.abc import Iterator

import pytest
import torch
from small_models import no_shape_checks
from torch import Tensor

from tfcourse.model.attention import attention_weights
from tfcourse.model.masks import (
    MaskRule,
    both,
    causal,
    dense,
    padding,
    same_document,
    sliding_window,
)
from tfcourse.variants.flex import block_mask, flex_attention
from tfcourse.variants.sparse import big_bird, either, global_tokens, longformer
from tfcourse.variants.tiles import tiled_attention

BATCH, HEADS, SEQ, WIDTH = 2, 4, 150, 16  # two blocks of 128, the second not full
# Without a compiler torch says, rightly, that all scores are made.
UNFUSED = "ignore:flex_attention called without torch.compile:UserWarning"
RULES = [
    "none",
    "causal",
    "sliding window",
    "padding",
    "causal and padding",
    "documents",
    "global tokens",
    "longformer",
    "big bird",
    "by head",
]


@pytest.fixture(autouse=True)
def _rules_without_shape_checks() -> Iterator[None]:
    """FlexAttention traces rules, and cannot trace the tests' checks within them."""
    with no_shape_checks():
        yield


def first_head_sees_itself(
    batch: Tensor, head: Tensor, query: Tensor, key: Tensor
) -> Tensor:
    return (head > 0) | (key == query)


def rule_of(name: str, device: str = "cpu") -> MaskRule | None:
    valid = torch.ones(BATCH, SEQ, dtype=torch.bool, device=device)
    valid[0, 30:] = False
    valid[1, :9] = False  # the first rows of a causal mask see nothing then
    document = torch.arange(SEQ, device=device).expand(BATCH, -1) // 40
    return {
        "none": None,
        "causal": causal,
        "sliding window": sliding_window(5),
        "padding": padding(valid),
        "causal and padding": both(causal, padding(valid)),
        "documents": both(causal, same_document(document)),
        "global tokens": either(sliding_window(3), global_tokens(2)),
        "longformer": longformer(4, 1),
        "big bird": big_bird(8, 1),
        "by head": first_head_sees_itself,
    }[name]


def heads(count: int = HEADS, seq: int = SEQ, device: str = "cpu") -> Tensor:
    return torch.randn(BATCH, count, seq, WIDTH, device=device)


def dense_path(
    query: Tensor, key: Tensor, value: Tensor, scale: float, rule: MaskRule | None
) -> Tensor:
    group = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(group, dim=1) for part in (key, value))
    mask = None
    if rule is not None:
        query_slots, key_slots = (
            torch.arange(part.shape[2], device=part.device) for part in (query, key)
        )
        mask = dense(
            rule,
            batch=len(query),
            heads=query.shape[1],
            query=query_slots,
            key=key_slots,
        )
    return attention_weights(query, key, scale=scale, mask=mask) @ value


@pytest.mark.filterwarnings(UNFUSED)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("name", RULES)
def test_it_equals_the_dense_path(name: str, kv_heads: int) -> None:
    query, key, value = heads(), heads(kv_heads), heads(kv_heads)
    rule = rule_of(name)
    found = flex_attention(query, key, value, scale=0.3, rule=rule)
    expected = dense_path(query, key, value, 0.3, rule)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings(UNFUSED)
@pytest.mark.parametrize("name", ["causal", "padding", "by head"])
def test_queries_may_be_fewer_than_keys(name: str) -> None:
    query, key, value = heads(seq=7), heads(), heads()
    rule = rule_of(name)
    found = flex_attention(query, key, value, scale=0.3, rule=rule)
    expected = dense_path(query, key, value, 0.3, rule)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings(UNFUSED)
def test_a_query_that_may_see_nothing_gets_zeros() -> None:
    rule = rule_of("causal and padding")
    found = flex_attention(heads(), heads(), heads(), scale=1.0, rule=rule)
    assert found[1, :, :9].abs().max() == 0
    assert found[1, :, 9:].abs().min() > 0


@pytest.mark.filterwarnings(UNFUSED)
def test_three_paths_take_the_same_rule() -> None:
    args, rule = [heads() for _ in range(3)], rule_of("longformer")
    found = flex_attention(*args, scale=0.3, rule=rule)
    tiled = tiled_attention(*args, scale=0.3, rule=rule, tile=16)
    assert torch.allclose(found, tiled, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings(UNFUSED)
def test_a_block_mask_made_once_serves_many_calls() -> None:
    args, rule = [heads() for _ in range(3)], rule_of("sliding window")
    mask = block_mask(rule, *args[:2])
    expected = flex_attention(*args, scale=0.3, rule=rule)
    for _ in range(2):
        assert torch.equal(flex_attention(*args, scale=0.3, rule=mask), expected)


def test_a_block_mask_leaves_out_the_blocks_that_a_rule_forbids() -> None:
    query = heads(seq=512)
    open_mask = block_mask(lambda b, h, q, k: q >= 0, query, query)
    narrow = block_mask(sliding_window(5), query, query)
    assert open_mask.shape == narrow.shape == (BATCH, HEADS, 512, 512)
    assert open_mask.sparsity() == 0
    # Of 4 x 4 blocks the diagonal and the one before it are needed: 7 of 16.
    assert narrow.sparsity() == pytest.approx(100 * 9 / 16)


def test_gradients_are_refused_on_a_cpu() -> None:
    for index in range(3):
        args = [heads() for _ in range(3)]
        args[index].requires_grad_()
        with pytest.raises(ValueError, match="no gradients on device cpu"):
            flex_attention(*args, scale=1.0, rule=causal)


@pytest.mark.filterwarnings(UNFUSED)
def test_without_gradients_trained_weights_may_have_made_the_inputs() -> None:
    project = torch.nn.Linear(WIDTH, WIDTH)
    with torch.no_grad():
        args = [project(heads()) for _ in range(3)]
        found = flex_attention(*args, scale=0.3, rule=causal)
    assert torch.allclose(found, dense_path(*args, 0.3, causal), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings(UNFUSED)
def test_a_rule_may_hide_how_many_arguments_it_takes() -> None:
    class Rule:
        def __call__(self, *slots: Tensor) -> Tensor:
            return causal(*slots)

    args = [heads() for _ in range(3)]
    found = flex_attention(*args, scale=0.3, rule=Rule())
    assert torch.allclose(found, dense_path(*args, 0.3, causal), rtol=1e-5, atol=1e-6)


def test_the_compiled_kernel_is_chosen_and_made_once(monkeypatch) -> None:
    """The compiler itself is slow, and not on every machine: here it is replaced."""
    from tfcourse.variants import flex

    compiled: list[object] = []

    def compile_to_zeros(function):
        compiled.append(function)
        return lambda query, *args, **options: torch.zeros_like(query)

    monkeypatch.setattr(torch, "compile", compile_to_zeros)
    flex._compiled.cache_clear()
    try:
        for _ in range(2):
            found = flex_attention(*[heads()] * 3, scale=1.0, compiled=True)
            assert found.abs().max() == 0
        assert compiled == [flex.torch_flex_attention]
    finally:
        flex._compiled.cache_clear()


needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs CUDA: gradients and the fused kernel"
)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("name", RULES)
def test_on_a_gpu_values_and_gradients_equal_the_dense_path(
    name: str, kv_heads: int
) -> None:
    inputs = [heads(count, device="cuda") for count in (HEADS, kv_heads, kv_heads)]
    for part in inputs:
        part.requires_grad_()
    rule, upstream = rule_of(name, "cuda"), heads(device="cuda")
    found = flex_attention(*inputs, scale=0.3, rule=rule, compiled=True)
    expected = dense_path(*inputs, 0.3, rule)
    # The kernel multiplies in TensorFloat-32 where the device has it.
    tolerance = {"rtol": 1e-2, "atol": 1e-2}
    assert torch.allclose(found, expected, **tolerance)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, **tolerance)


@pytest.mark.gpu
@needs_cuda
def test_on_a_gpu_memory_grows_linearly_with_the_length() -> None:
    peaks = []
    for seq in (4096, 16384):
        args = [torch.randn(1, 1, seq, 64, device="cuda") for _ in range(3)]
        mask = block_mask(sliding_window(128), *args[:2])
        flex_attention(*args, scale=0.125, rule=mask, compiled=True)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        flex_attention(*args, scale=0.125, rule=mask, compiled=True)
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < 6 * peaks[0]  # four times the length; the table takes 16 times
