"""What a model is trained to make small."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def token_loss(
    logits: Tensor,
    target: Tensor,
    *,
    ignore: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy in nats, and how many tokens it is summed over.

    Logits are [..., vocab], target ids [...]; where target is `ignore`, nothing counts.
    A sum and a count, not a mean: batches of unequal length can then be added up to one
    exact large batch. Smoothing e asks for (1 - e) of the right token and e / vocab of
    every one (Szegedy et al. 2016, section 7; Vaswani et al. 2017, section 5.4).
    `z_loss` times log(Z)^2 is added for each token, Z the softmax's denominator, so
    that logits do not drift (de Brebisson and Vincent 2016; Chowdhery et al. 2022,
    section 5, where it is 1e-4). Wrong shapes and types, smoothing outside [0, 1) and a
    z_loss below 0 raise `ValueError`.
    """
    _check(logits, target, label_smoothing, z_loss)
    # Sums over thousands of tokens lose digits in 16-bit numbers.
    exact = logits if logits.dtype == torch.float64 else logits.float()
    total = F.cross_entropy(
        exact.reshape(-1, logits.shape[-1]),
        target.reshape(-1),
        ignore_index=ignore,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    if z_loss:
        log_z = exact.logsumexp(-1).masked_select(target != ignore)
        total = total + z_loss * log_z.square().sum()
    return total, (target != ignore).sum()


def _check(
    logits: Tensor, target: Tensor, label_smoothing: float, z_loss: float
) -> None:
    if not logits.is_floating_point() or target.dtype != torch.int64:
        raise ValueError(
            f"logits must be floating and target torch.int64, not {logits.dtype} and "
            f"{target.dtype}"
        )
    if logits.dim() < 1 or logits.shape[:-1] != target.shape:
        raise ValueError(
            "logits [..., vocab] go with a target [...], but the shapes are "
            f"{tuple(logits.shape)} and {tuple(target.shape)}"
        )
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), not {label_smoothing}")
    if not 0 <= z_loss < math.inf:
        raise ValueError(f"z_loss must be a factor of at least 0, not {z_loss}")
