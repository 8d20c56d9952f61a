"""Byte pair encoding: the merges of the definition, and of the tokenizers library."""

import random
import re
from collections import Counter
from itertools import pairwise
from pydoc_data.topics import topics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfcourse.data.bpe import (
    BPE,
    CHUNK,
    FIRST_BYTE,
    FIRST_MERGE,
    chunks,
    learn_merges,
    merge,
)
from tfcourse.data.fast_bpe import FastBPE

RANDOM = random.Random(0)
CORPORA = {
    # Sennrich et al. 2016, section 3.2, with their counts.
    "sennrich": ["low " * 5 + "lower " * 2 + "newest " * 6 + "widest " * 3],
    "runs": ["a" * n + " " + "ab" * n + "aab" * n for n in range(1, 30)],
    "ties": ["".join(RANDOM.choices("abcd", k=12)) for _ in range(150)],
    "german": ["Straße, Flüße; Äpfel für Öfen – „Übung“ 12 123 1234 … " * 3],
    "scripts": [
        "東京都は東京に都がある。 שלום שלום नमस्ते नमस्ते 👩‍🚀👩‍🚀 \x00\x00\n\n\n\n"
    ]
    * 2,
    "special": ["<pad><pad> <start> <stop>", "<pad> Ġthe Ġthe ĠĠ Ċ Ċ"],
    "reference": [text[:3000] for _, text in sorted(topics.items())[:15]],
    "nothing": ["", "a"],
}


def slow_merges(texts: list[str], count: int) -> list[tuple[int, int]]:
    """Learn merges as the definition reads: count everything anew at each step."""
    words = [[4 + byte for byte in chunk] for text in texts for chunk in chunks(text)]
    found: list[tuple[int, int]] = []
    while len(found) < count:
        pairs = Counter(pair for word in words for pair in pairwise(word))
        most = max(pairs.values(), default=0)
        if most < 2:
            break
        best = sorted(pair for pair, number in pairs.items() if number == most)[0]
        words = [merge(word, best, FIRST_MERGE + len(found)) for word in words]
        found.append(best)
    return found


@pytest.mark.parametrize("name", ["sennrich", "runs", "ties", "nothing"])
def test_merges_are_those_of_counting_anew_at_each_step(name: str) -> None:
    assert learn_merges(CORPORA[name], 60) == slow_merges(CORPORA[name], 60)


@given(st.lists(st.text(st.sampled_from("ab. ")), max_size=6))
def test_merges_are_those_of_the_definition_in_any_small_corpus(
    texts: list[str],
) -> None:
    assert learn_merges(texts, 12) == slow_merges(texts, 12)


@pytest.mark.parametrize("name", CORPORA)
def test_the_library_learns_the_same_merges_in_the_same_order(name: str) -> None:
    texts = CORPORA[name]
    own, fast = (kind.from_texts(texts, 700) for kind in (BPE, FastBPE))
    assert own.merges == fast.merges
    assert [own.encode(text) for text in texts] == [fast.encode(t) for t in texts]


def test_what_comes_first_in_sennrich_s_example() -> None:
    # Ties as documented: e-s, es-t (9 times each) before l-o (7 times).
    tokens = BPE.from_texts(CORPORA["sennrich"], 263).tokens
    assert tokens[FIRST_MERGE:] == [b"es", b"est", b"lo"]


def test_of_pairs_that_tie_the_smallest_ids_come_first() -> None:
    assert BPE.from_texts(["ba,dc", "ba,dc"], 262).tokens[FIRST_MERGE:] == [
        b"ba",
        b"dc",
    ]


def test_a_pair_that_occurs_once_is_not_merged() -> None:
    assert BPE.from_texts(["ab", "abc"], 300).tokens[FIRST_MERGE:] == [b"ab"]


REFERENCE = BPE.from_texts(CORPORA["reference"], 400)
FAST = FastBPE(REFERENCE.merges)


