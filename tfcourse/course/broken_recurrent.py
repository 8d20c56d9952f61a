"""A state that should have been new: a block patches one model and restores it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor

from tfcourse.variants.recurrent import RecurrentLM, State


@contextmanager
def state_kept_between_calls(model: RecurrentLM) -> Iterator[None]:
    """Let each call of the model begin in the state in which the last one ended."""
    right, last = model.step, None

    def wrong(tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        nonlocal last
        logits, last = right(tokens, last if state is None else state)
        return logits, last

    with patch.object(model, "step", wrong):
        yield


@contextmanager
def gradient_cut(model: RecurrentLM, *, every: int) -> Iterator[None]:
    """Detach the state after each `every` tokens: right outputs, gradients cut off.

    An `every` below 1 raises `ValueError`.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1, not {every}")
    right = model.step

    def wrong(tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        parts = []
        for piece in tokens.split(every, dim=1):
            logits, state = right(piece, state)
            state = _detached(state)
            parts.append(logits)
        assert state is not None
        return torch.cat(parts, dim=1), state

    with patch.object(model, "step", wrong):
        yield


def _detached(state: State) -> State:
    if isinstance(state, Tensor):
        return state.detach()
    hidden, cell = state
    return hidden.detach(), cell.detach()
