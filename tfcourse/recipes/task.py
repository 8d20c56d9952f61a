"""What a recipe is: settings to begin with, and a task made of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tfcourse.data.bpe import BPE
from tfcourse.data.pairs import Batch
from tfcourse.data.tokenizers import Tokenizer
from tfcourse.model.config import TransformerConfig
from tfcourse.model.transformer import Transformer
from tfcourse.recipes.settings import Settings
from tfcourse.training.history import Best
from tfcourse.training.scores import Score

AnyKind = Tokenizer | BPE  # what can be saved


@dataclass(frozen=True)
class Task:
    """Data to train on, and how good a model is on other data.

    `batches` makes as many as the training has steps, or more. `validate` gives a
    figure on data for that, which decides, as `best` says, what the best weights are;
    `score` gives figures on the test data, which nothing else looks at.
    """

    tokenizer: AnyKind
    batches: Callable[[], Sequence[Batch]]
    validate: Callable[[Transformer], float]
    best: Best
    score: Callable[[Transformer], list[Score]]


@dataclass(frozen=True)
class Recipe:
    """A task with the settings that it begins with.

    `task` takes the settings and the tokenizer, or None where it is to be learned from
    the data. `answer` gives what a model says to texts; None where it takes no texts.
    """

    about: str
    settings: Settings
    task: Callable[[Settings, AnyKind | None], Task]
    build: Callable[[TransformerConfig], Transformer] = Transformer
    answer: (
        Callable[[Transformer, AnyKind, Settings, Sequence[str]], list[str]] | None
    ) = None
    completes: bool = False


def epochs_for(steps: int, per_epoch: int) -> int:
    """Return how often data must be gone through for so many steps."""
    return -(-steps // per_epoch)


def defaults(data: Any, training: Any, **model: Any) -> Settings:
    """Return settings whose model is `TransformerConfig` but for what is named."""
    needed = {"vocab_size": 1, **model}
    config = vars(TransformerConfig(**needed)) | model
    return Settings(data, training, {k: v for k, v in config.items() if k != "vocab_size"})
