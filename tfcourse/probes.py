"""Checks of a model's behaviour that need nothing but the model as a function.

A probe calls `model` on changed inputs, compares the outputs, and returns the largest
difference that ought not to be there; above the tolerance, atol + rtol · |expected|, it
raises `AssertionError` and says what was seen. Inputs are token ids [batch, seq] or
vectors [batch, seq, width]; outputs are [batch, seq, ...]. Places are counted from 0.
What cannot be probed (one token only, a model with dropout on) raises `ValueError`.

The last three look at what stands around a model: at recorded attention weights, at the
targets of a batch, and at a loss.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from tfcourse.model.cache import KVCache

Inputs = Shaped[Tensor, "batch seq *width"]
AnyBatch = TypeVar("AnyBatch")


@torch.no_grad()
def assert_causal(
    model: Callable[[Tensor], Tensor],
    inputs: Inputs,
    *,
    seed: int = 0,
    atol: float = 1e-5,
    rtol: float = 1e-5,
) -> float:
    """Check that no output depends on a later token, and that every token is read.

    One token after the other is changed. Each call starts from `seed`, so that a model
    with dropout can be probed in training mode too.
    """
    _check_inputs(inputs)

    def run(x: Tensor) -> Tensor:
        with _seeded(seed, x.device):
            return _output(model(x), like=inputs)

    expected, largest = _twice(lambda: run(inputs)), 0.0
    for token in range(inputs.shape[1]):
        found = run(_change_token(inputs, token))
        message = (
            f"output {{place}} changed by {{size:.2g}} when token {token} was changed: "
            "the model looks ahead"
        )
        size = _compare(found[:, :token], expected[:, :token], atol, rtol, message)
        largest = max(largest, size)
        if torch.equal(found[:, token:], expected[:, token:]):
            raise AssertionError(
                f"no output changed when token {token} was changed: "
                "the model does not read it"
            )
    return largest


@torch.no_grad()
def assert_padding_invariant(
    model: Callable[[Tensor, Tensor], Tensor],
    inputs: Inputs,
    *,
    side: Literal["right", "left"] = "right",
    pad: int | None = None,
    per_token: bool = True,
    atol: float = 1e-5,
    rtol: float = 1e-5,
) -> float:
    """Check that a row of a padded batch gives what it gives alone.

    `model(inputs, valid)` gets a boolean [batch, seq] that is True at real tokens. Of
    each row some tokens on `side` are declared padding and, if `pad` is given, replaced
    by it. With `per_token=False` outputs are compared whole: for a pooled output, or
    one of another sequence, such as a decoder's when its source is padded.
    """
    _check_inputs(inputs)
    valid = _unequal_rows(inputs, side)
    padded = inputs.clone()
    if pad is not None:
        padded[~valid] = pad

    def run(x: Tensor, real: Tensor) -> Tensor:
        return _output(model(x, real), like=x if per_token else None)

    together, largest = _twice(lambda: run(padded, valid)), 0.0
    for row, real in enumerate(valid):
        alone = run(inputs[row : row + 1, real], real[None, real])
        found = together[row : row + 1]
        message = (
            f"output {{place}} of row {row} changed by {{size:.2g}} when the row was "
            f"padded with {int((~real).sum())} token(s) on the {side}: padding is "
            "attended to" + (", or positions count it" if side == "left" else "")
        )
        found = found[:, real.cpu()] if per_token else found
        largest = max(largest, _compare(found, alone, atol, rtol, message))
    return largest


@torch.no_grad()
def assert_permutation_equivariant(
    model: Callable[[Tensor], Tensor],
    inputs: Inputs,
    *,
    seed: int = 0,
    atol: float = 1e-5,
    rtol: float = 1e-5,
) -> float:
    """Check that shuffled tokens give the same outputs, shuffled: order is not seen.

    Three random orders are tried. Equal tokens hide their order, so they must differ.
    """
    _check_inputs(inputs)
    expected, largest = _twice(lambda: _output(model(inputs), like=inputs)), 0.0
    generator = torch.Generator().manual_seed(seed)
    for _ in range(3):
        order = _random_order(inputs.shape[1], generator)
        found = _output(model(inputs[:, order.to(inputs.device)]), like=inputs)
        message = (
            f"the tokens were put in the order {order.tolist()}, and the output of the "
            "one now at place {place} changed by {size:.2g}: the model sees the order"
        )
        size = _compare(found, expected[:, order], atol, rtol, message)
        largest = max(largest, size)
    return largest


@torch.no_grad()
def assert_deterministic(
    model: Callable[[Tensor], Tensor],
    inputs: Inputs,
    *,
    atol: float = 0.0,
    rtol: float = 0.0,
) -> float:
    """Check that the same inputs give the same outputs, to the last bit by default."""
    _check_inputs(inputs)
    first = _not_nan(_output(model(inputs), like=inputs))
    second = _output(model(inputs), like=inputs)
    message = (
        "output {place} changed by {size:.2g} when the same inputs were read again: is "
        "dropout still on? model.eval() switches it off"
    )
    return _compare(second, first, atol, rtol, message)


@torch.no_grad()
def assert_rows_independent(
    model: Callable[[Tensor], Tensor],
    inputs: Inputs,
    *,
    atol: float = 1e-5,
    rtol: float = 1e-5,
) -> float:
    """Check that each row of a batch gives what it gives alone.

    Equal rows hide what they see of each other, so they must differ.
    """
    _check_inputs(inputs)
    if bool((inputs == inputs[:1]).all()):
        raise ValueError("a probe of rows needs two or more that differ")
    together, largest = _twice(lambda: _output(model(inputs), like=inputs)), 0.0
    for row in range(len(inputs)):
        one = slice(row, row + 1)
        alone = _output(model(inputs[one]), like=inputs[one])
        message = (
            f"output {{place}} of row {row} changed by {{size:.2g}} when the row was "
            "read alone: it sees other rows, or its place in the batch"
        )
        largest = max(largest, _compare(alone, together[one], atol, rtol, message))
    return largest


@torch.no_grad()
def assert_documents_apart(
    model: Callable[[Tensor, Tensor], Tensor],
    inputs: Inputs,
    document: Int[Tensor, "batch seq"],
    *,
    atol: float = 1e-5,
    rtol: float = 1e-5,
) -> float:
    """Check that documents packed into one row give what each gives alone.

    `model(inputs, document)` gets the number of each token's document; it has to start
    positions again where a document starts.
    """
    _check_inputs(inputs)
    if document.shape != inputs.shape[:2] or bool((document == document[:, :1]).all()):
        raise ValueError(
            "document must number the documents of each row, two or more in one of "
            f"them, for inputs {tuple(inputs.shape)}: not {document.tolist()}"
        )

    def run(x: Tensor, numbers: Tensor) -> Tensor:
        return _output(model(x, numbers), like=x)

    packed, largest = _twice(lambda: run(inputs, document)), 0.0
    for row, numbers in enumerate(document):
        for number in numbers.unique().tolist():
            own = numbers == number
            alone = run(inputs[row : row + 1, own], numbers[None, own])
            message = (
                f"output {{place}} of document {number} in row {row} changed by "
                "{size:.2g} when it was packed with others: it sees another document, "
                "or positions go on from one to the next"
            )
            found = packed[row : row + 1, own.cpu()]
            largest = max(largest, _compare(found, alone, atol, rtol, message))
    return largest


@torch.no_grad()
def assert_order_seen(
    model: Callable[[Tensor], Tensor],
    inputs: Inputs,
    *,
    seed: int = 0,
    least: float = 1e-3,
) -> float:
    """Check that shuffled tokens give more than the same outputs, shuffled.

    The counterpart of `assert_permutation_equivariant`. Of three random orders each has
    to change an output by more than `least`; the smallest change is returned.
    """
    _check_inputs(inputs)
    expected = _twice(lambda: _output(model(inputs), like=inputs))
    generator, smallest = torch.Generator().manual_seed(seed), torch.inf
    for _ in range(3):
        order = _random_order(inputs.shape[1], generator)
        found = _output(model(inputs[:, order.to(inputs.device)]), like=inputs)
        size = float(_difference(found, expected[:, order], 0.0, 0.0)[0].max())
        if not size > least:
            raise AssertionError(
                f"the tokens were put in the order {order.tolist()}, and their outputs "
                f"moved with them, changed by {size:.2g} at most: the model does not "
                "see the order"
            )
        smallest = min(smallest, size)
    return smallest


@torch.no_grad()
def assert_cache_equals_full(
    model: Callable[[Tensor, Any], Tensor],
    inputs: Inputs,
    *,
    new_cache: Callable[[], Any] = KVCache,
    atol: float = 1e-5,
    rtol: float = 1e-5,
) -> float:
    """Check that reading piece by piece with a cache gives what one full pass gives.

    `model(inputs, None)` is the full pass; `model(piece, cache)` reads the next tokens.
    The pieces are single tokens, then a prompt and single tokens, then chunks of two;
    `new_cache` makes an empty cache for each of the three.
    """
    _check_inputs(inputs)
    expected, largest = _twice(lambda: _output(model(inputs, None), like=inputs)), 0.0
    length = inputs.shape[1]
    half = length // 2
    ways = [1] * length, [half] + [1] * (length - half), [2] * half + [1] * (length % 2)
    for pieces in ways:
        cache, read = new_cache(), 0
        for piece in inputs.split(pieces, dim=1):
            count = piece.shape[1]
            found = _output(model(piece, cache), like=piece)
            message = (
                f"with {count} token(s) read after {read} in a cache, output {{place}} "
                "is {size:.2g} away from the full pass: " + _cache_cause(read, count)
            )
            here = expected[:, read : read + count]
            size = _compare(found, here, atol, rtol, message, first=read)
            read, largest = read + count, max(largest, size)
    return largest


@torch.no_grad()
def assert_matches_reference(
    model: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    *inputs: Any,
    atol: float = 1e-5,
    rtol: float = 1e-5,
) -> float:
    """Check that `model(*inputs)` equals `reference(*inputs)` in shape and values."""
    found = _output(model(*inputs), like=None)
    expected = _output(reference(*inputs), like=None)
    if found.shape != expected.shape:
        raise AssertionError(
            f"the output's shape is {tuple(found.shape)}, "
            f"the reference's {tuple(expected.shape)}"
        )
    difference, excess = _difference(found, expected, atol, rtol)
    if not bool((excess > 0).any()):
        return float(difference.max())
    where = torch.unravel_index(excess.argmax(), excess.shape)
    raise AssertionError(
        f"{int((excess > 0).sum())} of {excess.numel()} elements differ from the "
        f"reference; the worst, {tuple(int(axis) for axis in where)}, is "
        f"{float(found[where]):.4g} and not {float(expected[where]):.4g}"
        + _factor_between(found, expected)
    )


@torch.no_grad()
def assert_tied(
    model: Callable[[Tensor], Tensor],
    embedding: Float[Tensor, "vocab width"],
    tokens: Int[Tensor, "batch seq"],
    *,
    atol: float = 1e-5,
    rtol: float = 1e-5,
) -> float:
    """Check that a model's logits are made with its embedding, and nothing else.

    `embedding` is the model's matrix. The row of a token that is not among `tokens` is
    replaced by another's and put back: all vectors below the head stay, and its logit
    must become the other's, up to one constant, the difference of two biases.
    """
    _check_inputs(tokens)
    absent = sorted(set(range(len(embedding))) - set(tokens.flatten().tolist()))
    if not absent:
        raise ValueError("tokens hold the whole vocabulary: a probe needs one left out")
    token, other = absent[0], int(tokens[0, 0])
    before = _twice(lambda: _output(model(tokens), like=tokens))
    kept = embedding[token].clone()
    embedding[token] = embedding[other]
    try:
        found = _output(model(tokens), like=tokens)
    finally:
        embedding[token] = kept
    done = f"token {token}, which is not read, was given the embedding of {other}"
    if torch.equal(found, before):
        raise AssertionError(f"no logit changed when {done}: the head is not tied")
    expected = before.clone()
    bias = found[0, 0, token] - before[0, 0, other]
    expected[..., token] = before[..., other] + bias
    message = (
        f"when {done}, a logit at place {{place}} was {{size:.2g}} away from that of "
        f"{other}: the head has more than the embedding"
    )
    return _compare(found, expected, atol, rtol, message)


def assert_weights_are_distributions(
    weights: Float[Tensor, "... queries keys"],
    allowed: Bool[Tensor, "..."] | None = None,
    *,
    atol: float = 1e-5,
) -> float:
    """Check that each query's attention weights sum to one and heed the mask.

    `allowed` is True where a query may attend to a key and broadcasts to the weights; a
    query that may attend to nothing has weights of zero. No negative weights.
    """
    found = _output(weights, like=None)
    if found.isnan().any():
        raise AssertionError("a weight is not a number (nan)")
    may_see = torch.ones(1, dtype=torch.bool) if allowed is None else allowed.cpu()
    may_see = may_see.expand(found.shape)
    away = (found.sum(-1, keepdim=True) - may_see.any(-1, keepdim=True).double()).abs()
    faults = {
        "query {} gives weight to key {}, which is masked: {:.2g}": (
            found.masked_fill(may_see, 0.0).abs()
        ),
        "query {} gives key {} a weight below 0, by {:.2g}": (-found).clamp(min=0.0),
        "the weights of query {0} have a sum that is {2:.2g} off: were they masked "
        "after the softmax, or is it a softmax over another axis?": away,
    }
    for message, size in faults.items():
        if float(size.max()) > atol:
            *_, query, key = torch.unravel_index(size.argmax(), size.shape)
            raise AssertionError(
                message.format(int(query), int(key), float(size.max()))
            )
    return max(float(size.max()) for size in faults.values())


def assert_targets_shifted(
    tokens: Int[Tensor, "batch seq"],
    target: Int[Tensor, "batch seq"],
    *,
    ignore: int = -100,
) -> int:
    """Check that what is asked for at each place is the token at the next one.

    A place counts if something is asked there and at the next, where target is not
    `ignore`. Returns how many do; none raises `ValueError`.
    """
    _check_inputs(tokens)
    here, after = target[:, :-1], tokens[:, 1:]
    asked = (here != ignore) & (target[:, 1:] != ignore)
    if not bool(asked.any()):
        raise ValueError("nothing is asked at two neighbouring places of any row")
    wrong = asked & (here != after)
    if not bool(wrong.any()):
        return int(asked.sum())
    row, place = wrong.nonzero()[0].tolist()
    raise AssertionError(
        f"row {row} asks for token {int(here[row, place])} at place {place}, but the "
        f"next one is {int(after[row, place])}: {_shift_of(tokens, target, asked)}"
    )


def assert_accumulation_equals_batch(
    loss: Callable[[AnyBatch], tuple[Tensor, Tensor]],
    whole: AnyBatch,
    parts: Sequence[AnyBatch],
    *,
    atol: float = 1e-6,
    rtol: float = 1e-5,
) -> float:
    """Check that parts of a batch, added up, have the loss of the whole batch.

    `loss(batch)` returns a sum and the count that it has to be divided by. Parts should
    have unequal counts, which a mean of means gets wrong; parts cut without the whole's
    padding show whether padding counts.
    """
    with torch.no_grad():
        total, count = map(float, loss(whole))
        sums, counts = zip(*(map(float, loss(part)) for part in parts), strict=True)
    expected, found = total / count, sum(sums) / sum(counts)
    size = abs(found - expected)
    if size <= atol + rtol * abs(expected):
        return size
    raise AssertionError(
        f"the loss of the whole batch is {expected:.4g}, a mean over {count:g}, and "
        f"that of its {len(parts)} part(s) {found:.4g}, over {sum(counts):g}: is "
        "it a mean of means, or does padding count?"
    )


def _factor_between(found: Tensor, expected: Tensor) -> str:
    """Name the one factor by which the two differ, if there is one."""
    factor = float((found * expected).sum() / expected.square().sum())
    if torch.allclose(found, factor * expected, rtol=1e-3, atol=1e-6):
        return f"; all are {factor:.4g} times the reference's: is a scale missing?"
    return ""


def _shift_of(tokens: Tensor, target: Tensor, asked: Tensor) -> str:
    """Name the shift between tokens and targets, where one explains every target."""
    here = target[:, :-1]
    if bool((here == tokens[:, :-1])[asked].all()):
        return "targets are not shifted, so the model is asked to repeat what it reads"
    if bool((target[:, :-2] == tokens[:, 2:])[asked[:, :-1]].all()):
        return "targets are shifted twice"
    return "targets are not the tokens, shifted by one"


def _cache_cause(read: int, count: int) -> str:
    if read == 0:
        return "an empty cache alone changes what is computed"
    if count == 1:
        return "keys or values are lost, or positions start again"
    return "the chunk's mask or positions forget what was read before"


def _check_inputs(inputs: Tensor) -> None:
    if inputs.dim() < 2 or inputs.shape[1] < 2:
        raise ValueError(
            "a probe needs inputs [batch, seq] or [batch, seq, width] of two tokens or "
            f"more, not of shape {tuple(inputs.shape)}"
        )
    if bool((inputs == inputs[:, :1]).all()):
        raise ValueError("the tokens of the inputs are all equal: a probe needs others")


def _output(output: Tensor, like: Tensor | None) -> Tensor:
    """Return an output ready for comparison, after a look at its shape."""
    if like is not None and output.shape[:2] != like.shape[:2]:
        raise ValueError(
            f"the model returned shape {tuple(output.shape)} for inputs of shape "
            f"{tuple(like.shape)}: a probe compares outputs [batch, seq, ...]"
        )
    if not output.numel():
        raise ValueError(f"an output of shape {tuple(output.shape)} shows nothing")
    return output.detach().cpu().double()


def _twice(run: Callable[[], Tensor]) -> Tensor:
    """Return the output of `run`, which must be the same when it is called again."""
    first, second = _not_nan(run()), run()
    if not torch.equal(first, second):
        raise ValueError(
            "the model gave two outputs for one input, so nothing can be compared: "
            "does model.eval() have to switch dropout off?"
        )
    return first


def _not_nan(output: Tensor) -> Tensor:
    if output.isnan().any():
        raise AssertionError("the model's output is not a number (nan)")
    return output


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _change_token(inputs: Tensor, place: int) -> Tensor:
    """Put something else at `place`: another of the inputs' ids, or another vector."""
    changed = inputs.clone()
    if inputs.is_floating_point():
        # Not a shift or a scale alone, which a norm would undo.
        changed[:, place] = 1 - 2 * inputs[:, place].roll(1, dims=-1)
    else:
        known, index = inputs.unique(return_inverse=True)
        changed[:, place] = known[(index[:, place] + 1) % len(known)]
    return changed


