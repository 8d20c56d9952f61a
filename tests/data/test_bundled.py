"""Python's own English: split without a test item in train, the same for a seed."""

import sys
from pydoc_data.topics import topics

import pytest

from tfcourse.data import bundled
from tfcourse.data.bundled import docstring_pairs, normalised, reference_text
from tfcourse.data.pairs import Pairs

IMPORTED: set[str] = set()  # while docstrings were read


@pytest.fixture(scope="module")
def summaries() -> Pairs:
    before = set(sys.modules)
    pairs = docstring_pairs()
    IMPORTED.update(set(sys.modules) - before)
    return pairs


def paragraphs(texts: list[str]) -> set[str]:
    return {normalised(part) for text in texts for part in text.split("\n\n")} - {""}


def test_the_reference_is_split_by_topics_and_no_paragraph_is_on_both_sides() -> None:
    texts = reference_text(test=20, seed=1)
    assert len(texts.test) == 20
    assert set(texts.test) <= set(topics.values())
    assert not paragraphs(texts.train) & paragraphs(texts.test)
    # Nothing else is left out, and topics do quote each other.
    everything = paragraphs(list(topics.values()))
    assert paragraphs(texts.train) | paragraphs(texts.test) == everything
    whole = [text for text in topics.values() if text not in texts.test]
    assert paragraphs(whole) & paragraphs(texts.test)


def test_the_reference_is_hundreds_of_thousands_of_characters_of_english() -> None:
    texts = reference_text()
    joined = " ".join(texts.train)
    assert len(joined) > 250_000
    assert joined.count(" the ") > 2000
    assert len(texts.test) == 8


def test_the_seed_decides_which_topics_are_held_out() -> None:
    assert reference_text(seed=1) == reference_text(seed=1)
    assert reference_text(seed=1).test != reference_text(seed=2).test


@pytest.mark.parametrize("test", [0, len(topics)])
def test_a_reference_without_one_side_is_refused(test: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and .*, not {test}"):
        reference_text(test=test)


def test_there_are_many_docstrings_none_of_them_twice(summaries: Pairs) -> None:
    pairs = summaries.train + summaries.test
    assert len(summaries.test) == 200
    assert len(pairs) > 1500
    for side in (0, 1):
        assert len({normalised(pair[side]) for pair in pairs}) == len(pairs)
    train = {normalised(text) for pair in summaries.train for text in pair}
    assert not train & {normalised(text) for pair in summaries.test for text in pair}


def test_a_docstring_is_its_body_and_its_summary(summaries: Pairs) -> None:
    from textwrap import shorten

    summary, _, body = shorten.__doc__.strip().partition("\n\n")
    pairs = dict(summaries.train + summaries.test)
    assert pairs[" ".join(body.split())] == summary
    assert all(text and "\n" not in text for pair in pairs.items() for text in pair)


def test_the_tokenizer_has_seen_the_pairs_to_train_on_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = [f'"""Zyx {n} zyx.\n\nWord {n} word."""' for n in range(10)]
    monkeypatch.setattr(bundled, "_sources", lambda: iter(sources))
    pairs = docstring_pairs(test=9, vocab_size=300)
    only = [text for pair in pairs.train for text in pair]
    assert len(only) == 2
    assert pairs.tokenizer == type(pairs.tokenizer).from_texts(only, 300)
    assert docstring_pairs(test=9) == docstring_pairs(test=9)
    assert docstring_pairs(test=9).test != docstring_pairs(test=9, seed=1).test
    for test in (0, 10):
        with pytest.raises(ValueError, match=f"between 1 and 9, not {test}"):
            docstring_pairs(test=test)


def test_what_has_no_body_or_no_summary_is_left_out() -> None:
    source = '''
"""Of  the module.

    Two
    lines.
"""
class A:
    """Only a summary."""
    async def f(self):
        """Summary.

        Body.
        """
        def g():
            """A summary
            of two lines.

            Body."""
    x = "Not a docstring.\\n\\nAt all."
'''
    assert list(bundled._described([source])) == [
        ("Two lines.", "Of the module."),
        ("Body.", "Summary."),
    ]


def test_what_shares_a_body_or_a_summary_is_left_out() -> None:
    pairs = [("a b", "S"), ("A  B", "T"), ("c", "s"), ("d", "U"), ("u", "V")]
    assert bundled._unlike(pairs) == [("a b", "S"), ("d", "U")]


def test_no_module_is_imported_to_be_read(summaries: Pairs) -> None:
    assert set(bundled.MODULES) - set(sys.modules), "all were imported before"
    assert not IMPORTED & set(bundled.MODULES)
