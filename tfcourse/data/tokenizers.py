"""Text to numbers and back: words, single digits, and what stands between them."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby

SPECIAL = ("<pad>", "<start>", "<stop>", "<unknown>")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"


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


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary of pieces of text; a piece's place in `symbols` is its id.

    The first four are no text: padding, start, stop and unknown. Anything else at their
    places, and a symbol that is there twice, raises `ValueError`.
    """

    symbols: tuple[str, ...]

    pad = 0
    start = 1
    stop = 2
    unknown = 3

    def __post_init__(self) -> None:
        if self.symbols[: len(SPECIAL)] != SPECIAL:
            raise ValueError(
                f"the first symbols must be {SPECIAL}, not {self.symbols[:4]}"
            )
        if len(self._ids) != len(self.symbols):
            twice = {s for s in self.symbols if self.symbols.count(s) > 1}
            raise ValueError(f"each symbol may stand once, not twice: {sorted(twice)}")

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> "Tokenizer":
        """Make the vocabulary of all pieces in the texts, in sorted order."""
        return cls(SPECIAL + tuple(sorted({p for text in texts for p in split(text)})))

    @property
    def vocab_size(self) -> int:
        """Number of ids, the four special ones among them."""
        return len(self.symbols)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {symbol: index for index, symbol in enumerate(self.symbols)}

    def encode(self, text: str) -> list[int]:
        """Return the ids of the pieces, without start and stop; new ones: `unknown`."""
        return [self._ids.get(piece, self.unknown) for piece in split(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text up to the first stop; start and padding leave no trace.

        Unknown pieces become U+FFFD; an id outside the vocabulary raises `ValueError`.
        """
        text = []
        for index in map(int, ids):
            if not 0 <= index < self.vocab_size:
                raise ValueError(f"id {index} is outside 0 ... {self.vocab_size - 1}")
            if index == self.stop:
                break
            if index == self.unknown:
                text.append(REPLACEMENT)
            elif index >= len(SPECIAL):
                text.append(self.symbols[index])
        return "".join(text)
