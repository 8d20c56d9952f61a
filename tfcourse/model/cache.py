"""Keys and values of the tokens already read, so that decoding does not repeat them."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tfcourse.model.config import TransformerConfig

Part = Float[Tensor, "batch kv_heads _ head_dim"]  # keys or values of some tokens
KeyValue = tuple[Part, Part]
Slots = Int[Tensor, " _"]


class LayerCache:
    """What one decoder layer remembers: its own tokens, and the encoder's output."""

    def __init__(self) -> None:
        self.own: KeyValue | None = None
        self.memory: KeyValue | None = None

    def append(self, key: Part, value: Part) -> KeyValue:
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
    """A cache that grows, for a whole decoder and one batch of sequences."""

    has_unread_slots = False

    def __init__(self) -> None:
        self.layers: Sequence[LayerCache] = []
        self.length: int | Tensor = 0
        self.position: Tensor | None = None

    def layer(self, index: int) -> LayerCache:
        """Return the cache of layer `index`, made on first use."""
        while len(self.layers) <= index:
            self.layers = [*self.layers, LayerCache()]
        return self.layers[index]

    def slots(self, x: Float[Tensor, "batch count _"]) -> tuple[Slots, Slots]:
        """Return the slots of the next tokens x, and those of all keys then."""
        read = int(self.length)
        key = torch.arange(read + x.shape[1], device=x.device)
        return key[read:], key

    def place(
        self, position: Int[Tensor, "#batch count"]
    ) -> Int[Tensor, "#batch keys"]:
        """Keep the positions of the next tokens; return those of all keys."""
        if self.position is not None:
            rows = max(len(self.position), len(position))
            both = self.position.expand(rows, -1), position.expand(rows, -1)
            position = torch.cat(both, dim=1)
        self.position = position
        return position

    def advance(self, count: int) -> None:
        """Count tokens that all layers have now read."""
        self.length += count

    def crop(self, length: int) -> None:
        """Forget all tokens after the first `length`."""
        self.length = length
        if self.position is not None:
            self.position = self.position[:, :length]
        for layer in self.layers:
            if layer.own is not None:
                key, value = layer.own
                layer.own = (key[:, :, :length], value[:, :, :length])

    def reorder(self, rows: Int[Tensor, " batch"]) -> None:
        """Keep the rows named, in that order; beam search continues from them."""
        if self.position is not None and len(self.position) > 1:
            self.position = self.position[rows]
        for layer in self.layers:
            for name in ("own", "memory"):
                pair = getattr(layer, name)
                if pair is not None:
                    setattr(layer, name, tuple(part[rows] for part in pair))


class StaticLayer(LayerCache):
    """A layer's own keys and values in tensors that are written in place."""

    def __init__(self, cache: "StaticKVCache", key: Tensor, value: Tensor) -> None:
        super().__init__()
        self.cache, self.own = cache, (key, value)

    def append(self, key: Part, value: Part) -> KeyValue:
        assert self.own is not None
        for room, new in zip(self.own, (key, value), strict=True):
            if room.dtype != new.dtype:
                raise ValueError(f"a cache of {room.dtype} cannot keep {new.dtype}")
            room.index_copy_(2, self.cache.next, new.detach())
        return self.own


class StaticKVCache(KVCache):
    """A cache with room for `capacity` tokens of each of `batch` sequences.

    No shape changes while it fills, so that a compiled decoder keeps one graph for the
    prompt and one for every further token. No gradient passes through it.
    """

    has_unread_slots = True

    def __init__(
        self,
        config: TransformerConfig,
        *,
        batch: int,
        capacity: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not 1 <= capacity <= config.max_seq_len:
            raise ValueError(
                f"capacity must be in 1 ... max_seq_len={config.max_seq_len}, "
                f"not {capacity}"
            )
        self.capacity = capacity
        shape = batch, config.kv_heads, capacity, config.width_per_head
        rooms = torch.zeros(
            config.num_decoder_layers, 2, *shape, device=device, dtype=dtype
        )
        self.layers = [StaticLayer(self, *room) for room in rooms]
        self.length: Tensor = torch.zeros((), dtype=torch.long, device=device)
        self.position: Tensor = torch.zeros(
            batch, capacity, dtype=torch.long, device=device
        )
        self.every = torch.arange(capacity, device=device)
        self.next = self.every[:0]

    def slots(self, x: Float[Tensor, "batch count _"]) -> tuple[Slots, Slots]:
        rows, count = x.shape[:2]
        if rows != len(self.position):
            raise ValueError(f"{rows} rows, but a cache for {len(self.position)}")
        # Elsewhere to ask for the length would break the graph or stall the queue.
        if not torch.compiler.is_compiling() and x.device.type == "cpu":
            self._check_room(int(self.length), count)
        self.next = self.length + torch.arange(count, device=x.device)
        return self.next, self.every

    def _check_room(self, read: int, count: int) -> None:
        if read + count > self.capacity:
            raise ValueError(
                f"{read} tokens read and {count} more do not fit into a cache with a "
                f"capacity of {self.capacity}"
            )

    def place(self, position: Int[Tensor, "#batch count"]) -> Int[Tensor, "batch keys"]:
        new = position.expand(len(self.position), -1)
        return self.position.index_copy_(1, self.next, new)

    def crop(self, length: int) -> None:
        self.length.fill_(length)
