"""The training loop: batches in, trained weights and a history out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from tfcourse.data.pairs import Batch, Batches
from tfcourse.training.checkpoint import Checkpoints
from tfcourse.training.compute import (
    Accelerator,
    Compute,
    broadcast_object_list,
    is_sharded,
    make_accelerator,
)
from tfcourse.training.generators import seeded
from tfcourse.training.history import Best, History, Log, StepResult
from tfcourse.training.keeper import Keeper
from tfcourse.training.mode import mode
from tfcourse.training.optimizer import adamw
from tfcourse.training.schedules import constant
from tfcourse.training.state import TrainingState
from tfcourse.training.step import (
    DivergenceError,
    Loss,
    backward,
    batch_loss,
    train_step,
)

__all__ = [
    "Best",
    "DivergenceError",
    "History",
    "StepResult",
    "backward",
    "batch_loss",
    "fit",
    "train_step",
]


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
    max_loss: float | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    every: int | None = None,
    best: Best | None = None,
    average: AveragedModel | None = None,
    compute: Compute | None = None,
    checkpoints: Checkpoints | None = None,
    log: Log | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> History:
    """Train on the first `steps` batches, by default all, and return what happened.

    Give either `lr`, for AdamW, or an `optimizer`; `schedule` is a factor on its rate.
    `evaluate` is called in evaluation mode after every `every` steps and the last one,
    and `best` may end the run early. `average` follows the weights. A run with
    `checkpoints` that is stopped at any moment and resumed ends as if it had not been.
    Started by `torchrun` or `accelerate launch`, each process takes its share of each
    batch. `seed` governs dropout; a progress bar shows in terminals, or as `progress`
    says. Impossible values raise `ValueError`, divergence `DivergenceError`: a loss or
    gradient that is not finite, or a loss above `max_loss`.
    """
    steps = _check_steps(len(batches), steps, every)
    optimizer = _choose_optimizer(model, lr, optimizer)
    limits: dict[str, Any] = {"clip": clip, "max_loss": max_loss}
    state, update = _begin(model, optimizer, loss, limits, compute, average)
    keeper = Keeper(state, checkpoints, best or Best(), log)
    history, process = state.history, state.accelerator.process_index
    with mode(model, training=True), seeded(seed + process, state.device):
        keeper.start(steps)
        for step, batch in _numbered(batches, steps, keeper, progress):
            rate = _set_rate(optimizer, schedule(step))
            with keeper.naming_checkpoint():
                history.add(step, rate, update(batch.to(state.device), step=step))
            if average is not None:
                average.update_parameters(model)
            if evaluate and (step == steps or (every and step % every == 0)):
                history.evaluations.append((step, _look(model, evaluate, seed)))
            keeper.keep(batch, is_last=step == steps)
    return history


def _begin(
    model: nn.Module,
    optimizer: Optimizer,
    loss: Loss,
    limits: dict[str, Any],
    compute: Compute | None,
    average: AveragedModel | None,
) -> tuple[TrainingState, Callable[..., StepResult]]:
    """Return what changes in the run, and what makes a step of a batch."""
    compute = compute or Compute()
    accelerator = compute.accelerator or make_accelerator()
    compute = replace(compute, accelerator=accelerator)
    trained = _prepare(model, optimizer, accelerator)
    device = next(model.parameters()).device
    scaler = _scaler(model, compute, device)
    state = TrainingState(
        model, optimizer, History(), accelerator, device, average, scaler
    )
    update = partial(
        train_step,
        trained,
        optimizer=optimizer,
        loss=loss,
        compute=compute,
        scaler=scaler,
        **limits,
    )
    return state, update


def _prepare(
    model: nn.Module, optimizer: Optimizer, accelerator: Accelerator
) -> nn.Module:
    """Return the model that trains: wrapped where there are several processes."""
    if is_sharded(model):
        return model
    several = accelerator.num_processes > 1  # one process stays on the caller's device
    placed = [several, several]
    trained, _ = accelerator.prepare(model, optimizer, device_placement=placed)
    return trained


def _scaler(
    model: nn.Module, compute: Compute, device: torch.device
) -> GradScaler | None:
    scaler = compute.scaler(device)
    if scaler is not None and is_sharded(model):
        # Each process would see the overflows of its own share only.
        raise ValueError("fp16 does not go with divided weights: use bf16")
    return scaler


def _look(model: nn.Module, evaluate: Callable[[nn.Module], float], seed: int) -> float:
    # Seeded apart, so that looking does not change what is trained. The first process's
    # value counts, so that all stop at the same step.
    device = next(model.parameters()).device
    with mode(model, training=False), torch.no_grad(), seeded(seed, device):
        return broadcast_object_list([evaluate(model)])[0]


def _numbered(
    batches: Batches | Sequence[Batch],
    steps: int,
    keeper: Keeper,
    progress: bool | None,
) -> Iterator[tuple[int, Batch]]:
    """Yield what is left to do: step and batch."""
    done = keeper.steps_done
    left = islice(batches, max(0, done - 1), steps)
    if done:
        keeper.check_batch(next(left))
    # tqdm's None: no bar where nobody sees a terminal.
    hidden = None if progress is None else not progress
    hidden = hidden if keeper.is_main else True
    bar = tqdm(left, total=steps, initial=done, unit="step", disable=hidden)
    for step, batch in enumerate(bar, start=done + 1):
        if keeper.is_over:
            return
        yield step, batch


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
