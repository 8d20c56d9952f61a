"""Tokenizers of words and characters give back what they were given, or say so."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tfcourse.data.bpe import BPE
from tfcourse.data.fast_bpe import FastBPE
from tfcourse.data.tokenizers import SPECIAL, AnyTokenizer, Tokenizer, split


@given(st.text())
def test_the_pieces_of_any_text_join_to_the_text(text: str) -> None:
    assert "".join(split(text)) == text


@given(st.text(), st.text())
def test_any_text_of_the_vocabulary_comes_back(text: str, other: str) -> None:
    tokenizer = Tokenizer.from_texts([other, text])
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("3. März 2026", ["3", ". ", "März", " ", "2", "0", "2", "6"]),
        ("Tue, 31st", ["Tue", ", ", "3", "1", "st"]),
        ("3日火曜日", ["3", "日火曜日"]),
        ("मंगलवार, ३", ["मंगलवार", ", ", "३"]),
        ("سه\u200cشنبه ۳", ["سه\u200cشنبه", " ", "۳"]),
        ("03\u200f/11", ["0", "3", "\u200f/", "1", "1"]),
        ("<stop>", ["<", "stop", ">"]),
        ("", []),
    ],
)
def test_words_and_separators_are_whole_and_digits_single(
    text: str, pieces: list[str]
) -> None:
    assert split(text) == pieces


def test_ids_start_with_the_special_ones_and_do_not_depend_on_the_order() -> None:
    tokenizer = Tokenizer.from_texts(["b 1", "a"])
    assert tokenizer == Tokenizer.from_texts(["a", "a", "b 1"])
    assert tokenizer.symbols == (*SPECIAL, " ", "1", "a", "b")
    assert tokenizer.vocab_size == 8
    assert [tokenizer.symbols[i] for i in tokenizer.encode("b a1")] == list("b a1")
    special = (tokenizer.pad, tokenizer.start, tokenizer.stop, tokenizer.unknown)
    assert special == (0, 1, 2, 3)


def test_what_was_never_seen_is_unknown_and_can_be_seen_as_such() -> None:
    tokenizer = Tokenizer.from_texts(["May 1"])
    assert tokenizer.encode("May 2") == [*tokenizer.encode("May "), tokenizer.unknown]
    assert (
        tokenizer.decode(tokenizer.encode("May 2")) == "May \N{REPLACEMENT CHARACTER}"
    )


def test_decoding_ends_at_stop_and_leaves_out_start_and_padding() -> None:
    tokenizer = Tokenizer.from_texts(["May 1"])
    may, space, one = tokenizer.encode("May 1")
    framed = [tokenizer.start, may, tokenizer.pad, space, tokenizer.stop, one]
    assert tokenizer.decode(framed) == "May "
    assert tokenizer.decode(torch.tensor(framed)) == "May "


@pytest.mark.parametrize("wrong", [-1, 7])
def test_an_id_outside_the_vocabulary_is_named(wrong: int) -> None:
    tokenizer = Tokenizer.from_texts(["May 1"])
    with pytest.raises(ValueError, match=rf"id {wrong} is outside 0 \.\.\. 6"):
        tokenizer.decode([4, wrong])


def test_vocabularies_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the first symbols must be .* not .*'a'"):
        Tokenizer(("a", *SPECIAL))
    with pytest.raises(ValueError, match=r"not twice: \['a'\]"):
        Tokenizer((*SPECIAL, "a", "b", "a"))


@given(st.text())
def test_a_text_of_known_characters_comes_back(text: str) -> None:
    tokenizer = Tokenizer.from_texts([text], "character")
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.vocab_size == len(SPECIAL) + len(set(text))
    assert len(tokenizer.encode(text)) == len(text)


def test_an_unknown_unit_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unit must be word or character, not 'line'"):
        Tokenizer.from_texts(["May 1"], "line")


@pytest.mark.parametrize(
    "tokenizer",
    [
        Tokenizer.from_texts(["May 1"]),
        Tokenizer.from_texts(["May 1"], "character"),
        BPE(),
        BPE.from_texts(["May 1, May 2"], 262),
        FastBPE.from_texts(["May 1, May 2"], 262),
    ],
)
def test_all_tokenizers_do_the_same_with_special_ids(tokenizer: AnyTokenizer) -> None:
    assert isinstance(tokenizer, AnyTokenizer)
    special = (tokenizer.pad, tokenizer.start, tokenizer.stop, tokenizer.unknown)
    assert special == (0, 1, 2, 3)
    ids = tokenizer.encode("May 1")
    assert min(ids) > 3
    assert max(ids) < tokenizer.vocab_size
    assert tokenizer.encode("") == []
    assert tokenizer.decode([1, *ids, 0, 3, 0, *ids, 2, *ids]) == "May 1\ufffdMay 1"
    assert tokenizer.decode(torch.tensor(ids)) == "May 1"
    for wrong in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match=f"id {wrong} is outside 0 "):
            tokenizer.decode([*ids, wrong])
