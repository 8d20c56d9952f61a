"""The training loop: batches in, trained weights and a history out."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from tqdm import tqdm

from tfcourse.data.pairs import Batch, Batches
from tfcourse.training.losses import token_loss
from tfcourse.training.mode import mode
from tfcourse.training.optimizer import adamw
from tfcourse.training.schedules import constant

Loss = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]


class DivergenceError(ValueError):
    """The loss or its gradient is no longer a finite number."""


@dataclass(frozen=True)
class StepResult:
    """One update: mean loss in nats per token, gradient norm before the cut, tokens."""

    loss: float
    gradient_norm: float
    tokens: int


@dataclass
class History:
    """What happened at each update; `steps` count from 1.

    `losses` are means in nats per token, `gradient_norms` those before the cut,
    `tokens` the targets seen so far, `evaluations` pairs of step and value; `seconds`
    is the time from the start to the last update, evaluations included.
    """

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    began: float = field(default_factory=time.perf_counter, repr=False)

    def add(self, step: int, learning_rate: float, result: StepResult) -> None:
        """Append one update."""
        self.steps.append(step)
        self.losses.append(result.loss)
        self.learning_rates.append(learning_rate)
        self.gradient_norms.append(result.gradient_norm)
        self.tokens.append(result.tokens + (self.tokens[-1] if self.tokens else 0))
        self.seconds = time.perf_counter() - self.began


def batch_loss(
    model: nn.Module, batch: Batch, *, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the summed loss of the model on a batch, and the count of its targets."""
    logits = model(
        batch.tokens, batch.source, mask=batch.mask, source_mask=batch.source_mask
    )
    return token_loss(logits, batch.target, label_smoothing=label_smoothing)


def backward(
    model: nn.Module, batch: Batch, *, loss: Loss = batch_loss, clip: float | None = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Leave the gradient of the mean loss in the parameters, cut to norm `clip`.

    Returns mean loss, gradient norm before the cut, and number of targets, as tensors:
    nothing here waits for the device. A `clip` that is not above 0 raises `ValueError`;
    None cuts nothing.
    """
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be a norm above 0, or None, not {clip}")
    total, count = loss(model, batch)
    mean = total / count
    mean.backward()
    norm = clip_grad_norm_(model.parameters(), math.inf if clip is None else clip)
    return mean.detach(), norm, count


def train_step(
    model: nn.Module,
    batch: Batch,
    optimizer: Optimizer,
    *,
    loss: Loss = batch_loss,
    clip: float | None = 1.0,
    step: int = 1,
) -> StepResult:
    """Make one update; `step` only serves messages.

    A batch without targets raises `ValueError`, a loss or gradient that is not finite
    `DivergenceError`; the parameters are then as they were.
    """
    model.zero_grad()
    mean, norm, count = backward(model, batch, loss=loss, clip=clip)
    result = StepResult(mean.item(), norm.item(), int(count))
    if result.tokens == 0:
        raise ValueError(f"step {step}: the batch has no target to take a loss of")
    if not (math.isfinite(result.loss) and math.isfinite(result.gradient_norm)):
        raise DivergenceError(
            f"training diverged at step {step}: the loss is {result.loss}, the "
            f"gradient norm {result.gradient_norm}, the learning rate "
            f"{optimizer.param_groups[0]['lr']:.3g}; the step was not taken"
        )
    optimizer.step()
    return result


def fit(
    model: nn.Module,
    batches: Batches | Sequence[Batch],
    *,
    steps: int | None = None,
    lr: float | None = None,
    optimizer: Optimizer | None = None,
    schedule: Callable[[int], float] = constant,
    loss: Loss = batch_loss,
    clip: float | None = 1.0,
    evaluate: Callable[[nn.Module], float] | None = None,
    every: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> History:
    """Train on the first `steps` batches, by default all, and return what happened.

    Give either `lr`, for AdamW, or an `optimizer`; `schedule` is a factor on its rate.
    `evaluate` is called in evaluation mode after every `every` steps and the last one;
    `seed` governs dropout; a progress bar shows in terminals, or as `progress` says.
    Impossible values raise `ValueError`, divergence `DivergenceError`.
    """
    steps = _check_steps(len(batches), steps, every)
    optimizer = _choose_optimizer(model, lr, optimizer)
    history = History()
    device = next(model.parameters()).device
    with mode(model, training=True), _seeded(seed, device):
        for step, batch in _numbered(batches, steps, progress):
            rate = _set_rate(optimizer, schedule(step))
            result = train_step(
                model, batch.to(device), optimizer, loss=loss, clip=clip, step=step
            )
            history.add(step, rate, result)
            if evaluate and (step == steps or (every and step % every == 0)):
                history.evaluations.append((step, _look(model, evaluate, seed)))
    return history


def _look(model: nn.Module, evaluate: Callable[[nn.Module], float], seed: int) -> float:
    # Seeded apart, so that looking does not change what is trained.
    device = next(model.parameters()).device
    with mode(model, training=False), torch.no_grad(), _seeded(seed, device):
        return evaluate(model)


def _numbered(
    batches: Batches | Sequence[Batch], steps: int, progress: bool | None
) -> Iterator[tuple[int, Batch]]:
    # tqdm's None: no bar where nobody sees a terminal.
    hidden = None if progress is None else not progress
    bar = tqdm(islice(batches, steps), total=steps, unit="step", disable=hidden)
    yield from enumerate(bar, start=1)


def _check_steps(available: int, steps: int | None, every: int | None) -> int:
    steps = available if steps is None else steps
    if not 1 <= steps <= available:
        raise ValueError(
            f"steps must be between 1 and the {available} batches, not {steps}; "
            "more epochs give more batches"
        )
    if every is not None and every < 1:
        raise ValueError(f"every must be at least 1 step, not {every}")
    return steps


def _choose_optimizer(
    model: nn.Module, lr: float | None, optimizer: Optimizer | None
) -> Optimizer:
    if lr is not None and optimizer is None:
        return adamw(model, lr=lr)
    if optimizer is not None and lr is None:
        return optimizer
    raise ValueError(
        "fit takes either lr or an optimizer, which has its own; "
        f"lr={lr} and optimizer={type(optimizer).__name__} were given"
    )


def _set_rate(optimizer: Optimizer, factor: float) -> float:
    """Set each group's rate to its first one times the factor; return the first's."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
    return float(optimizer.param_groups[0]["lr"])


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's generators for a block, and give the caller's back at its end."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
