"""Calendar dates as people write them, in the languages of Unicode's CLDR."""

import random
from datetime import date, timedelta

from babel import Locale, localedata
from babel.dates import format_date

from tfcourse.data.pairs import Pairs
from tfcourse.data.tokenizers import Tokenizer

STYLES = ("full", "long", "medium", "short")

# A hundred years, so that a year written with two digits names one of them.
FIRST, LAST = date(1950, 1, 1), date(2049, 12, 31)
NUM_DATES = (LAST - FIRST).days + 1


def date_pairs(
    source: str = "de",
    target: str = "en",
    *,
    count: int,
    test: int = 500,
    seed: int = 0,
    style: str = "full",
) -> Pairs:
    """Draw `count` dates to train on and `test` others, written in two locales.

    Styles are CLDR's: full `Dienstag, 3. März 2026`, long `3. März 2026`, medium
    `03.03.2026`, short `03.03.26`. Dates are from 1950 to 2049. Unknown locales and
    styles, and more dates than there are, raise `ValueError`.
    """
    if count < 1 or test < 0 or count + test > NUM_DATES:
        raise ValueError(
            f"count={count} and test={test}: there are {NUM_DATES} dates, and at least "
            "one is needed to train on"
        )
    drawn = random.Random(seed).sample(range(NUM_DATES), count + test)
    dates = [FIRST + timedelta(days=day) for day in drawn]
    texts = zip(
        write_dates(dates, source, style),
        write_dates(dates, target, style),
        strict=True,
    )
    pairs = list(texts)
    return Pairs(pairs[:count], pairs[count:], date_tokenizer(source, target, style))


def write_dates(dates: list[date], locale: str, style: str = "full") -> list[str]:
    """Write dates as a locale does, in the Gregorian calendar and digits 0 to 9."""
    if style not in STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)}, not {style!r}")
    known = localedata.locale_identifiers()
    if locale not in known:
        raise ValueError(
            f"no locale {locale!r}; allowed are the {len(known)} of "
            "babel.localedata.locale_identifiers(), such as "
            f"{', '.join(sorted(name for name in known if len(name) == 2))}"
        )
    parsed = Locale.parse(locale)
    return [format_date(day, style, locale=parsed) for day in dates]


def date_tokenizer(source: str, target: str, style: str = "full") -> Tokenizer:
    """Make the vocabulary of two locales: the same whichever dates were drawn.

    One leap year has all names of months and days, all digits, and every way in which
    they are joined (tested for all locales).
    """
    year = [date(2024, 1, 1) + timedelta(days=day) for day in range(366)]
    return Tokenizer.from_texts(
        text for locale in {source, target} for text in write_dates(year, locale, style)
    )
