"""What a model is trained to make small."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

Head = Callable[[Tensor], Tensor]
FLOAT = torch.float32  # sums are at least of this precision


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


def head_loss(
    head: Head,
    parameters: Sequence[nn.Parameter],
    hidden: Float[Tensor, "batch seq d_model"],
    target: Int[Tensor, "batch seq"],
    *,
    chunk: int,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Return `token_loss` of head(hidden), computed `chunk` tokens at a time.

    The head's logits, a whole vocabulary for each token, are the largest tensor of a
    step. Here the gradients, of the vectors and of those `parameters` that the head
    uses, are taken chunk by chunk, so that the logits of one are gone before those of
    the next (the idea of Wijmans et al. 2024, without their kernel). Tokens whose
    target is -100 cost nothing. The options are those of `token_loss`; a chunk below 1
    raises `ValueError`.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 token, not {chunk}")
    asked = target != -100
    vectors, answers = hidden[asked], target[asked]

    def loss(part: Tensor, start: int) -> Tensor:
        end = start + chunk
        return token_loss(head(part[None]), answers[None, start:end], **options)[0]

    total = _InChunks.apply(loss, chunk, vectors, *parameters)
    return total, asked.sum()


class _InChunks(torch.autograd.Function):
    """A sum over chunks of vectors, whose gradients are known as soon as the sum is."""

    @staticmethod
    def forward(
        ctx: Any,
        loss: Callable[[Tensor, int], Tensor],
        chunk: int,
        vectors: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        total = vectors.new_zeros((), dtype=torch.promote_types(vectors.dtype, FLOAT))
        of_vectors: list[Tensor] = []
        of_parameters: list[Tensor | None] = [None for _ in parameters]
        for start in range(0, len(vectors), chunk):
            part = vectors[start : start + chunk].detach().requires_grad_()
            with torch.enable_grad():
                value = loss(part, start)
            first, *others = torch.autograd.grad(
                value, [part, *parameters], allow_unused=True
            )
            of_vectors.append(first)
            of_parameters = [
                new if old is None else old.add_(new)  # a head uses all, or none ever
                for old, new in zip(of_parameters, others, strict=True)
            ]
            total += value.detach()
        whole = torch.cat(of_vectors) if of_vectors else torch.zeros_like(vectors)
        ctx.gradients = [whole, *of_parameters]
        return total

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Any:
        scaled = [None if g is None else g * grad[0] for g in ctx.gradients]
        return None, None, *scaled


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
