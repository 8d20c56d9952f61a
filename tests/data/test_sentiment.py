"""Made opinions: no word tells the label, the structure does."""

from collections import Counter

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB

from tfcourse.data.pairs import label_batch
from tfcourse.data.sentiment import BAD, GOOD, _all_twins, opinions

OPINIONS = opinions(count=3000, test=1000)


def sense(sentence: str) -> str:
    """Read a sentence from left to right, clause by clause, to its main point."""
    good = None
    negated = conceded = False
    for word in sentence.split():
        if word in ("not", "nothing"):
            negated = True
        elif word == "although":
            conceded = True
        elif word in GOOD or word in BAD:
            found = (word in GOOD) != negated
            good, conceded, negated = (None if conceded else found), False, False
        elif word == "and":
            assert good is not None
            before, good = good, None
            rest = sentence.split(" and ", 1)[1]
            assert (sense(rest) == "positive") == before, "the clauses do not agree"
    return "positive" if good else "negative"


@pytest.mark.parametrize(
    ("sentence", "label"),
    [
        ("the plot was not dull and the cast was superb", "positive"),
        ("the plot was dull and the cast was not superb", "negative"),
        ("although the plot was superb , the cast was dull", "negative"),
        ("the plot was superb but the cast was not lovely", "negative"),
        ("the cast was not lovely but the plot was superb", "positive"),
        ("nothing about the plot was weak and everything about the cast was fresh",
         "positive"),
    ],
)  # fmt: skip
def test_labels_are_what_a_reader_says(sentence: str, label: str) -> None:
    assert dict(pair for twins in _all_twins() for pair in twins)[sentence] == label
    assert sense(sentence) == label


def test_every_label_follows_from_the_structure() -> None:
    for twins in _all_twins():
        for sentence, label in twins:
            assert sense(sentence) == label, sentence


def test_twins_have_the_same_words_and_opposite_labels() -> None:
    twins = _all_twins()
    for (first, sense_of_first), (second, sense_of_second) in twins:
        assert Counter(first.split()) == Counter(second.split())
        assert {sense_of_first, sense_of_second} == {"positive", "negative"}
    sentences = [sentence for pair in twins for sentence, _ in pair]
    assert len(set(sentences)) == len(sentences) > 20_000


@pytest.mark.parametrize("part", [OPINIONS.train, OPINIONS.test], ids=["train", "test"])
def test_every_word_is_as_frequent_in_both_classes(part: list[tuple[str, str]]) -> None:
    words = {
        label: Counter(w for text, own in part if own == label for w in text.split())
        for label in ("positive", "negative")
    }
    assert words["positive"] == words["negative"]
    assert sum(label == "positive" for _, label in part) == len(part) / 2
    kinds = ("although", "but", "not", "nothing", "far")
    assert all(words["positive"][kind] > len(part) / 50 for kind in kinds)


@pytest.mark.parametrize("model", [MultinomialNB(), LogisticRegression()])
def test_a_bag_of_words_is_at_chance(model: object) -> None:
    words = CountVectorizer(token_pattern=r"\S+")
    train, test = (zip(*part, strict=True) for part in (OPINIONS.train, OPINIONS.test))
    (train_texts, train_labels), (test_texts, test_labels) = train, test
    model.fit(words.fit_transform(train_texts), train_labels)
    assert model.score(words.transform(test_texts), test_labels) == pytest.approx(
        0.5, abs=0.01
    )


def test_no_test_sentence_nor_its_twin_is_in_train() -> None:
    train = {text for text, _ in OPINIONS.train}
    test = {text for text, _ in OPINIONS.test}
    assert (len(train), len(test)) == (3000, 1000)
    twin = {one: two for (one, _), (two, _) in _all_twins()}
    twin |= {two: one for one, two in twin.items()}
    assert not train & (test | {twin[text] for text in test})


def test_sentences_are_mixed_and_depend_on_the_seed_alone() -> None:
    again, other = (opinions(count=3000, test=1000, seed=seed) for seed in (0, 1))
    assert again == OPINIONS
    assert other.train != OPINIONS.train
    first = [label for _, label in OPINIONS.train[:200]]
    assert first[::2] != first[1::2]
    assert 60 < first.count("positive") < 140
    sizes = Counter(
        next(
            kind
            for kind in ("although", "but", "nothing", "far", "not")
            if kind in text
        )
        for text, _ in OPINIONS.train
    )
    assert min(sizes.values()) > 200


def test_all_sentences_can_be_drawn_and_no_more() -> None:
    total = 2 * len(_all_twins())
    assert len({text for text, _ in opinions(count=total, test=0).train}) == total
    with pytest.raises(ValueError, match=f"test=2: both must be .* are {total} sent"):
        opinions(count=total, test=2)


@pytest.mark.parametrize(("count", "test"), [(0, 2), (3, 2), (2, 3), (2, -2)])
def test_counts_that_cannot_be_are_named(count: int, test: int) -> None:
    with pytest.raises(
        ValueError, match=f"count={count} and test={test}: both must be"
    ):
        opinions(count=count, test=test)


def test_no_word_is_unknown_and_a_label_is_one_token() -> None:
    tokenizer = OPINIONS.tokenizer
    for twins in _all_twins()[::7]:
        for text, _ in twins:
            assert tokenizer.decode(tokenizer.encode(text)) == text
    batch = label_batch(OPINIONS.test[:8], tokenizer)
    assert len(batch.target[:, 0].unique()) == 2
