"""The recipes by name: what `tfcourse train` knows."""

from tfcourse.recipes.classification import SST2
from tfcourse.recipes.language_model import LANGUAGE_MODEL
from tfcourse.recipes.pictures import CAPTIONS, DIGITS
from tfcourse.recipes.task import Recipe
from tfcourse.recipes.translation import DATES, LIVE_DATES, MULTI30K, SUMMARIES

RECIPES: dict[str, Recipe] = {
    "captions": CAPTIONS,
    "dates": DATES,
    "digits": DIGITS,
    "language-model": LANGUAGE_MODEL,
    "live-dates": LIVE_DATES,
    "multi30k": MULTI30K,
    "sst2": SST2,
    "summaries": SUMMARIES,
}


def recipe(name: str) -> Recipe:
    """Return the recipe of that name; unknown ones raise `ValueError`."""
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name]
