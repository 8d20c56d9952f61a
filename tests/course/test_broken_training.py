"""A planted bug in the training step, and the check that names it."""

import torch
from torch import nn

from tfcourse.course.broken_training import gradients_kept
from tfcourse.data.pairs import Batch
from tfcourse.model.config import TransformerConfig
from tfcourse.model.transformer import Transformer
from tfcourse.training.optimizer import adamw
from tfcourse.training.step import train_step


def norm_ratio() -> float:
    """Gradient norm of a second step over the first's, at a rate of zero."""
    torch.manual_seed(0)
    config = TransformerConfig(
        vocab_size=8,
        d_model=16,
        num_heads=2,
        d_ff=32,
        max_seq_len=6,
        num_encoder_layers=1,
    )
    model = Transformer(config)
    tokens = torch.randint(8, (4, 6))
    optimizer = adamw(model, lr=0.0)
    one, two = (
        train_step(model, Batch(tokens, tokens), optimizer, clip=None) for _ in range(2)
    )
    return two.gradient_norm / one.gradient_norm


def test_a_repeated_step_doubles_the_gradient_only_with_the_bug() -> None:
    assert abs(norm_ratio() - 1) < 1e-4
    with gradients_kept():
        assert abs(norm_ratio() - 2) < 1e-3
    assert abs(norm_ratio() - 1) < 1e-4


def test_zero_grad_is_put_back_after_an_error() -> None:
    before = nn.Module.zero_grad
    try:
        with gradients_kept():
            raise KeyError
    except KeyError:
        pass
    assert nn.Module.zero_grad is before
