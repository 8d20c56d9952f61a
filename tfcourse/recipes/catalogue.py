"""The recipes by name: what `tfcourse train` knows."""

from tfcourse.recipes.settings import Training
from tfcourse.recipes.task import Recipe, defaults
from tfcourse.recipes.translation import (
    Dates,
    Multi30k,
    answer,
    dates_task,
    multi30k_task,
)

RECIPES = {
    "dates": Recipe(
        "dates from one language into another, half a minute on two cores",
        defaults(
            Dates(),
            Training(steps=600, lr=2e-3, warmup=30, evaluate_every=100),
            d_model=64,
            num_heads=4,
            d_ff=256,
            max_seq_len=64,
            num_encoder_layers=2,
            num_decoder_layers=2,
        ),
        dates_task,
        answer=answer,
    ),
    # Wu et al. 2021, table 1 and appendix: the Transformer-Tiny.
    "multi30k": Recipe(
        "captions from English into German, hours on two cores",
        defaults(
            Multi30k(),
            Training(
                steps=8000,
                lr=0.005,
                schedule="inverse_sqrt",
                warmup=2000,
                weight_decay=0.0,
                clip=None,
                label_smoothing=0.1,
                chunk=256,
                average=10,
                evaluate_every=500,
                checkpoint_every=50,
                parts=2,
            ),
            d_model=128,
            num_heads=4,
            d_ff=256,
            max_seq_len=128,
            num_encoder_layers=4,
            num_decoder_layers=4,
            norm_order="post",
            dropout=0.3,
        ),
        multi30k_task,
        answer=answer,
    ),
}


def recipe(name: str) -> Recipe:
    """Return the recipe of that name; unknown ones raise `ValueError`."""
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name]
