"""Calendar dates in many languages: what the model learns that runs in the book."""

import random
from collections.abc import Sequence
from datetime import date, timedelta

from babel import Locale
from babel.dates import tokenize_pattern

from tfcourse.data.dates import FIRST, NUM_DATES, write_dates
from tfcourse.data.pairs import Pairs
from tfcourse.data.tokenizers import Tokenizer, split

# Four scripts run to the left or stand without spaces; all use the Gregorian calendar
# and the digits 0 to 9 here, whatever is usual where they are written.
LANGUAGES = (
    *("ar", "de", "el", "en", "es", "fa", "fr", "he"),
    *("hi", "it", "ja", "ko", "pl", "ru", "tr", "zh"),
)
# With the day of the week, and without: nobody can tell it from the rest by rote.
DATE_STYLES = ("full", "long")


def language_pairs(
    languages: Sequence[str] = LANGUAGES, *, count: int, test: int, seed: int = 0
) -> Pairs:
    """Draw `count` pairs to train on, and `test` others, each of another unseen day.

    A pair is `français: Dienstag, 3. März 2026` and `mardi 3 mars 2026`: two languages
    (the same one now and then), a style and a day, all drawn evenly. Languages without
    a name of one word, and more days than there are, raise `ValueError`.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    seen, unseen = split_days(test, seed)
    drawn = random.Random(f"{seed} pairs")

    def pair(day: date) -> tuple[str, str]:
        style = drawn.choice(DATE_STYLES)
        return date_pair(day, drawn.choice(languages), drawn.choice(languages), style)

    return Pairs(
        [pair(drawn.choice(seen)) for _ in range(count)],
        [pair(day) for day in unseen],
        language_tokenizer(languages),
    )


def split_days(test: int, seed: int = 0) -> tuple[list[date], list[date]]:
    """Return the days to train on and `test` others, of those from 1950 to 2049."""
    if not 0 <= test < NUM_DATES:
        raise ValueError(f"test={test}: there are {NUM_DATES} dates, one to train on")
    order = random.Random(seed).sample(range(NUM_DATES), NUM_DATES)
    days = [FIRST + timedelta(days=day) for day in order]
    return days[test:], days[:test]


def date_pair(day: date, source: str, target: str, style: str) -> tuple[str, str]:
    """Return a request and its answer: the same day in two languages."""
    text, answer = (write_dates([day], name, style)[0] for name in (source, target))
    return request(text, target), answer


def request(text: str, target: str) -> str:
    """Return what the model reads: the target's own name before the text."""
    return f"{own_name(target)}: {text}"


def own_name(language: str) -> str:
    """Return what a language calls itself: one word, so that it is one token."""
    write_dates([], language)  # refuses a locale that there is not
    name = str(Locale.parse(language).get_display_name())
    if len(split(name)) != 1:
        raise ValueError(f"{language!r} calls itself {name!r}: one word is needed")
    return name


def language_tokenizer(languages: Sequence[str] = LANGUAGES) -> Tokenizer:
    """Make the vocabulary: the same whichever days were drawn."""
    if not languages:
        raise ValueError("no languages are given")
    year = [date(2024, 1, 1) + timedelta(days=day) for day in range(366)]
    texts = [
        text
        for language in languages
        for style in DATE_STYLES
        for text in write_dates(year, language, style)
    ]
    return Tokenizer.from_texts([*texts, *(request("", name) for name in languages)])


def template(language: str, style: str) -> list[str]:
    """Return how a date is put together: {year}, {day} and so on, and what stands
    between them, as CLDR's pattern has it."""
    fields: dict[object, str] = {
        ("y", 1): "{year}",
        ("d", 1): "{day}",
        ("M", 1): "{number}",
        ("M", 4): "{month}",
        ("E", 4): "{weekday}",
    }
    pattern = Locale.parse(language).date_formats[style].pattern
    return [
        fields[value] if kind == "field" else str(value)
        for kind, value in tokenize_pattern(pattern)
    ]


def names(language: str) -> dict[str, list[str]]:
    """Return the months from January and the days of the week from Monday, as they
    are written within a date."""
    locale = Locale.parse(language)
    month, day = locale.months["format"]["wide"], locale.days["format"]["wide"]
    return {
        "months": [month[n] for n in range(1, 13)],
        "weekdays": [day[n] for n in range(7)],
    }
