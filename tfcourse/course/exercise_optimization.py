"""Exercises on the training step, with the mistakes that people make in them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tfcourse.course.exercise import Exercise
from tfcourse.training.schedules import cosine


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- the schedule -------------------------------------------------------------------


def _answer_rate(step: int, peak: float, warmup: int, total: int) -> float:
    return peak * cosine(step, total, warmup)


def _wave(done: float) -> float:
    return (1 + math.cos(math.pi * done)) / 2


def _counted_from_zero(step: int, peak: float, warmup: int, total: int) -> float:
    rise = (step - 1) / warmup
    return peak * (rise if step < warmup else _wave((step - warmup) / (total - warmup)))


def _whole_run(step: int, peak: float, warmup: int, total: int) -> float:
    return peak * (step / warmup if step < warmup else _wave(step / total))


def _straight_fall(step: int, peak: float, warmup: int, total: int) -> float:
    done = (step - warmup) / (total - warmup)
    return peak * (step / warmup if step < warmup else 1 - done)


def _whole_wave(step: int, peak: float, warmup: int, total: int) -> float:
    done = (step - warmup) / (total - warmup)
    return peak * (step / warmup if step < warmup else _wave(2 * done))


def _quarter_wave(step: int, peak: float, warmup: int, total: int) -> float:
    done = (step - warmup) / (total - warmup)
    fall = math.cos(math.pi * done / 2)
    return peak * (step / warmup if step < warmup else fall)


def _no_rise(step: int, peak: float, warmup: int, total: int) -> float:
    return peak * _wave(max(0.0, (step - warmup) / (total - warmup)))


LEARNING_RATE = Exercise(
    name="learning_rate",
    cases=lambda: [
        (1, 0.1, 10, 110),
        (5, 0.1, 10, 110),
        (10, 0.1, 10, 110),
        (35, 0.1, 10, 110),
        (60, 0.1, 10, 110),
        (110, 0.1, 10, 110),
        (3, 2.0, 4, 8),
        (7, 2.0, 4, 8),
    ],
    answer=_answer_rate,
    mistakes={
        "steps count from 1: at the first one the rate is not zero": _counted_from_zero,
        "the cosine begins where the warm-up ends, not at the start of the "
        "run": _whole_run,
        "the fall is a straight line: use half a cosine": _straight_fall,
        "this is a whole wave, which comes back to the peak: take half": _whole_wave,
        "this is a quarter of a wave: take (1 + cos(π · done)) / 2": _quarter_wave,
        "the warm-up is missing: the rate stands at its peak from the first "
        "step": _no_rise,
        "this is the factor: multiply it by `peak`": (
            lambda step, peak, warmup, total: cosine(step, total, warmup)
        ),
    },
)


# ---- clipping -----------------------------------------------------------------------


def _scaled(gradients: Sequence[Tensor], factor: float) -> list[Tensor]:
    return [g * factor for g in gradients]


def _norm(gradients: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(g.square().sum()) for g in gradients))


def _answer_clip(gradients: Sequence[Tensor], limit: float) -> list[Tensor]:
    return _scaled(gradients, min(1.0, limit / _norm(gradients)))


def _each_alone(gradients: Sequence[Tensor], limit: float) -> list[Tensor]:
    return [g * min(1.0, limit / float(g.norm())) for g in gradients]


def _sum_of_norms(gradients: Sequence[Tensor], limit: float) -> list[Tensor]:
    total = sum(float(g.norm()) for g in gradients)
    return _scaled(gradients, min(1.0, limit / total))


CLIP_GRADIENTS = Exercise(
    name="clip_gradients",
    cases=lambda: [
        ([torch.tensor([10.0, 1.0]), torch.tensor([0.1])], 1.0),
        ([torch.tensor([0.3]), torch.tensor([0.4, 0.0])], 1.0),
        ([_random(3, 2, seed=1), 4 * _random(5, seed=2)], 2.0),
        ([torch.tensor([3.0]), torch.tensor([4.0]), torch.tensor([12.0])], 6.5),
    ],
    answer=_answer_clip,
    mistakes={
        "this clips each number: clipping by norm keeps the direction": (
            lambda gradients, limit: [g.clamp(-limit, limit) for g in gradients]
        ),
        "each tensor is clipped by its own norm: take one norm over all of "
        "them": _each_alone,
        "gradients below the limit are enlarged: the factor is 1 at most": (
            lambda gradients, limit: _scaled(gradients, limit / _norm(gradients))
        ),
        "the root is missing: divide by the norm, not by its square": (
            lambda gradients, limit: _scaled(
                gradients, min(1.0, limit / _norm(gradients) ** 2)
            )
        ),
        "norms do not add up: add the squares, then take the root": _sum_of_norms,
        "this makes the norm 1, whatever `limit` says": (
            lambda gradients, limit: _scaled(gradients, min(1.0, 1 / _norm(gradients)))
        ),
    },
)


# ---- AdamW --------------------------------------------------------------------------


def _quotient(
    gradient: Tensor, m: Tensor, v: Tensor, step: int, *, corrected: bool = True
) -> Tensor:
    m = 0.9 * m + 0.1 * gradient
    v = 0.98 * v + 0.02 * gradient.square()
    if corrected:
        m, v = m / (1 - 0.9**step), v / (1 - 0.98**step)
    return m / (v.sqrt() + 1e-8)


def _answer_adamw(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, lr: float, decay: float
) -> Tensor:
    return w * (1 - lr * decay) - lr * _quotient(g, m, v, step)


def _no_correction(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, lr: float, decay: float
) -> Tensor:
    return w * (1 - lr * decay) - lr * _quotient(g, m, v, step, corrected=False)


def _l2_in_gradient(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, lr: float, decay: float
) -> Tensor:
    return w - lr * _quotient(g + decay * w, m, v, step)


def _decay_without_rate(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, lr: float, decay: float
) -> Tensor:
    return w * (1 - decay) - lr * _quotient(g, m, v, step)


def _no_root(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, lr: float, decay: float
) -> Tensor:
    m = (0.9 * m + 0.1 * g) / (1 - 0.9**step)
    v = (0.98 * v + 0.02 * g.square()) / (1 - 0.98**step)
    return w * (1 - lr * decay) - lr * m / (v + 1e-8)


def _raw_gradient(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, lr: float, decay: float
) -> Tensor:
    v = (0.98 * v + 0.02 * g.square()) / (1 - 0.98**step)
    return w * (1 - lr * decay) - lr * g / (v.sqrt() + 1e-8)


def _uphill(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, lr: float, decay: float
) -> Tensor:
    return w * (1 - lr * decay) + lr * _quotient(g, m, v, step)


def _adam_case(step: int, lr: float, decay: float, seed: int) -> tuple[object, ...]:
    w, g, m, v = (_random(3, seed=seed + i) for i in range(4))
    if step == 1:
        m, v = torch.zeros(3), torch.zeros(3)
    return w, g, m, v.square(), step, lr, decay


ADAMW_STEP = Exercise(
    name="adamw_step",
    cases=lambda: [
        _adam_case(1, 0.1, 0.0, 0),
        _adam_case(1, 0.1, 0.5, 10),
        _adam_case(7, 0.01, 0.1, 20),
    ],
    answer=_answer_adamw,
    mistakes={
        "the correction is missing: both means start at zero and are too small at "
        "first": _no_correction,
        "this is L2, in the gradient: the decay would be divided by the gradient's "
        "size": _l2_in_gradient,
        "the decay is not multiplied by the learning rate": _decay_without_rate,
        "the decay is missing": lambda w, g, m, v, step, lr, decay: _answer_adamw(
            w, g, m, v, step, lr, 0.0
        ),
        "the root is missing: v is a mean of squares": _no_root,
        "this divides the gradient itself: take its running mean": _raw_gradient,
        "this goes uphill: subtract the step": _uphill,
    },
)


# ---- accumulation -------------------------------------------------------------------


def _answer_accumulated(parts: Sequence[Tensor]) -> float:
    return float(torch.cat(list(parts)).mean())


ACCUMULATED_LOSS = Exercise(
    name="accumulated_loss",
    cases=lambda: [
        ([torch.ones(6), torch.full((3,), 4.0)],),
        ([torch.tensor([2.0]), torch.tensor([1.0, 0.0, 2.0, 1.0])],),
        ([_random(5, seed=3).abs(), _random(2, seed=4).abs(), torch.ones(1)],),
    ],
    answer=_answer_accumulated,
    mistakes={
        "this is a mean of means: tokens of short parts weigh more": lambda parts: (
            float(sum(p.mean() for p in parts) / len(parts))
        ),
        "the means are added: the loss grows with the number of parts": lambda parts: (
            float(sum(p.mean() for p in parts))
        ),
        "this is the sum: divide by the number of tokens": lambda parts: float(
            sum(p.sum() for p in parts)
        ),
        "the sum is divided by the number of parts, not of tokens": lambda parts: float(
            sum(p.sum() for p in parts) / len(parts)
        ),
        "only the last part is left: gradients of the others were overwritten": (
            lambda parts: float(parts[-1].mean())
        ),
    },
)
