"""What a recipe is: settings to begin with, and a task made of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tfcourse.data.pairs import Batches
from tfcourse.data.tokenizers import AnyTokenizer
from tfcourse.generation import Choose
from tfcourse.model.config import TransformerConfig
from tfcourse.model.transformer import Transformer
from tfcourse.recipes.settings import Settings
from tfcourse.training.history import Best
from tfcourse.training.scores import Score

Answer = Callable[[Transformer, AnyTokenizer, Settings, Sequence[str]], list[str]]
Complete = Callable[[Transformer, AnyTokenizer, str, int, Choose], Iterator[str]]


@dataclass(frozen=True)
class Task:
    """Data to train on, and how good a model is on other data.

    `batches` makes as many as the training has steps, or more. `validate` gives a
    figure on data for that, which decides, as `best` says, what the best weights are;
    `score` gives figures on the test data, which nothing else looks at.
    """

    tokenizer: AnyTokenizer
    batches: Callable[[], Batches]
    validate: Callable[[Any], float]
    best: Best
    score: Callable[[Transformer], list[Score]]


@dataclass(frozen=True)
class Recipe:
    """A task with the settings that it begins with.

    `task` takes the settings and the tokenizer, or None where it is to be learned from
    the data. `answer` gives what a model says to each of several texts, and `complete`
    how it goes on with one; None where it does not.
    """

    about: str
    settings: Settings
    task: Callable[[Settings, AnyTokenizer | None], Task]
    build: Callable[[TransformerConfig, Settings], Transformer] = lambda config, _: (
        Transformer(config)
    )
    answer: Answer | None = None
    complete: Complete | None = None


def for_steps(once: Batches, steps: int) -> Batches:
    """Return as many epochs of the batches as so many steps need."""
    return replace(once, epochs=-(-steps // once.per_epoch))


def defaults(data: Any, training: Any, **model: Any) -> Settings:
    """Return settings whose model is `TransformerConfig` but for what is named."""
    needed = {"vocab_size": 1, **model}
    config = vars(TransformerConfig(**needed)) | model
    return Settings(
        data, training, {k: v for k, v in config.items() if k != "vocab_size"}
    )