@given(st.text())
def test_any_text_comes_back_from_bytes_and_from_both_kinds(text: str) -> None:
    assert BPE().encode(text) == [FIRST_BYTE + byte for byte in text.encode()]
    assert BPE().decode(BPE().encode(text)) == text
    assert REFERENCE.decode(REFERENCE.encode(text)) == text
    assert FAST.encode(text) == REFERENCE.encode(text)
    assert FAST.decode(FAST.encode(text)) == text


@given(st.text(st.sampled_from("the of\n  aé,.(12<>pad'")))
def test_both_kinds_cut_and_merge_alike_what_looks_like_the_corpus(text: str) -> None:
    assert FAST.encode(text) == REFERENCE.encode(text)
    assert FAST.decode(FAST.encode(text)) == text


@given(st.lists(st.integers(0, REFERENCE.vocab_size - 1)))
def test_any_ids_can_be_decoded(ids: list[int]) -> None:
    kept = [i for i in (ids[: ids.index(2)] if 2 in ids else ids) if i > 2]
    raw = b"".join(b"\xef\xbf\xbd" if i == 3 else REFERENCE.tokens[i] for i in kept)
    assert REFERENCE.decode(ids) == FAST.decode(ids) == raw.decode(errors="replace")


@pytest.mark.parametrize(
    "tokenizer", [BPE(), REFERENCE, FAST], ids=["b", "own", "fast"]
)
def test_a_lone_surrogate_is_no_text(tokenizer: BPE) -> None:
    with pytest.raises(ValueError, match=r"'\\ud800' in position 1: surrogates not"):
        tokenizer.encode("a\ud800b")
    assert tokenizer.decode([4 + 0xFF, 4 + 0x41]) == "\ufffdA"


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("The 3 cats,", ["The", " 3", " cats", ","]),
        ("a  b\n\n c \n", ["a", " ", " b", "\n\n", " c", " \n"]),
        ("x=1_000", ["x", "=", "1", "_", "000"]),
        ("don't", ["don", "'", "t"]),
        ("Straße für", ["Straße", " für"]),
        ("\n", ["\n"]),
        ("", []),
    ],
)
def test_letters_digits_and_signs_stay_apart(text: str, pieces: list[str]) -> None:
    assert chunks(text) == [piece.encode() for piece in pieces]


@given(st.text())
def test_the_chunks_of_any_text_join_to_the_text(text: str) -> None:
    assert "".join(re.findall(CHUNK, text)) == text


def test_tokens_get_fewer_as_the_vocabulary_grows() -> None:
    text = CORPORA["reference"][0]
    sizes = (260, 300, 400, 600)
    lengths = [
        len(FastBPE.from_texts(CORPORA["reference"], size).encode(text))
        for size in sizes
    ]
    assert lengths[0] == len(text.encode())
    assert sorted(set(lengths), reverse=True) == lengths


@pytest.mark.parametrize("kind", [BPE, FastBPE])
def test_a_vocabulary_without_room_for_all_bytes_is_refused(kind: type[BPE]) -> None:
    assert kind.from_texts(["abab"], 260).merges == ()
    with pytest.raises(ValueError, match=r"vocab_size must be .* 260, .* not 259"):
        kind.from_texts(["abab"], 259)


@pytest.mark.parametrize("kind", [BPE, FastBPE])
@pytest.mark.parametrize(
    ("merges", "message"),
    [
        (((4, 260),), r"merge 0 must be of two ids in 4 \.\.\. 259, not \(4, 260\)"),
        (((4, 5), (260, 3)), r"merge 1 must be of two ids in 4 \.\.\. 260"),
        (((4, 5, 6),), "merge 0 must be of two ids"),
        (((4, 5), (4, 5)), r"two merges make the same token: b'\\x00\\x01'"),
        (((4, 5), (5, 6), (260, 6), (4, 261)), "two merges make the same token"),
    ],
)
def test_merges_that_cannot_be_are_refused(
    kind: type[BPE], merges: tuple[tuple[int, int], ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(merges)
