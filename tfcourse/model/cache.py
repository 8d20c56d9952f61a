"""Keys and values of the tokens already read, so that decoding does not repeat them."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

KeyValue = tuple[
    Float[Tensor, "batch kv_heads keys head_dim"],
    Float[Tensor, "batch kv_heads keys head_dim"],
]


class LayerCache:
    """What one decoder layer remembers: its own tokens, and the encoder's output."""

    def __init__(self) -> None:
        self.own: KeyValue | None = None
        self.memory: KeyValue | None = None

    def append(self, key: Tensor, value: Tensor) -> KeyValue:
        """Add the keys and values of new tokens; return those of all tokens."""
        if self.own is not None:
            key = torch.cat((self.own[0], key), dim=2)
            value = torch.cat((self.own[1], value), dim=2)
        self.own = (key, value)
        return self.own

    def remember(self, project: Callable[[], KeyValue]) -> KeyValue:
        """Return the memory's keys and values, projected on the first call only."""
        if self.memory is None:
            self.memory = project()
        return self.memory


class KVCache:
    """A cache for a whole decoder: pass the same object at every step."""

    def __init__(self) -> None:
        self.layers: list[LayerCache] = []
        self.length = 0

    def layer(self, index: int) -> LayerCache:
        """Return the cache of layer `index`, made on first use."""
        while len(self.layers) <= index:
            self.layers.append(LayerCache())
        return self.layers[index]

    def advance(self, count: int) -> None:
        """Count tokens that all layers have now read."""
        self.length += count

    def reorder(self, rows: Int[Tensor, " batch"]) -> None:
        """Keep the rows named, in that order; beam search continues from them."""
        for layer in self.layers:
            for name in ("own", "memory"):
                pair = getattr(layer, name)
                if pair is not None:
                    setattr(layer, name, tuple(part[rows] for part in pair))
