"""Made opinions whose words say nothing of their sense: only their order does.

Sentences come in twins of the same words and opposite sense, such as "the plot was not
dull and the cast was superb" and "the plot was dull and the cast was not superb". So a
model that ignores order, a bag of words, is right for half of them and no more.
"""

import random
from itertools import permutations, product

from tfcourse.data.pairs import Pairs
from tfcourse.data.tokenizers import Tokenizer

SUBJECTS = ("plot", "cast", "music", "ending", "script", "pace", "humour", "style")
GOOD = ("superb", "lovely", "clever", "moving", "fresh", "sharp", "gripping", "funny")
BAD = ("dull", "clumsy", "stale", "shallow", "tedious", "weak", "noisy", "lifeless")

# {a} and {b} are parts of a film, {x} and {z} words of one sense and {y} one of the
# other. The first sentence has the sense of {y}, and its twin that of {x}.
TWINS = {
    "negation": (
        "the {a} was not {x} and the {b} was {y}",
        "the {a} was {x} and the {b} was not {y}",
    ),
    "distant negation": (
        "the {a} was not , as far as one can tell , {x} and the {b} was {y}",
        "the {a} was , as far as one can tell , {x} and the {b} was not {y}",
    ),
    "scope": (
        "nothing about the {a} was {x} and everything about the {b} was {y}",
        "everything about the {a} was {x} and nothing about the {b} was {y}",
    ),
    "contrast": (
        "the {a} was {x} but the {b} was {y}",
        "the {b} was {y} but the {a} was {x}",
    ),
    "concession": (
        "although the {a} was {x} , the {b} was {y}",
        "although the {b} was {y} , the {a} was {x}",
    ),
    "contrast of negations": (
        "the {a} was {x} but the {b} was not {z}",
        "the {b} was not {z} but the {a} was {x}",
    ),
}


def opinions(*, count: int, test: int = 500, seed: int = 0) -> Pairs:
    """Return `count` sentences to train on and `test` others, "positive" or "negative".

    After "but", and beside "although", what counts is the main point. Twins stay on the
    same side, so every word is as frequent in both classes, there and here. Odd
    numbers, a `count` below 2 and more sentences than there are raise `ValueError`.
    """
    known = _all_twins()
    if count < 2 or test < 0 or count % 2 or test % 2 or count + test > 2 * len(known):
        raise ValueError(
            f"count={count} and test={test}: both must be even, and there are "
            f"{2 * len(known)} sentences"
        )
    shuffled = random.Random(seed)
    chosen = shuffled.sample(known, (count + test) // 2)
    train, held = (
        [sentence for twins in part for sentence in twins]
        for part in (chosen[: count // 2], chosen[count // 2 :])
    )
    shuffled.shuffle(train)
    shuffled.shuffle(held)
    return Pairs(train, held, _tokenizer())


def _all_twins() -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Return every pair of twins, (sentence, label) each, none of them twice."""
    twins = []
    seen: set[str] = set()
    senses = ((GOOD, BAD, "negative", "positive"), (BAD, GOOD, "positive", "negative"))
    for (first, second), (xs, ys, sense, other) in product(TWINS.values(), senses):
        for (a, b), x, (y, z) in product(
            permutations(SUBJECTS, 2), xs, zip(ys, xs, strict=True)
        ):
            words = {"a": a, "b": b, "x": x, "y": y, "z": z}
            one, two = first.format(**words), second.format(**words)
            if one not in seen:  # with {a} and {b} exchanged, a twin may come first
                twins.append(((one, sense), (two, other)))
                seen |= {one, two}
    return twins


def _tokenizer() -> Tokenizer:
    """Make the vocabulary of all sentences and both labels."""
    some = {"a": "plot", "b": "cast", "x": "dull", "y": "superb", "z": "weak"}
    sentences = [text.format(**some) for pair in TWINS.values() for text in pair]
    return Tokenizer.from_texts(
        [*sentences, *SUBJECTS, *GOOD, *BAD, "positive", "negative"]
    )
