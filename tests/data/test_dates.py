"""Dates of any two locales: written as CLDR says, drawn by a seed, never twice."""

from datetime import date, timedelta

import pytest
from babel import Locale, localedata

from tfcourse.data.dates import (
    FIRST,
    NUM_DATES,
    STYLES,
    date_pairs,
    date_tokenizer,
    write_dates,
)

DAY = date(2026, 3, 3)
# Every 797th day: all months, weekdays and last digits of the hundred years.
SPREAD = [FIRST + timedelta(days=day) for day in range(0, NUM_DATES, 797)]


def different_locales(style: str) -> list[str]:
    """Return one locale of each way to write a date."""
    found = {}
    for name in sorted(localedata.locale_identifiers()):
        locale = Locale.parse(name)
        months = tuple(locale.months["format"]["wide"].values())
        found.setdefault((str(locale.date_formats[style]), months), name)
    return list(found.values())


@pytest.mark.parametrize(
    ("locale", "style", "text"),
    [
        ("de", "full", "Dienstag, 3. März 2026"),
        ("en", "full", "Tuesday, March 3, 2026"),
        ("hu", "full", "2026. március 3., kedd"),
        ("ja", "full", "2026年3月3日火曜日"),
        ("en", "long", "March 3, 2026"),
        ("de", "medium", "03.03.2026"),
        ("en", "short", "3/3/26"),
    ],
)
def test_dates_are_written_as_people_do(locale: str, style: str, text: str) -> None:
    assert write_dates([DAY], locale, style) == [text]


@pytest.mark.parametrize("style", STYLES)
def test_every_date_of_every_locale_comes_back_from_its_tokens(style: str) -> None:
    locales = different_locales(style)
    assert len(locales) > 200
    for locale in locales:
        tokenizer = date_tokenizer(locale, locale, style)
        texts = write_dates(SPREAD, locale, style)
        assert [tokenizer.decode(tokenizer.encode(text)) for text in texts] == texts
        assert len(set(texts)) == len(texts), f"{locale}: two dates look the same"


@pytest.mark.parametrize(
    ("source", "target", "style"),
    [("de", "en", "full"), ("ar", "he", "long"), ("en", "de", "short")],
)
def test_no_test_date_is_in_train(source: str, target: str, style: str) -> None:
    pairs = date_pairs(source, target, count=3000, test=1000, style=style)
    assert (len(pairs.train), len(pairs.test)) == (3000, 1000)
    for side in (0, 1):
        train, test = (
            {pair[side] for pair in part} for part in (pairs.train, pairs.test)
        )
        assert (len(train), len(test)) == (3000, 1000)
        assert not train & test


def test_both_sides_of_a_pair_are_the_same_day() -> None:
    pairs = date_pairs("ja", "en", count=50, style="medium")
    for japanese, english in pairs.train:
        year, month, day = map(int, japanese.split("/"))
        assert write_dates([date(year, month, day)], "en", "medium") == [english]


def test_the_seed_decides_which_dates_are_drawn_and_not_the_vocabulary() -> None:
    first, again, other = (date_pairs(count=20, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.train != other.train
    assert first.tokenizer == other.tokenizer


def test_sequences_are_short() -> None:
    pairs = date_pairs("de", "en", count=500)
    lengths = [
        len(pairs.tokenizer.encode(text)) for pair in pairs.train for text in pair
    ]
    assert max(lengths) <= 12


def test_all_dates_can_be_drawn_and_no_more() -> None:
    pairs = date_pairs(count=NUM_DATES - 10, test=10)
    assert len(set(pairs.train + pairs.test)) == NUM_DATES == 36_525
    with pytest.raises(
        ValueError, match="count=36525 and test=1: there are 36525 dates"
    ):
        date_pairs(count=NUM_DATES, test=1)


@pytest.mark.parametrize(("count", "test"), [(0, 5), (-1, 5), (5, -1)])
def test_counts_that_cannot_be_are_named(count: int, test: int) -> None:
    with pytest.raises(ValueError, match=f"count={count} and test={test}"):
        date_pairs(count=count, test=test)


@pytest.mark.parametrize("locales", [("xx", "en"), ("de", "Deutsch"), ("de-DE", "en")])
def test_an_unknown_locale_is_refused_with_the_known_ones(
    locales: tuple[str, str],
) -> None:
    with pytest.raises(ValueError, match=r"no locale '.*'; allowed .* de, .* en,"):
        date_pairs(*locales, count=5)


def test_an_unknown_style_is_refused_with_the_known_ones() -> None:
    message = "style must be one of full, long, medium, short, not 'tiny'"
    with pytest.raises(ValueError, match=message):
        date_pairs(count=5, style="tiny")
