"""Made tasks whose answer is known exactly: small enough to train in seconds.

Each task returns a `Batch` of `count` rows of `length` symbols, the integers 0 ...
symbols-1, unless it says otherwise, with the answer due at each place, or at the last
place only. The same generator state gives the same rows, and sizes that cannot be raise
`ValueError`.
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


def sort(count: int, *, length: int, symbols: int, generator: torch.Generator) -> Batch:
    """Answer with the same symbols in rising order."""
    tokens = _draw(count, length, symbols, generator)
    return Batch(tokens, tokens.sort(1).values)


def copy(count: int, *, length: int, symbols: int, generator: torch.Generator) -> Batch:
    """Write `length` symbols once more, after a sign that is the number `symbols`.

    Rows are x1 ... xn, sign, x1 ... xn-1, for a causal model; asked for is x1 ... xn,
    from the sign on.
    """
    first = _draw(count, length, symbols, generator)
    return _continued(first, torch.full((count, 1), symbols), first)


def addition(count: int, *, digits: int, generator: torch.Generator) -> Batch:
    """Add two numbers of so many digits, such as 4 7 + 0 8 = 0 5 5, for a causal model.

    Symbols are the digits, 10 for plus and 11 for equals; asked for is the sum, of one
    digit more, from the equals sign on.
    """
    _check(digits=digits)
    terms = _draw(count, 2 * digits, 10, generator).view(count, 2, digits)
    total = torch.zeros(count, digits + 1, dtype=torch.long)
    for place in reversed(range(digits)):
        column = terms[:, :, place].sum(1) + total[:, place + 1]
        total[:, place + 1] = column % 10
        total[:, place] = column // 10  # carried
    plus, equals = torch.tensor([10, 11]).expand(count, 2).split(1, 1)
    return _continued(torch.cat([terms[:, 0], plus, terms[:, 1]], 1), equals, total)


def recall(
    count: int, *, pairs: int, lag: int, symbols: int, generator: torch.Generator
) -> Batch:
    """Answer at the last place with the value that stood beside its key, long before.

    A row is `pairs` keys with their values, `lag` fillers, and one of the keys again.
    Keys are 0 ... symbols-1, each once at most, values symbols ... 2 symbols - 1, the
    filler is 2 symbols (associative recall: Graves et al. 2014, section 4.3).
    """
    if not 1 <= pairs <= symbols or lag < 0:
        raise ValueError(
            "recall needs 1 pair at least, a symbol for each, and a lag of 0 or more, "
            f"not pairs={pairs}, symbols={symbols} and lag={lag}"
        )
    values = symbols + _draw(count, pairs, symbols, generator)
    keys = _shuffles(count, symbols, generator)[:, :pairs]
    asked = torch.randint(pairs, (count, 1), generator=generator)
    shown = torch.stack([keys, values], 2).flatten(1)
    filler = torch.full((count, lag), 2 * symbols)
    tokens = torch.cat([shown, filler, keys.gather(1, asked)], 1)
    return Batch(tokens, _at_end(tokens, values.gather(1, asked)[:, 0]))


def hops(count: int, *, steps: int, symbols: int, generator: torch.Generator) -> Batch:
    """Answer at the last place with the symbol that is so many steps away from it.

    A row is a path through all symbols and back, as pairs (from, to) in mixed order,
    and the symbol to start from: 2 symbols + 1 places. Fewer steps lead to another
    answer (k-hop lookup; Peng et al. 2024 call it function composition).
    """
    if not 1 <= steps < symbols:
        raise ValueError(
            "hops needs at least 1 step, and more symbols than steps, not "
            f"steps={steps} and symbols={symbols}"
        )
    _check(count=count)
    path = _shuffles(count, symbols, generator)
    arrows = torch.stack([path, path.roll(-1, 1)], 2)
    order = _shuffles(count, symbols, generator)[:, :, None].expand_as(arrows)
    tokens = torch.cat([arrows.gather(1, order).flatten(1), path[:, :1]], 1)
    return Batch(tokens, _at_end(tokens, path[:, steps]))


def cards(count: int, *, steps: int, symbols: int, generator: torch.Generator) -> Batch:
    """Answer at each place with the symbol that so many steps lead to from there.

    Place p holds the number of the place to go to next. A row has `symbols` places,
    and one step leads to the symbol that a place holds itself.
    """
    _check(steps=steps)
    tokens = _draw(count, symbols, symbols, generator)
    found = tokens
    for _ in range(steps - 1):
        found = tokens.gather(1, found)
    return Batch(tokens, found)


def cups(count: int, *, length: int, cups: int, generator: torch.Generator) -> Batch:
    """Answer at each place where the ball is, which began under cup 0.

    A symbol stands for two cups that change places: symbol i is the pair number i of
    (0, 1), (0, 2) ... (cups-2, cups-1). To know where the ball is, one has to follow
    it: a product of permutations (Merrill et al. 2024). Fewer than 2 cups raise
    `ValueError`.
    """
    if cups < 2:
        raise ValueError(f"cups must be at least 2, not {cups}")
    swaps = torch.combinations(torch.arange(cups))
    tokens = _draw(count, length, len(swaps), generator)
    ball, seen = torch.zeros(count, dtype=torch.long), []
    for swap in swaps[tokens].unbind(1):
        first, second = swap.unbind(1)
        to_first, to_second = ball == second, ball == first
        ball = torch.where(to_first, first, torch.where(to_second, second, ball))
        seen.append(ball)
    return Batch(tokens, torch.stack(seen, 1))


def parity(count: int, *, length: int, generator: torch.Generator) -> Batch:
    """Answer at the last place whether the number of ones is odd: 1, or even: 0."""
    tokens = _draw(count, length, 2, generator)
    return Batch(tokens, _at_end(tokens, tokens.sum(1) % 2))


def _continued(prompt: Tensor, sign: Tensor, answer: Tensor) -> Batch:
    """Make the batch of a causal model that reads prompt and sign and writes on."""
    tokens = torch.cat([prompt, sign, answer[:, :-1]], 1)
    target = torch.full_like(tokens, IGNORE)
    target[:, prompt.shape[1] :] = answer
    return Batch(tokens, target)


def _shuffles(count: int, symbols: int, generator: torch.Generator) -> Tensor:
    """Return 0 ... symbols-1 in a random order, in each of `count` rows."""
    return torch.rand(count, symbols, generator=generator).argsort(1)


def _at_end(tokens: Tensor, answer: Int[Tensor, " count"]) -> Tensor:
    target = torch.full_like(tokens, IGNORE)
    target[:, -1] = answer
    return target


def _draw(count: int, length: int, symbols: int, generator: torch.Generator) -> Tensor:
    _check(count=count, length=length, symbols=symbols)
    return torch.randint(symbols, (count, length), generator=generator)


def _check(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
