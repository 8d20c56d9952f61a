"""Byte pair encoding, trained and applied in lines that can be read.

Start from bytes, and let the two neighbours that occur together most often become one
token, again and again (Sennrich et al. 2016, algorithm 1; on bytes: Radford et al.
2019, section 2.2). `FastBPE` in `fast_bpe.py` gives the same tokens sooner.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from tfcourse.data.tokenizers import PAD, REPLACEMENT, SPECIAL, START, STOP, UNKNOWN
from tfcourse.data.tokenizers import before_stop as ids_before_stop

Pair = tuple[int, int]

FIRST_BYTE = len(SPECIAL)  # byte b has the id 4 + b
FIRST_MERGE = FIRST_BYTE + 256  # the k-th merge makes the id 260 + k
MIN_COUNT = 2  # what occurs once is no pattern; so has Sennrich's program

# No merge crosses from letters to digits or signs; a space goes with what follows it
# (after Radford et al. 2019, section 2.2). What is not ASCII counts as a letter, so
# that every regular expression engine cuts alike.
_SPACE, _LETTER, _DIGIT = r"[\x00-\x20\x7f]", r"[^\x00-@\[-`{-\x7f]", r"[0-9]"
_SIGN = r"[!-/:-@\[-`{-~]"
CHUNK = (
    rf" ?{_LETTER}+| ?{_DIGIT}+| ?{_SIGN}+"
    rf"|{_SPACE}+(?!{_LETTER}|{_DIGIT}|{_SIGN})|{_SPACE}"
)


def chunks(text: str) -> list[bytes]:
    """Cut text into the runs within which bytes may merge; joined, they are the text.

    Lone surrogates, which no UTF-8 can hold, raise `UnicodeEncodeError`, which is a
    `ValueError`.
    """
    return [chunk.encode() for chunk in re.findall(CHUNK, text)]


def merge(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    """Replace the pair by the new id, from left to right: 1 1 1 becomes `new` 1."""
    merged: list[int] = []
    place = 0
    while place < len(ids):
        if tuple(ids[place : place + 2]) == pair:
            merged.append(new)
            place += 2
        else:
            merged.append(ids[place])
            place += 1
    return merged


def learn_merges(texts: Iterable[str], count: int) -> list[Pair]:
    """Return the `count` most useful merges, in order; fewer if no pair occurs twice.

    Of pairs that occur equally often, that of the smallest ids comes first: the rule of
    the tokenizers library. In 1 1 1 the pair 1 1 occurs twice.
    """
    counts = Counter(chunk for text in texts for chunk in chunks(text))
    words = [([FIRST_BYTE + byte for byte in chunk], n) for chunk, n in counts.items()]
    frequency: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # words that had the pair
    for index, (ids, n) in enumerate(words):
        for pair in pairwise(ids):
            frequency[pair] += n
            where[pair].add(index)
    merges: list[Pair] = []
    while len(merges) < count and frequency:
        best = min(frequency, key=lambda pair: (-frequency[pair], pair))
        if frequency[best] < MIN_COUNT:
            break
        for index in where.pop(best):
            ids, n = words[index]
            frequency.subtract({p: n * c for p, c in Counter(pairwise(ids)).items()})
            ids = merge(ids, best, FIRST_MERGE + len(merges))
            words[index] = (ids, n)
            for pair in pairwise(ids):
                frequency[pair] += n
                where[pair].add(index)
        del frequency[best]
        merges.append(best)
    return merges


@dataclass(frozen=True)
class BPE:
    """Tokens made of bytes by `merges`, pairs of ids; without any they are the bytes.

    Ids 0 to 3 are special, 4 to 259 bytes, 260 and on the merges. Any text comes back
    from its ids; bytes that are no UTF-8, as a model may write, are decoded to U+FFFD.
    A merge of ids that are not there before it, or that makes a token anew, raises
    `ValueError`.
    """

    merges: tuple[Pair, ...] = ()

    pad = PAD
    start = START
    stop = STOP
    unknown = UNKNOWN  # never needed

    @classmethod
    def from_texts(cls, texts: Iterable[str], vocab_size: int) -> "BPE":
        """Learn merges until there are `vocab_size` ids, or no pair occurs twice."""
        return cls(tuple(cls._learn(texts, merge_count(vocab_size))))

    _learn = staticmethod(learn_merges)

    def __post_init__(self) -> None:
        for index, pair in enumerate(self.merges):
            end = FIRST_MERGE + index
            if len(pair) != 2 or not all(FIRST_BYTE <= part < end for part in pair):
                raise ValueError(
                    f"merge {index} must be of two ids in {FIRST_BYTE} ... {end - 1}, "
                    f"not {pair}"
                )
        made = Counter(self.tokens[FIRST_BYTE:])
        if twice := [token for token, number in made.items() if number > 1]:
            raise ValueError(f"two merges make the same token: {twice[0]!r}")

    @property
    def vocab_size(self) -> int:
        """Number of ids, the four special ones among them."""
        return FIRST_MERGE + len(self.merges)

    @cached_property
    def tokens(self) -> list[bytes]:
        """The bytes of each id; none for special ones, those of U+FFFD for unknown."""
        tokens = [
            b"",
            b"",
            b"",
            REPLACEMENT.encode(),
            *(bytes([b]) for b in range(256)),
        ]
        for first, second in self.merges:
            tokens.append(tokens[first] + tokens[second])
        return tokens

    @cached_property
    def _rank(self) -> dict[Pair, int]:
        return {pair: rank for rank, pair in enumerate(self.merges)}

    def encode(self, text: str) -> list[int]:
        """Return the ids of the tokens, without start and stop."""
        return [index for chunk in chunks(text) for index in self._encode(chunk)]

    def _encode(self, chunk: bytes) -> list[int]:
        ids = [FIRST_BYTE + byte for byte in chunk]
        while known := [pair for pair in pairwise(ids) if pair in self._rank]:
            first = min(known, key=self._rank.__getitem__)  # the earliest learned
            ids = merge(ids, first, FIRST_MERGE + self._rank[first])
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text up to the first stop; start and padding leave no trace."""
        written = ids_before_stop(ids, self.vocab_size)
        return b"".join(self.tokens[i] for i in written).decode(errors="replace")


def merge_count(vocab_size: int) -> int:
    """Return how many merges make a vocabulary of that size."""
    if vocab_size < FIRST_MERGE:
        raise ValueError(
            f"vocab_size must be at least {FIRST_MERGE}, for the bytes and the special "
            f"ids, not {vocab_size}"
        )
    return vocab_size - FIRST_MERGE
