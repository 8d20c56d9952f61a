"""How a model comes to know where a token stands.

Every scheme answers the same questions: what is added to the embeddings, how queries
and keys are turned. "Nothing" is an answer. Positions are always passed in, never
assumed to be 0 ... n-1, so that padding, packing and the cache need no special case.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tfcourse.model.config import TransformerConfig

Rotation = tuple[Tensor, Tensor]  # cosines and sines, [batch, 1, seq, head_dim / 2]


class PositionScheme(nn.Module):
    """The scheme "none", and the questions that every scheme answers."""

    def embed(self, position: Int[Tensor, "batch seq"]) -> Tensor | None:
        """Return what is added to the embeddings, [batch, seq, d_model], or None."""
        return None

    def rotation(self, position: Int[Tensor, "batch seq"]) -> Rotation | None:
        """Return the turn of queries and keys, or None."""
        return None


class Sinusoidal(PositionScheme):
    """Sines and cosines of geometric wavelengths (Vaswani et al. 2017, section 3.5)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        table = sinusoids(torch.arange(config.max_seq_len), config.d_model)
        self.register_buffer("table", table, persistent=False)
        self.table: Tensor

    def embed(self, position: Int[Tensor, "batch seq"]) -> Tensor:
        return self.table[position]


class Learned(PositionScheme):
    """A trained vector for each position (GPT, BERT)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.table = nn.Embedding(config.max_seq_len, config.d_model)

    def embed(self, position: Int[Tensor, "batch seq"]) -> Tensor:
        return self.table(position)


class Rotary(PositionScheme):
    """Queries and keys turned by an angle that grows with the position.

    Feature i is paired with feature i + head_dim / 2. A score then depends on the
    offset of query and key alone. Source: Su et al. 2021, section 3.2.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        angle = angles(torch.arange(config.max_seq_len), config.width_per_head)
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)
        self.cos: Tensor
        self.sin: Tensor

    def rotation(self, position: Int[Tensor, "batch seq"]) -> Rotation:
        return self.cos[position][:, None], self.sin[position][:, None]


SCHEMES = {"sinusoidal": Sinusoidal, "learned": Learned, "rotary": Rotary}


def position_scheme(config: TransformerConfig) -> PositionScheme:
    """Build the scheme that `config.position` names."""
    if config.position == "none":
        return PositionScheme()
    return SCHEMES[config.position](config)


def angles(position: Int[Tensor, " seq"], width: int) -> Float[Tensor, "seq half"]:
    """Return p / 10000^(2i / width) for each pair i, in float64 radians."""
    pair = torch.arange(0, width, 2, dtype=torch.float64, device=position.device)
    return position.double()[:, None] * 10_000 ** (-pair / width)


def sinusoids(position: Int[Tensor, " seq"], width: int) -> Float[Tensor, "seq width"]:
    """Return sin at even and cos at odd features (Vaswani et al. 2017, section 3.5)."""
    angle = angles(position, width)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1).float()


def rotate(
    x: Float[Tensor, "batch heads seq head_dim"], rotation: Rotation
) -> Float[Tensor, "batch heads seq head_dim"]:
    """Turn each pair of features of x by its angle."""
    cos, sin = (part.to(x.dtype) for part in rotation)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)
