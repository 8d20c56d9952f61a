"""Pairs of texts, and the batches that models train on."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tfcourse.data.tokenizers import AnyTokenizer
from tfcourse.model.masks import MaskRule, both, padding, same_document

IGNORE = -100  # a target that no loss is taken of; PyTorch's own default


@dataclass(frozen=True)
class Pairs:
    """Texts with their translations: to train on, to test on, and how to number them.

    No pair of `test` is in `train`.
    """

    train: list[tuple[str, str]]
    test: list[tuple[str, str]]
    tokenizer: AnyTokenizer


@dataclass(frozen=True)
class Batch:
    """What a model reads, and what it should answer at each position.

    `target` is -100 (`IGNORE`) where nothing is asked. `valid` and `source_valid` are
    True at real tokens, False at padding; None means that no mask is needed: padding on
    the right of a causal model is only ever seen by padding. Where several documents
    are packed in a row, `document` numbers them and `position` counts anew in each; the
    source's documents have the numbers of those that they belong to.
    """

    tokens: Int[Tensor, "batch seq"]
    target: Int[Tensor, "batch seq"]
    valid: Bool[Tensor, "batch seq"] | None = None
    source: Int[Tensor, "batch source"] | Float[Tensor, "batch h w"] | None = None
    source_valid: Bool[Tensor, "batch source"] | None = None
    position: Int[Tensor, "batch seq"] | None = None
    document: Int[Tensor, "batch seq"] | None = None
    source_position: Int[Tensor, "batch source"] | None = None
    source_document: Int[Tensor, "batch source"] | None = None

    @property
    def mask(self) -> MaskRule | None:
        """The rule that hides padding and other documents among `tokens`."""
        own = None if self.document is None else same_document(self.document)
        return both(_real(self.valid), own)

    @property
    def source_mask(self) -> MaskRule | None:
        """The rule that hides padding and other documents within the source."""
        numbers = self.source_document
        own = None if numbers is None else same_document(numbers)
        return both(_real(self.source_valid), own)

    @property
    def memory_mask(self) -> MaskRule | None:
        """The rule that hides padding and other documents' sources from `tokens`."""
        own = None
        if self.document is not None and self.source_document is not None:
            own = same_document(self.document, self.source_document)
        return both(_real(self.source_valid), own)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch with its tensors on the device."""
        return self.each(lambda name, tensor: tensor.to(device))

    def rows(self, chosen: slice | Int[Tensor, " rows"]) -> "Batch":
        """Return the batch of these rows, in this order."""
        return self.each(lambda name, tensor: tensor[chosen])

    def lengths(self) -> Int[Tensor, " batch"]:
        """Count what is not padding in each row: targets, and tokens with a mask."""
        counted = [self.target != IGNORE, self.valid, self.source_valid]
        return torch.stack([m.sum(1) for m in counted if m is not None]).sum(0)

    def ends(self) -> dict[str, Int[Tensor, " batch"]]:
        """Return where padding begins in each row, of "tokens" and, if any, "source".

        What a decoder reads after the last target has no influence: with a source, the
        tokens end there. Without a source and without `valid`, all tokens count. A row
        has one place at least.
        """
        asked, source = self.target != IGNORE, self.source
        if self.valid is None:
            real = torch.ones_like(asked) if source is None else asked
        else:
            real = asked | self.valid
        ends = {"tokens": _ends(real)}
        if self.source_valid is not None:
            ends["source"] = _ends(self.source_valid)
        elif source is not None:
            ends["source"] = ends["tokens"].new_full((len(source),), source.shape[1])
        return ends

    def trimmed(self) -> "Batch":
        """Return the batch without the columns at the end that are padding in all rows.

        See `ends`.
        """
        ends = {side: int(end.max()) for side, end in self.ends().items()}
        return self.each(lambda name, tensor: tensor[:, : ends[side_of(name)]])

    def each(self, change: Callable[[str, Tensor], Tensor]) -> "Batch":
        """Return the batch with each tensor as `change(name, tensor)` makes it."""
        changed: dict[str, Any] = {
            name: None if tensor is None else change(name, tensor)
            for name, tensor in vars(self).items()
        }
        return Batch(**changed)


def _real(valid: Tensor | None) -> MaskRule | None:
    return None if valid is None else padding(valid)


def side_of(name: str) -> str:
    """Return whether a field of a batch goes with its "tokens" or its "source"."""
    return "source" if name.startswith("source") else "tokens"


def _ends(real: Bool[Tensor, "batch seq"]) -> Int[Tensor, " batch"]:
    """Return how many columns reach to the last True of each row, at least one."""
    place = torch.arange(1, real.shape[1] + 1, device=real.device)
    return (real * place).amax(1).clamp(min=1)


def pad(
    rows: Sequence[Sequence[int]], value: int, *, left: bool = False
) -> Int[Tensor, "batch longest"]:
    """Stack rows of unequal length, filled with `value` on the right, or the left."""
    longest = max(map(len, rows))
    filled = []
    for row in rows:
        filling = [value] * (longest - len(row))
        filled.append([*filling, *row] if left else [*row, *filling])
    return torch.tensor(filled, dtype=torch.long)


def translation_batch(
    pairs: Sequence[tuple[str, str]], tokenizer: AnyTokenizer
) -> Batch:
    """Batch for an encoder-decoder: it reads the source and the target so far.

    The decoder reads start, y1 ... yn and should answer y1 ... yn, stop (Vaswani et al.
    2017, section 3: outputs shifted right).
    """
    source = pad([tokenizer.encode(text) for text, _ in pairs], tokenizer.pad)
    output = [tokenizer.encode(text) for _, text in pairs]
    return Batch(
        tokens=pad([[tokenizer.start, *ids] for ids in output], tokenizer.pad),
        target=pad([[*ids, tokenizer.stop] for ids in output], IGNORE),
        source=source,
        source_valid=source != tokenizer.pad,
    )


def prefix_batch(pairs: Sequence[tuple[str, str]], tokenizer: AnyTokenizer) -> Batch:
    """Batch for a decoder alone: the source is a prefix that no loss is taken of.

    A row is x1 ... xm, start, y1 ... yn; asked for is y1 ... yn, stop, from `start` on
    (Liu et al. 2018, section 4.2.2).
    """
    tokens, target = [], []
    for prefix, text in pairs:
        before, after = tokenizer.encode(prefix), tokenizer.encode(text)
        tokens.append([*before, tokenizer.start, *after])
        target.append([IGNORE] * len(before) + [*after, tokenizer.stop])
    return Batch(tokens=pad(tokens, tokenizer.pad), target=pad(target, IGNORE))


def text_batch(texts: Sequence[str], tokenizer: AnyTokenizer) -> Batch:
    """Batch for a language model: each token is to be foretold from those before it."""
    return prefix_batch([("", text) for text in texts], tokenizer)


def label_batch(pairs: Sequence[tuple[str, str]], tokenizer: AnyTokenizer) -> Batch:
    """Batch for an encoder alone: the answer, one token, is due at the first position.

    `start` stands there, as BERT's [CLS] does (Devlin et al. 2018, section 3). A label
    of more than one token raises `ValueError`.
    """
    labels = [tokenizer.encode(label) for _, label in pairs]
    for (_, label), ids in zip(pairs, labels, strict=True):
        if len(ids) != 1:
            raise ValueError(f"a label must be one token; {label!r} is {len(ids)}")
    tokens = pad(
        [[tokenizer.start, *tokenizer.encode(text)] for text, _ in pairs], tokenizer.pad
    )
    target = torch.full_like(tokens, IGNORE)
    target[:, 0] = torch.tensor(labels)[:, 0]
    return Batch(tokens=tokens, target=target, valid=tokens != tokenizer.pad)


@dataclass(frozen=True)
class Batches:
    """Batches of all items, in a new order each epoch.

    `len` counts those of all epochs; the last of an epoch may be smaller, and none is
    left out. `batches[k]` depends on the seed and k alone, so that a run can go on from
    any step. No items, and sizes below 1, raise `ValueError`.
    """

    items: Sequence[Any]
    tokenizer: AnyTokenizer
    make: Callable[[Sequence[Any], AnyTokenizer], Batch] = translation_batch
    size: int = 64
    epochs: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("size", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, not {getattr(self, name)}"
                )
        if not self.items:
            raise ValueError("there are no items to make batches of")

    @property
    def per_epoch(self) -> int:
        """Batches in one pass over the items."""
        return -(-len(self.items) // self.size)

    def __len__(self) -> int:
        return self.epochs * self.per_epoch

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} is outside 0 ... {len(self) - 1}")
        epoch, place = divmod(index, self.per_epoch)
        return self._batch(self._plan(epoch)[place])

    def __iter__(self) -> Iterator[Batch]:
        for epoch in range(self.epochs):
            yield from map(self._batch, self._plan(epoch))

    def _plan(self, epoch: int) -> list[list[int]]:
        """Return the places in `items` of each batch of an epoch."""
        # A generator of its own: the order must not depend on what ran before.
        shuffled = random.Random(f"{self.seed} {epoch}")
        order = shuffled.sample(range(len(self.items)), len(self.items))
        return [order[i : i + self.size] for i in range(0, len(order), self.size)]

    def _batch(self, chosen: list[int]) -> Batch:
        return self.make([self.items[i] for i in chosen], self.tokenizer)
