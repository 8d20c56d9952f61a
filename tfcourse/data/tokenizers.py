"""Text to numbers and back: by words and digits, or by characters."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby
from typing import Protocol, runtime_checkable

SPECIAL = ("<pad>", "<start>", "<stop>", "<unknown>")
PAD, START, STOP, UNKNOWN = range(len(SPECIAL))
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"


@runtime_checkable
class AnyTokenizer(Protocol):
    """What every tokenizer can do; ids 0 to 3 are padding, start, stop and unknown.

    `encode` adds neither start nor stop. `decode` writes what stands before the first
    stop; start and padding leave no trace, unknown becomes U+FFFD, and an id outside
    the vocabulary raises `ValueError`.
    """

    @property
    def pad(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def stop(self) -> int: ...
    @property
    def unknown(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Iterable[int]) -> str: ...


def before_stop(ids: Iterable[int], vocab_size: int) -> Iterator[int]:
    """Yield the ids that stand for text, `unknown` among them, up to the first stop."""
    for index in map(int, ids):
        if not 0 <= index < vocab_size:
            raise ValueError(f"id {index} is outside 0 ... {vocab_size - 1}")
        if index == STOP:
            return
        if index >= UNKNOWN:
            yield index


def split(text: str) -> list[str]:
    """Cut text into words, single digits and separators; joined, they are the text.

    A word is a run of letters with their marks, a separator a run of anything else, so
    `3. März` is `3`, `. `, `März`: spaces cost no token of their own.
    """
    pieces: list[str] = []
    for kind, run in groupby(text, _kind):
        piece = "".join(run)
        pieces += list(piece) if kind == "digit" else [piece]
    return pieces


@lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    if character.isdigit():
        return "digit"
    # Vowel signs of Indic scripts are marks (M); joiners stand within Persian words.
    if unicodedata.category(character)[0] in "LM" or character in JOINERS:
        return "word"
    return "separator"


UNITS: dict[str, Callable[[str], Iterable[str]]] = {"word": split, "character": list}


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary of pieces of text; a piece's place in `symbols` is its id.

    Text is cut by `unit`: "word" as `split` does, or "character". The first four
    symbols are no text: padding, start, stop and unknown. Anything else at their
    places, a symbol that is there twice, and another unit raise `ValueError`.
    """

    symbols: tuple[str, ...]
    unit: str = "word"

    pad = PAD
    start = START
    stop = STOP
    unknown = UNKNOWN

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unit must be {' or '.join(UNITS)}, not {self.unit!r}")
        if self.symbols[: len(SPECIAL)] != SPECIAL:
            raise ValueError(
                f"the first symbols must be {SPECIAL}, not {self.symbols[:4]}"
            )
        if len(self._ids) != len(self.symbols):
            twice = {s for s in self.symbols if self.symbols.count(s) > 1}
            raise ValueError(f"each symbol may stand once, not twice: {sorted(twice)}")

    @classmethod
    def from_texts(cls, texts: Iterable[str], unit: str = "word") -> "Tokenizer":
        """Make the vocabulary of all pieces in the texts, in sorted order."""
        empty = cls(SPECIAL, unit)
        pieces = {piece for text in texts for piece in empty.split(text)}
        return cls(SPECIAL + tuple(sorted(pieces)), unit)

    @property
    def vocab_size(self) -> int:
        """Number of ids, the four special ones among them."""
        return len(self.symbols)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {symbol: index for index, symbol in enumerate(self.symbols)}

    def split(self, text: str) -> Iterable[str]:
        """Cut text into the pieces that have ids; joined, they are the text."""
        return UNITS[self.unit](text)

    def encode(self, text: str) -> list[int]:
        """Return the ids of the pieces, without start and stop; new ones: `unknown`."""
        return [self._ids.get(piece, self.unknown) for piece in self.split(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text up to the first stop; start and padding leave no trace.

        Unknown pieces become U+FFFD; an id outside the vocabulary raises `ValueError`.
        """
        written = before_stop(ids, self.vocab_size)
        return "".join(
            REPLACEMENT if index == self.unknown else self.symbols[index]
            for index in written
        )
