"""Checks that a reader runs on an exercise: `check(causal_mask)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfcourse.course import show
from tfcourse.course.exercise import Exercise, Result, judge
from tfcourse.course.exercise_attention import (
    BLOCK_WEIGHTS,
    SCALED_WEIGHTS,
    SPLIT_HEADS,
)
from tfcourse.course.exercise_beyond import (
    CUT_PATCHES,
    FORGETTING,
    IMPORTANCE,
    NEXT_ITEM,
)
from tfcourse.course.exercise_decoder import (
    CACHED_NUMBERS,
    CROSS_ATTENTION,
    DECODER_INPUT,
    LOG_PROBABILITY,
)
from tfcourse.course.exercise_masks import CAUSAL_MASK
from tfcourse.course.exercise_optimization import (
    ACCUMULATED_LOSS,
    ADAMW_STEP,
    CLIP_GRADIENTS,
    LEARNING_RATE,
)
from tfcourse.course.exercise_parallel import (
    CACHE_BYTES,
    JOIN_STEPS,
    JOIN_TILES,
    RECURRENT_COST,
)
from tfcourse.course.exercise_positions import (
    ALIBI_BIAS,
    PADDED_POSITIONS,
    ROTARY,
    SINUSOID_TABLE,
)
from tfcourse.course.exercise_reach import (
    EFFECTIVE_CONTEXT,
    FORGET_BIAS,
    INPUTS_IN_REACH,
    NEEDED_LEAD,
)
from tfcourse.course.exercise_scaling import (
    BYTES_EACH,
    COMPUTE_OPTIMAL,
    POWER_LAW,
    TRAINING_DAYS,
)
from tfcourse.course.exercise_selection import (
    IGNORED_KEYS,
    MEAN_IN_TILES,
    NUMBERS_PER_TOKEN,
    RELEVANT_WEIGHT,
)
from tfcourse.course.exercise_text import BEST_SPAN, MERGE_PAIR, ROUGE_1
from tfcourse.course.exercise_variants import (
    BALANCE,
    INTENSITY,
    RUNNING_ATTENTION,
    TOKENS_IN_REACH,
)

EXERCISES: dict[str, Exercise] = {
    exercise.name: exercise
    for exercise in (
        CAUSAL_MASK,
        SCALED_WEIGHTS,
        SPLIT_HEADS,
        BLOCK_WEIGHTS,
        RECURRENT_COST,
        JOIN_TILES,
        JOIN_STEPS,
        CACHE_BYTES,
        RELEVANT_WEIGHT,
        IGNORED_KEYS,
        MEAN_IN_TILES,
        NUMBERS_PER_TOKEN,
        MERGE_PAIR,
        ROUGE_1,
        BEST_SPAN,
        SINUSOID_TABLE,
        ROTARY,
        ALIBI_BIAS,
        PADDED_POSITIONS,
        DECODER_INPUT,
        CROSS_ATTENTION,
        LOG_PROBABILITY,
        CACHED_NUMBERS,
        INPUTS_IN_REACH,
        NEEDED_LEAD,
        FORGET_BIAS,
        EFFECTIVE_CONTEXT,
        TRAINING_DAYS,
        POWER_LAW,
        COMPUTE_OPTIMAL,
        BYTES_EACH,
        TOKENS_IN_REACH,
        RUNNING_ATTENTION,
        INTENSITY,
        BALANCE,
        CUT_PATCHES,
        NEXT_ITEM,
        IMPORTANCE,
        FORGETTING,
        LEARNING_RATE,
        CLIP_GRADIENTS,
        ADAMW_STEP,
        ACCUMULATED_LOSS,
    )
}


def check(function: Callable[..., Any]) -> None:
    """Check the reader's function and display what was found; never raises.

    The exercise is found by the function's name.
    """
    name = getattr(function, "__name__", str(function))
    result = find(name, function)
    show.check(name, result.state, result.items)


def find(name: str, function: Callable[..., Any]) -> Result:
    """Return what the exercise of that name says of a function."""
    if name in EXERCISES:
        return judge(EXERCISES[name], function)
    known = ", ".join(f"`{known}`" for known in EXERCISES)
    return Result("fail", (f"no exercise has this name; known: {known}",))
