"""Initial weights have the variances that their rules promise."""

import pytest
import torch
from small_models import small_config
from torch import Tensor, nn

from tfcourse.model.init import init_scaled_normal, init_xavier
from tfcourse.model.transformer import Transformer

WIDE = {"vocab_size": 300, "d_model": 96, "d_ff": 200, "head_dim": 16, "num_heads": 8}


def std(weight: Tensor) -> float:
    assert abs(weight.mean().item()) < 0.05 * weight.std().item()
    return weight.std().item()


def big_model() -> Transformer:
    config = small_config(
        "encoder-decoder", **WIDE, num_kv_heads=2, gated=True, tie_embeddings=False
    )
    return Transformer(config)


def test_xavier_gives_each_projection_a_variance_of_its_own() -> None:
    model = big_model()
    for module in model.modules():
        if hasattr(module, "project_in"):
            for part in module.project_in.weight.split(module.sizes):
                expected = (2 / sum(part.shape)) ** 0.5
                assert std(part) == pytest.approx(expected, rel=0.05)
                assert part.abs().max() <= 3**0.5 * expected
            parts = [module.project_out]
        elif hasattr(module, "widen"):
            parts = [module.widen, module.gate, module.narrow]
        else:
            parts = [model.unembedding]
        for part in parts:
            expected = (2 / sum(part.weight.shape)) ** 0.5
            assert std(part.weight) == pytest.approx(expected, rel=0.05)


def test_xavier_starts_embeddings_so_that_a_tied_head_gives_variance_one() -> None:
    model = big_model()
    assert std(model.embedding.weight) == pytest.approx(96**-0.5, rel=0.05)
    tied = Transformer(small_config(**WIDE))
    logits = tied(torch.randint(300, (4, 16)))
    assert logits.std().item() == pytest.approx(1.0, rel=0.15)


@pytest.mark.parametrize("rule", [init_xavier, init_scaled_normal])
def test_biases_start_at_zero_and_norms_at_one(rule) -> None:
    model = big_model()
    for weight in model.parameters():
        nn.init.constant_(weight, 0.5) if weight.dim() > 1 else None
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.constant_(module.bias, 0.5)
    rule(model)
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            is_gain = "norm" in name and name.endswith("weight")
            assert torch.equal(weight, torch.full_like(weight, float(is_gain))), name
        else:
            assert weight.std() > 0


def test_scaled_normal_shrinks_what_writes_to_the_residual_stream() -> None:
    model = big_model()
    init_scaled_normal(model, std=0.05)
    sub_layers = 2 * 2 + 2 * 3  # self and network; self, cross and network
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            writes = "project_out" in name or "narrow" in name
            expected = 0.05 * sub_layers**-0.5 if writes else 0.05
            assert std(weight) == pytest.approx(expected, rel=0.05), name


@pytest.mark.parametrize("value", [0.0, -0.02])
def test_a_standard_deviation_is_positive(value: float) -> None:
    with pytest.raises(ValueError, match=f"std must be above 0, not {value}"):
        init_scaled_normal(big_model(), std=value)
