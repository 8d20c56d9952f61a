"""Dates between many languages: unseen days stay unseen, and patterns are CLDR's."""

from collections import Counter
from datetime import date, timedelta

import pytest

from tfcourse.data.dates import FIRST, NUM_DATES, write_dates
from tfcourse.data.many_dates import (
    DATE_STYLES,
    LANGUAGES,
    date_pair,
    language_pairs,
    language_tokenizer,
    names,
    own_name,
    request,
    split_days,
    template,
)

SPREAD = [FIRST + timedelta(days=day) for day in range(0, NUM_DATES, 1201)]


def fill(day: date, language: str, style: str) -> str:
    """Write a date by template and names, as the page's script does."""
    words = names(language)
    parts = {
        "{year}": str(day.year),
        "{month}": words["months"][day.month - 1],
        "{number}": str(day.month),
        "{day}": str(day.day),
        "{weekday}": words["weekdays"][day.weekday()],
    }
    return "".join(parts.get(part, part) for part in template(language, style))


@pytest.mark.parametrize("style", DATE_STYLES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_template_with_its_names_writes_what_babel_writes(
    language: str, style: str
) -> None:
    written = [fill(day, language, style) for day in SPREAD]
    assert written == write_dates(SPREAD, language, style)


def test_a_pair_asks_for_a_language_by_its_own_name() -> None:
    source, target = date_pair(date(2026, 3, 3), "de", "fr", "full")
    assert source == "français: Dienstag, 3. März 2026"
    assert target == "mardi 3 mars 2026"


def test_no_test_day_is_trained_on() -> None:
    train, test = split_days(1500, seed=3)
    assert len(test) == len(set(test)) == 1500
    assert len(train) + len(test) == NUM_DATES
    assert not set(train) & set(test)
    drawn = language_pairs(("de", "en"), count=3000, test=1500, seed=3)
    texts = {name: set(write_dates(test, name, "full")) for name in ("de", "en")}
    sources = {source.partition(": ")[2] for source, _ in drawn.train}
    assert not sources & (texts["de"] | texts["en"])


def test_all_pairs_of_languages_and_both_styles_are_drawn() -> None:
    drawn = language_pairs(("de", "en", "ja"), count=900, test=1)
    asked = Counter(source.partition(": ")[0] for source, _ in drawn.train)
    assert set(asked) == {"Deutsch", "English", "日本語"}
    assert min(asked.values()) > 200
    with_day = sum("day" in answer for _, answer in drawn.train if answer.isascii())
    assert 50 < with_day < 250


def test_the_vocabulary_has_every_piece_of_every_pair() -> None:
    tokens = language_tokenizer()
    for language in LANGUAGES:
        for style in DATE_STYLES:
            for text in write_dates(SPREAD, language, style):
                asked = request(text, "he")
                assert tokens.unknown not in tokens.encode(asked)
                assert tokens.decode(tokens.encode(asked)) == asked


def test_the_same_seed_draws_the_same_pairs() -> None:
    first, again, other = (
        language_pairs(("de", "en"), count=50, test=5, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.train != other.train


@pytest.mark.parametrize(
    ("language", "message"),
    [("zh_Hant", "one word is needed"), ("xx", "no locale 'xx'")],
)
def test_languages_that_cannot_be_asked_for_are_refused(
    language: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        own_name(language)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="count must be at least 1, not 0"):
        language_pairs(count=0, test=1)
    with pytest.raises(ValueError, match="test=36525"):
        split_days(NUM_DATES)
    with pytest.raises(ValueError, match="no languages"):
        language_tokenizer(())
