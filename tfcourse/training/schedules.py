"""Learning-rate schedules: pure functions of the step that return a factor in [0, 1].

The factor multiplies the optimizer's learning rate, which is so the highest one. Steps
count from 1, the first update. All schedules begin with a linear warm-up of `warmup`
steps, at the end of which the factor is 1; 0 means none. Impossible values raise
`ValueError`.
"""

import math


def constant(step: int, warmup: int = 0) -> float:
    """Stay at 1 after the warm-up."""
    _check(step, warmup)
    return _rise(step, warmup)


def inverse_sqrt(step: int, warmup: int) -> float:
    """Fall as 1 / sqrt(step) after the warm-up (Vaswani et al. 2017, section 5.3).

    The paper's rate, d_model^-0.5 * min(step^-0.5, step * warmup^-1.5), is this factor
    times the peak (d_model * warmup)^-0.5.
    """
    _check(step, warmup)
    if warmup < 1:
        raise ValueError(f"inverse_sqrt needs a warmup of at least 1, not {warmup}")
    return min(step / warmup, math.sqrt(warmup / step))


def linear(step: int, total: int, warmup: int = 0, final: float = 0.0) -> float:
    """Fall in a straight line to `final` at step `total`, and stay there."""
    _check(step, warmup, total, final)
    return min(
        _rise(step, warmup), final + (1 - final) * (1 - _done(step, total, warmup))
    )


def cosine(step: int, total: int, warmup: int = 0, final: float = 0.0) -> float:
    """Fall along half a cosine to `final` at step `total`, and stay there.

    Source: Loshchilov and Hutter 2017, equation 5, one cycle.
    """
    _check(step, warmup, total, final)
    wave = (1 + math.cos(math.pi * _done(step, total, warmup))) / 2
    return min(_rise(step, warmup), final + (1 - final) * wave)


def warmup_stable_decay(
    step: int, total: int, warmup: int = 0, decay: int = 0, final: float = 0.0
) -> float:
    """Stay at 1 after the warm-up, and fall to `final` in the last `decay` steps.

    The fall is a straight line that ends at step `total`; a run can be prolonged from
    where it begins. Source: Hu et al. 2024 (MiniCPM), section 4.
    """
    _check(step, warmup, total, final)
    if not 0 <= decay <= total - warmup:
        raise ValueError(
            f"decay must be between 0 and the {total - warmup} steps after the "
            f"warm-up, not {decay}"
        )
    if decay == 0:
        return _rise(step, warmup)
    fall = final + (1 - final) * (1 - _done(step, total, total - decay))
    return min(_rise(step, warmup), fall)


def _rise(step: int, warmup: int) -> float:
    return min(1.0, step / warmup) if warmup else 1.0


def _done(step: int, total: int, warmup: int) -> float:
    """Share of the way from the end of the warm-up to `total`, between 0 and 1."""
    return min(1.0, max(0.0, (step - warmup) / (total - warmup)))


def _check(
    step: int, warmup: int, total: int | None = None, final: float = 0.0
) -> None:
    if step < 1:
        raise ValueError(f"steps count from 1, the first update; step is {step}")
    if warmup < 0:
        raise ValueError(f"warmup must be at least 0 steps, not {warmup}")
    if total is not None and total <= warmup:
        raise ValueError(f"total={total} steps must be more than warmup={warmup}")
    if not 0 <= final <= 1:
        raise ValueError(f"final must be a factor in [0, 1], not {final}")
