"""Made tasks whose answer is known exactly: small enough to train in seconds.

Each task returns a `Batch` of `count` rows of `length` symbols, the integers 0 ...
symbols-1, with the answer due at each place, or at the last place only. The same
generator state gives the same rows.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from tfcourse.data.pairs import IGNORE, Batch


def reverse(
    count: int, *, length: int, symbols: int, generator: torch.Generator
) -> Batch:
    """Answer at each place with the symbol at the mirrored place."""
    tokens = _draw(count, length, symbols, generator)
    return Batch(tokens, tokens.flip(1))


def two_lookups(
    count: int, *, length: int, symbols: int, generator: torch.Generator
) -> Batch:
    """Answer at each place with a pair: the mirrored symbol and the next one.

    The pair (a, b) is the number a * symbols + b; after the last place comes the first.
    """
    tokens = _draw(count, length, symbols, generator)
    return Batch(tokens, tokens.flip(1) * symbols + tokens.roll(-1, 1))


def which_first(
    count: int, *, length: int, symbols: int, generator: torch.Generator
) -> Batch:
    """Answer at the last place which of the symbols 0 and 1 came first.

    Each occurs once, before the last place, among other symbols, so that nothing but
    their order tells. Fewer than 3 symbols or places raise `ValueError`.
    """
    if symbols < 3 or length < 3:
        raise ValueError(
            "which_first needs at least 3 symbols and 3 places, not "
            f"symbols={symbols} and length={length}"
        )
    tokens = 2 + _draw(count, length, symbols - 2, generator)
    place = torch.rand(count, length - 1, generator=generator).argsort(1)[:, :2]
    tokens.scatter_(1, place, torch.tensor([0, 1]).expand(count, 2))
    return Batch(tokens, _at_end(tokens, (place[:, 1] < place[:, 0]).long()))


def most_frequent(
    count: int, *, length: int, symbols: int, generator: torch.Generator
) -> Batch:
    """Answer at the last place with the symbol that occurs most often.

    Order does not matter. Rows in which two symbols tie are drawn again. Fewer than 2
    symbols or 3 places raise `ValueError`.
    """
    if symbols < 2 or length < 3:
        raise ValueError(
            "most_frequent needs at least 2 symbols and 3 places, not "
            f"symbols={symbols} and length={length}"
        )
    kept: list[Tensor] = []
    while sum(map(len, kept)) < max(count, 1):
        tokens = _draw(count, length, symbols, generator)
        most, second = F.one_hot(tokens, symbols).sum(1).topk(2).values.unbind(1)
        kept.append(tokens[most > second])
    tokens = torch.cat(kept)[:count]
    return Batch(tokens, _at_end(tokens, F.one_hot(tokens, symbols).sum(1).argmax(1)))


def _at_end(tokens: Tensor, answer: Int[Tensor, " count"]) -> Tensor:
    target = torch.full_like(tokens, IGNORE)
    target[:, -1] = answer
    return target


def _draw(count: int, length: int, symbols: int, generator: torch.Generator) -> Tensor:
    for name, value in (("count", count), ("length", length), ("symbols", symbols)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    return torch.randint(symbols, (count, length), generator=generator)
