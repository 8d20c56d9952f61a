"""Mixture of experts: many feed-forward networks, of which a token uses a few.

Sources: Shazeer et al. 2017, section 2; Fedus et al. 2021 (Switch), section 2.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tfcourse.model.config import TransformerConfig
from tfcourse.model.layers import FeedForward


class Routing(NamedTuple):
    """Where a layer has sent its tokens, and the probabilities by which it chose."""

    probability: Float[Tensor, "tokens experts"]
    chosen: Int[Tensor, "tokens top_k"]


class Experts(nn.Module):
    """Networks with the call of `FeedForward`; each token goes to `top_k` of them.

    The outputs are weighted by the router's probabilities, which are divided by their
    sum over the chosen. With `top_k=1` they are not: the weight would always be one,
    and the router would get no gradient (Fedus et al. 2021, equation 2). A token always
    finds room: no expert has a capacity, and no noise is added.
    """

    def __init__(self, config: TransformerConfig, num_experts: int, top_k: int) -> None:
        super().__init__()
        if not 1 <= top_k <= num_experts:
            raise ValueError(
                f"top_k must be in 1 ... num_experts={num_experts}, not {top_k}"
            )
        self.top_k = top_k
        self.router = nn.Linear(config.d_model, num_experts, bias=False)
        self.experts = nn.ModuleList(FeedForward(config) for _ in range(num_experts))
        self.record: Callable[[Routing], None] | None = None

    def forward(
        self, x: Float[Tensor, "batch seq d_model"]
    ) -> Float[Tensor, "batch seq d_model"]:
        """Return the weighted sum of the chosen experts' outputs, for each token."""
        tokens = x.flatten(0, 1)
        probability = self.router(tokens).softmax(dim=-1)  # [tokens, experts]
        weight, chosen = probability.topk(self.top_k)  # [tokens, top_k]
        if self.top_k > 1:
            weight = weight / weight.sum(dim=-1, keepdim=True)
        if self.record is not None:
            self.record(Routing(probability, chosen))
        mixed = torch.zeros_like(tokens)
        for index, expert in enumerate(self.experts):
            token, rank = (chosen == index).nonzero(as_tuple=True)
            if len(token):
                output = weight[token, rank, None] * expert(tokens[None, token])[0]
                mixed = mixed.index_add(0, token, output.to(mixed.dtype))
        return mixed.view_as(x)


def load_balance_loss(routing: Routing) -> Float[Tensor, ""]:
    """Return E · Σ fᵢ Pᵢ: 1 where all experts are used evenly, E where only one is.

    f is each expert's share of the choices, P its mean probability, E their number. The
    gradient comes from P alone: it lowers the probability of experts that are chosen
    often. Where f = P the least value is 1; it can be a little lower where the experts
    that are chosen often are chosen by a narrow margin. Source: Fedus et al. 2021,
    section 2.2, equation 4, for top_k = 1; here f counts all choices.
    """
    mean = routing.probability.mean(dim=0)
    chosen = F.one_hot(routing.chosen, len(mean))  # [tokens, top_k, experts]
    share = chosen.to(mean.dtype).mean(dim=(0, 1))
    return len(mean) * (share * mean).sum()


@contextmanager
def record_routing(model: nn.Module) -> Iterator[dict[str, Routing]]:
    """Collect the routing of each layer of experts, by module name, with gradients.

    A layer that is called again replaces what it had stored.
    """
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, Experts)
    }
    if not layers:
        raise ValueError(f"{type(model).__name__} has no Experts layer to record")
    routes: dict[str, Routing] = {}
    try:
        for name, layer in layers.items():
            layer.record = lambda routing, name=name: routes.__setitem__(name, routing)
        yield routes
    finally:
        for layer in layers.values():
            layer.record = None
