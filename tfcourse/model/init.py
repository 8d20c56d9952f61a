"""How weights start: small enough that a deep stack neither explodes nor dies."""

import torch
from torch import nn

from tfcourse.model.attention import Attention
from tfcourse.model.layers import FeedForward


@torch.no_grad()
def init_xavier(model: nn.Module) -> None:
    """Fill matrices by Glorot's uniform rule, biases with zero, embeddings N(0, 1/d).

    The packed projection is filled part by part, as if query, key and value had a
    matrix each. Source: Glorot & Bengio 2010; embeddings as in tensor2tensor, so that
    a tied head starts with logits of variance one.
    """
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, Attention):
            for part in module.project_in.weight.split(module.sizes):
                nn.init.xavier_uniform_(part)


@torch.no_grad()
def init_scaled_normal(model: nn.Module, std: float = 0.02) -> None:
    """Fill with N(0, std²) and shrink what writes to the residual stream by 1/√n.

    n is the number of residual sub-layers. Source: Radford et al. 2019, section 2.3.
    """
    if not std > 0:
        raise ValueError(f"std must be above 0, not {std}")
    writers = [
        module.project_out if isinstance(module, Attention) else module.narrow
        for module in model.modules()
        if isinstance(module, Attention | FeedForward)
    ]
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.Linear):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for writer in writers:
        writer.weight.mul_(len(writers) ** -0.5)
