"""One training step: a batch in, one update of the weights out."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from tfcourse.data.pairs import Batch
from tfcourse.training.compute import (
    Compute,
    is_sharded,
    make_accelerator,
    parts_of,
    synchronised,
    whole,
)
from tfcourse.training.history import StepResult
from tfcourse.training.losses import head_loss, token_loss

Loss = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]
WHOLE = Compute()


class DivergenceError(ValueError):
    """The loss or its gradient is no longer finite, or the loss above its limit."""


def batch_loss(
    model: nn.Module,
    batch: Batch,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the summed loss of the model on a batch, and the count of its targets.

    With `chunk`, the head's logits are those of that many tokens at a time: less
    memory, and less time where the vocabulary is large. Divided weights (`shard`) are
    whole within the model's call only, and do not go with it.
    """
    options: dict[str, Any] = {"label_smoothing": label_smoothing, "z_loss": z_loss}
    call = partial(
        model,
        batch.tokens,
        batch.source,
        mask=batch.mask,
        source_mask=batch.source_mask,
        memory_mask=batch.memory_mask,
        position=batch.position,
        source_position=batch.source_position,
    )
    if chunk is None:
        return token_loss(call(), batch.target, **options)
    if is_sharded(model):
        raise ValueError(f"chunk={chunk}: a sharded head is whole within a call only")
    inner: Any = getattr(model, "module", model)  # DDP's, or the model
    parameters = [p for p in model.parameters() if p.requires_grad]
    hidden = call(output="hidden")
    return head_loss(
        inner.head, parameters, hidden, batch.target, chunk=chunk, **options
    )


def backward(
    model: nn.Module,
    batch: Batch,
    *,
    loss: Loss = batch_loss,
    clip: float | None = 1.0,
    compute: Compute = WHOLE,
) -> tuple[Tensor, Tensor, Tensor]:
    """Leave the gradient of the mean loss in the parameters, cut to norm `clip`.

    Returns mean loss, gradient norm before the cut, and number of targets, as tensors:
    nothing here waits for the device. A `clip` that is not above 0 raises `ValueError`;
    None cuts nothing.
    """
    _check_clip(clip)
    mean, count = add_gradients(model, batch, loss=loss, compute=compute)
    return mean, _cut(model, clip), count


def train_step(
    model: nn.Module,
    batch: Batch,
    optimizer: Optimizer,
    *,
    loss: Loss = batch_loss,
    clip: float | None = 1.0,
    max_loss: float | None = None,
    step: int = 1,
    compute: Compute = WHOLE,
    scaler: GradScaler | None = None,
) -> StepResult:
    """Make one update; `step` only serves messages.

    A batch without targets raises `ValueError`, a loss or gradient that is not finite
    `DivergenceError`, as does a mean loss above `max_loss`; the parameters are then as
    they were. A gradient too large for fp16 is not that yet: the step is left out, and
    `scaler` scales the next one less.
    """
    _check_clip(clip)
    limit = _check_max_loss(max_loss)
    model.zero_grad()
    mean, count = add_gradients(model, batch, loss=loss, compute=compute, scaler=scaler)
    if scaler is not None:
        scaler.unscale_(optimizer)
    norm = _cut(model, clip)
    result = StepResult(mean.item(), norm.item(), int(count))
    may_overflow = scaler is not None and scaler.get_scale() > 1
    _check_result(result, step, optimizer, limit, may_overflow=may_overflow)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    return result


def add_gradients(
    model: nn.Module,
    batch: Batch,
    *,
    loss: Loss = batch_loss,
    compute: Compute = WHOLE,
    scaler: GradScaler | None = None,
) -> tuple[Tensor, Tensor]:
    """Add the gradient of the mean over the step's tokens; return mean and count.

    The step's tokens are those of all parts and processes. How many there are is known
    after the last part, but its own size at the first: parts are divided by the first
    one's count, and what that is off by is corrected at the end. DDP and FSDP average
    over processes, hence the factor `num_processes`.
    """
    accelerator = compute.accelerator or make_accelerator()
    parts = parts_of(batch, compute, accelerator)
    totals, counts = [], []
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        with synchronised(model, accelerator, last=last):
            with compute.autocast(part.tokens.device):
                total, count = loss(model, part)
            totals.append(total.detach())
            counts.append(count)
            if index == 0:
                first = accelerator.reduce(count, "sum").clamp(min=1)
            mean = total * accelerator.num_processes / first
            (mean if scaler is None else scaler.scale(mean)).backward()
    total = accelerator.reduce(torch.stack(totals).sum(), "sum")
    count = accelerator.reduce(torch.stack(counts).sum(), "sum")
    if len(parts) > 1:
        # As numbers of Python: a quotient of integer tensors has 32 bits.
        factor = int(first) / max(int(count), 1)
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)
    return total / count.clamp(min=1), count


def _check_result(
    result: StepResult,
    step: int,
    optimizer: Optimizer,
    max_loss: float,
    *,
    may_overflow: bool,
) -> None:
    if result.tokens == 0:
        raise ValueError(f"step {step}: the batch has no target to take a loss of")
    too_large = not result.loss <= max_loss or not math.isfinite(result.loss)
    if too_large or not (may_overflow or math.isfinite(result.gradient_norm)):
        limit = "" if math.isinf(max_loss) else f" (at most {max_loss} is allowed)"
        raise DivergenceError(
            f"training diverged at step {step}: the loss is {result.loss}{limit}, the "
            f"gradient norm {result.gradient_norm}, the learning rate "
            f"{optimizer.param_groups[0]['lr']:.3g}; the step was not taken"
        )


def _cut(model: nn.Module, clip: float | None) -> Tensor:
    """Cut the gradient to norm `clip`, and return its norm before."""
    norm = get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    total = whole(norm)
    # A shorter gradient would be multiplied by 1. To ask is free on a CPU alone:
    # elsewhere it would wait for the device.
    if clip is not None and not (total.is_cpu and bool(total <= clip)):
        clip_grads_with_norm_(model.parameters(), clip, norm)
    return total


def _check_max_loss(max_loss: float | None) -> float:
    """Return the limit of the mean loss, infinite if there is none."""
    if max_loss is not None and not max_loss > 0:
        raise ValueError(f"max_loss must be above 0, or None, not {max_loss}")
    return math.inf if max_loss is None else max_loss


def _check_clip(clip: float | None) -> None:
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be a norm above 0, or None, not {clip}")
