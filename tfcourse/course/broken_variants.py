"""Two mistakes in layers that replace attention or the feed-forward network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from torch import Tensor, nn

from tfcourse.variants import linear_attention
from tfcourse.variants.experts import Experts


@contextmanager
def divisor_sees_future() -> Iterator[None]:
    """Sum causal linear attention's weighted values up to now, its weights over all."""

    def wrong(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        state: Tensor | None = None,
        *,
        chunk: int = 64,
    ) -> tuple[Tensor, Tensor | None]:
        weight = query @ key.mT
        return weight.tril() @ value / weight.sum(-1, keepdim=True), state

    with patch.object(linear_attention, "chunked_attention", wrong):
        yield


@contextmanager
def single_choice_normalised(layer: Experts) -> Iterator[None]:
    """Divide the chosen probabilities by their sum, though only one is chosen.

    The weight is then 1 whatever the router says, and its gradient is zero. Raises
    ValueError where more than one expert is chosen, as it is no bug there.
    """
    if layer.top_k != 1:
        raise ValueError(f"this bug needs top_k=1, not {layer.top_k}")
    right, weights = layer.forward, []

    def note(router: nn.Module, inputs: object, score: Tensor) -> None:
        weights.append(score.softmax(dim=-1).amax(dim=-1))

    def wrong(x: Tensor) -> Tensor:
        output = right(x)
        return output / weights.pop().view(*x.shape[:-1], 1)

    handle = layer.router.register_forward_hook(note)
    try:
        with patch.object(layer, "forward", wrong):
            yield
    finally:
        handle.remove()
