"""Gradient checkpointing: less memory for more computation."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from tfcourse.model.layers import Block


@contextmanager
def recomputed(
    model: nn.Module, kinds: tuple[type[nn.Module], ...] = (Block,)
) -> Iterator[None]:
    """Let blocks keep only their input, and compute the rest again going backward.

    Gradients are the same, dropout included. Memory falls from all activations to one
    vector a token and block; a step computes a third more (Chen et al. 2016, section
    4). A model without such modules raises `ValueError`.
    """
    blocks = [module for module in model.modules() if isinstance(module, kinds)]
    if not blocks:
        names = ", ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"the model has no module of kind {names}")
    for block in blocks:
        # On the instance, where it hides the class's method until it is deleted.
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
