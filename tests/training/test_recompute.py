"""Recomputed blocks give the same gradients from less memory."""

import pytest
import torch
from small_models import FAMILIES, small_model
from small_runs import BATCHES, run, small_transformer
from torch import nn

from tfcourse.model.layers import Block
from tfcourse.training.recompute import recomputed
from tfcourse.training.step import backward


def kept_bytes(model: nn.Module) -> int:
    """Return the bytes that a forward pass saves for going backward."""
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        batch = BATCHES[0]
        model(batch.tokens, batch.source, source_mask=batch.source_mask).sum()
    return sum(sizes.values())


def test_a_run_is_bit_for_bit_the_same_with_dropout() -> None:
    plain, ours = small_transformer(), small_transformer()
    history = run(None, steps=6, model=plain)
    with recomputed(ours):
        again = run(None, steps=6, model=ours)
    assert again.losses == history.losses
    assert again.gradient_norms == history.gradient_norms
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, ours.state_dict()[name])


def test_each_block_is_computed_twice_and_keeps_less() -> None:
    model = small_model("encoder-decoder", num_encoder_layers=6, num_decoder_layers=6)
    calls: list[nn.Module] = []
    for block in model.modules():
        if isinstance(block, Block):
            # Before, not after: a second pass ends where nothing more is needed.
            block.feed_forward.register_forward_pre_hook(lambda m, i: calls.append(m))
    before = kept_bytes(model)
    calls.clear()
    backward(model, BATCHES[0])
    assert len(calls) == 12
    with recomputed(model):
        assert kept_bytes(model) < before / 3
        calls.clear()
        backward(model, BATCHES[0])
    assert len(calls) == 24
    assert kept_bytes(model) == before


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_as_before_after_an_error(family: str) -> None:
    model = small_model(family)
    with pytest.raises(InterruptedError), recomputed(model):
        raise InterruptedError
    assert all("forward" not in vars(module) for module in model.modules())


def test_a_model_without_blocks_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="no module of kind Block"),
        recomputed(nn.Linear(2, 2)),
    ):
        pass


def test_other_kinds_can_be_named() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with recomputed(model, (nn.Linear,)):
        assert sum("forward" in vars(module) for module in model.modules()) == 2
        model(torch.randn(3, 2)).sum().backward()
    assert model[0].weight.grad is not None
