"""Byte pair encoding by the tokenizers library: the tokens of `bpe.py`, sooner."""

import json
from collections.abc import Iterable
from functools import cached_property

import tokenizers
from tokenizers import Regex, models, pre_tokenizers, trainers

from tfcourse.data.bpe import BPE, CHUNK, FIRST_BYTE, FIRST_MERGE, MIN_COUNT, Pair

# The library writes each byte as a letter, as GPT-2's vocabulary does: those that print
# as themselves, the others as what comes after Latin-1.
_PRINTED = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
_HIDDEN = [byte for byte in range(256) if byte not in _PRINTED]
LETTERS = [
    chr(byte if byte in _PRINTED else 256 + _HIDDEN.index(byte)) for byte in range(256)
]


def learn_merges(texts: Iterable[str], count: int) -> list[Pair]:
    """Return the merges that `bpe.learn_merges` finds, in the same order."""
    trainer = trainers.BpeTrainer(
        vocab_size=256 + count,
        min_frequency=MIN_COUNT,
        # Named first, the bytes get the ids 0 to 255, by which the library breaks ties.
        special_tokens=list(LETTERS),
        show_progress=False,
    )
    library = _library(models.BPE())
    library.train_from_iterator(texts, trainer)
    model = json.loads(library.to_str())["model"]
    ids = model["vocab"]
    return [(FIRST_BYTE + ids[a], FIRST_BYTE + ids[b]) for a, b in model["merges"]]


class FastBPE(BPE):
    """What `BPE` is, with the same ids for the same text, for more than a chapter."""

    _learn = staticmethod(learn_merges)

    def encode(self, text: str) -> list[int]:
        """Return the ids of the tokens, without start and stop."""
        text.encode()  # what is no text gets the same error as from BPE
        return [FIRST_BYTE + index for index in self._fast.encode(text).ids]

    @cached_property
    def _fast(self) -> tokenizers.Tokenizer:
        letters = [
            "".join(LETTERS[byte] for byte in token)
            for token in self.tokens[FIRST_BYTE:]
        ]
        vocabulary = {letter: index for index, letter in enumerate(letters)}
        merges = [
            (letters[a - FIRST_BYTE], letters[b - FIRST_BYTE]) for a, b in self.merges
        ]
        assert len(vocabulary) == self.vocab_size - FIRST_MERGE + 256
        return _library(models.BPE(vocab=vocabulary, merges=merges))


def _library(model: models.BPE) -> tokenizers.Tokenizer:
    library = tokenizers.Tokenizer(model)
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CHUNK), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return library
