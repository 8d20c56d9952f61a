"""A linear recurrence, step by step and in a number of rounds that grows as log n.

    h[t] = decay[t] · h[t-1] + value[t],   with h[-1] = 0

A step is a map h -> a·h + b, and two of them in a row are a map of that form again.
So steps can be joined before any state is known. Sources: Hillis & Steele 1986 (the
rounds below); Martin & Cundy 2018 (recurrent networks that are linear in their state).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Steps = Float[Tensor, "*batch seq width"]


def join(
    first: tuple[Tensor, Tensor], then: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the one step (decay, value) that does what two do one after the other."""
    return first[0] * then[0], then[0] * first[1] + then[1]


def recurrence_by_loop(decay: Steps, value: Steps) -> Steps:
    """Return all states, each computed from the one before: n steps."""
    state, states = torch.zeros_like(value[..., 0, :]), []
    for a, b in zip(decay.unbind(-2), value.unbind(-2), strict=True):
        state = a * state + b
        states.append(state)
    return torch.stack(states, dim=-2)


def recurrence_by_scan(decay: Steps, value: Steps) -> Steps:
    """Return the same states in log₂ n rounds, rounded up.

    After each round a place has joined twice as many steps that end with its own. All
    places do so at once. The work is n log n, not n; there are scans that need about
    2n (Blelloch 1990).
    """
    reach = 1
    while reach < value.shape[-2]:
        before = (
            F.pad(decay[..., :-reach, :], (0, 0, reach, 0), value=1.0),
            F.pad(value[..., :-reach, :], (0, 0, reach, 0)),
        )
        decay, value = join(before, (decay, value))
        reach *= 2
    return value