def _unequal_rows(inputs: Tensor, side: str) -> Bool[Tensor, "batch seq"]:
    """Call seq-1 tokens of the first row real, seq-2 of the second ... 1, seq-1 ..."""
    if side not in ("right", "left"):
        raise ValueError(f"side must be right or left, not {side!r}")
    batch, seq = inputs.shape[:2]
    row = torch.arange(batch, device=inputs.device)[:, None]
    valid = torch.arange(seq, device=inputs.device) < seq - 1 - row % (seq - 1)
    return valid.flip(1) if side == "left" else valid


def _random_order(count: int, generator: torch.Generator) -> Int[Tensor, " seq"]:
    """Return an order of 0 ... count-1 other than the one they stand in."""
    while True:
        order = torch.randperm(count, generator=generator, device=generator.device)
        if order.diff().lt(0).any():
            return order


def _difference(
    found: Tensor, expected: Tensor, atol: float, rtol: float
) -> tuple[Tensor, Tensor]:
    """Return |found - expected|, and by how much it is above the tolerance."""
    # Equal infinities, as in masked logits, are no difference; nan always is one.
    same = found == expected
    difference = (found - expected).abs().masked_fill(same, 0.0)
    excess = difference - (atol + rtol * expected.abs())
    return difference, excess.masked_fill(same, -1.0).nan_to_num(torch.inf)


def _compare(
    found: Tensor,
    expected: Tensor,
    atol: float,
    rtol: float,
    message: str,
    first: int = 0,
) -> float:
    """Return the largest difference; above the tolerance raise `message`.

    It is formatted with the place along axis 1 that is most wrong, counted from
    `first`, and the size of the difference there.
    """
    difference, excess = _difference(found, expected, atol, rtol)
    if not found.numel():
        return 0.0
    if not bool((excess > 0).any()):
        return float(difference.max())
    place = int(torch.unravel_index(excess.argmax(), excess.shape)[1])
    size = float(difference[:, place].max())
    raise AssertionError(message.format(place=first + place, size=size))
