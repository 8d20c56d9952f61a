"""How a model comes to know where a token stands.

Every scheme answers the same questions: what is added to the embeddings, how queries
and keys are turned, what is added to the scores. "Nothing" is an answer. Positions are
always passed in, never assumed to be 0 ... n-1, so that padding, packing and the cache
need no special case.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tfcourse.model.config import TransformerConfig

Places = Int[Tensor, "#batch seq"]  # one row serves a whole batch
Queries = Int[Tensor, "#batch queries"]
Keys = Int[Tensor, "#batch keys"]
Added = Float[Tensor, "#batch seq d_model"]
Turn = Float[Tensor, "#batch 1 seq half"]  # half of head_dim
Rotation = tuple[Turn, Turn]  # cosines and sines
Bias = Float[Tensor, "#batch heads queries keys"]


class PositionScheme(nn.Module):
    """The scheme "none", and the questions that every scheme answers."""

    def embed(self, position: Places) -> Added | None:
        """Return what is added to the embeddings, or None."""
        return None

    def rotation(self, position: Places) -> Rotation | None:
        """Return the turn of queries and keys, or None."""
        return None

    def bias(self, query: Queries, key: Keys) -> Bias | None:
        """Return what is added to the scores for these positions, or None."""
        return None


class Sinusoidal(PositionScheme):
    """Sines and cosines of geometric wavelengths (Vaswani et al. 2017, section 3.5)."""

    def __init__(self, config: TransformerConfig, *, causal: bool) -> None:
        super().__init__()
        table = sinusoids(torch.arange(config.max_seq_len), config.d_model)
        self.register_buffer("table", table, persistent=False)
        self.table: Tensor

    def embed(self, position: Places) -> Added:
        return self.table[position]


class Learned(PositionScheme):
    """A trained vector for each position (GPT, BERT)."""

    def __init__(self, config: TransformerConfig, *, causal: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(config.max_seq_len, config.d_model)

    def embed(self, position: Places) -> Added:
        return self.table(position)


class Rotary(PositionScheme):
    """Queries and keys turned by an angle that grows with the position.

    Feature i is paired with feature i + head_dim / 2. A score then depends on the
    offset of query and key alone. Source: Su et al. 2021, section 3.2.
    """

    def __init__(self, config: TransformerConfig, *, causal: bool) -> None:
        super().__init__()
        place = torch.arange(config.max_seq_len)
        angle = angles(place, config.width_per_head, config.rotary_base)
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)
        self.cos: Tensor
        self.sin: Tensor

    def rotation(self, position: Places) -> Rotation:
        return self.cos[position][:, None], self.sin[position][:, None]


class Relative(PositionScheme):
    """A trained bias for each head and each range of offsets.

    Each stack has a table that its layers share. Source: Raffel et al. 2020 (T5),
    section 2.1.
    """

    def __init__(self, config: TransformerConfig, *, causal: bool) -> None:
        super().__init__()
        self.causal, self.farthest = causal, config.relative_max_distance
        self.table = nn.Embedding(config.relative_buckets, config.num_heads)

    def bias(self, query: Queries, key: Keys) -> Bias:
        offset = key[:, None, :] - query[:, :, None]
        count = self.table.num_embeddings
        bucket = offset_bucket(offset, count, self.farthest, causal=self.causal)
        return self.table(bucket).permute(0, 3, 1, 2)


class Alibi(PositionScheme):
    """A penalty on the scores that grows with the distance, at a slope for each head.

    Source: Press et al. 2022, section 3; a two-sided distance where all may be seen.
    """

    def __init__(self, config: TransformerConfig, *, causal: bool) -> None:
        super().__init__()
        self.register_buffer("slope", slopes(config.num_heads), persistent=False)
        self.slope: Tensor

    def bias(self, query: Queries, key: Keys) -> Bias:
        distance = (query[:, None, :, None] - key[:, None, None, :]).abs()
        return -self.slope[:, None, None] * distance


SCHEMES = {
    "sinusoidal": Sinusoidal,
    "learned": Learned,
    "relative": Relative,
    "rotary": Rotary,
    "alibi": Alibi,
}


def position_scheme(config: TransformerConfig, *, causal: bool) -> PositionScheme:
    """Build the scheme that `config.position` names, for a decoder if `causal`."""
    if config.position == "none":
        return PositionScheme()
    return SCHEMES[config.position](config, causal=causal)


def angles(
    position: Int[Tensor, " seq"], width: int, base: float = 10_000.0
) -> Float[Tensor, "seq half"]:
    """Return p / base^(2i / width) for each pair i, in float64 radians."""
    pair = torch.arange(0, width, 2, dtype=torch.float64, device=position.device)
    return position.double()[:, None] * base ** (-pair / width)


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


def offset_bucket(
    offset: Int[Tensor, "..."], count: int, farthest: int, *, causal: bool
) -> Int[Tensor, "..."]:
    """Return the bucket, 0 ... count - 1, of each offset key - query.

    Half of a side's buckets hold one offset each; the others widen geometrically up to
    `farthest`, and the last holds the rest. A causal decoder has the past alone; else
    the past takes the first half of the buckets. Source: Raffel et al. 2020, T5's code.
    """
    side = torch.zeros_like(offset)
    if causal:
        distance = (-offset).clamp(min=0)
    else:
        count //= 2
        side, distance = (offset > 0).long() * count, offset.abs()
    near = count // 2
    octave = (distance.clamp(min=1) / near).log() / math.log(farthest / near)
    far = (near + (octave * (count - near)).long()).clamp(max=count - 1)
    return side + torch.where(distance < near, distance, far)


def slopes(heads: int) -> Float[Tensor, " heads"]:
    """Return ALiBi's slopes 2^(-8i / heads), i = 1 ... heads.

    Where `heads` is no power of two, the next lower one's slopes come first, then
    every second one of the next higher's. Source: Press et al. 2022, their code.
    """
    lower = 2 ** math.floor(math.log2(heads))
    power = [i / lower for i in range(1, lower + 1)]
    power += [i / (2 * lower) for i in range(1, 2 * (heads - lower) + 1, 2)]
    return 2.0 ** (-8 * torch.tensor(power))
