"""What can be set about a run: names, types and values, read from a command line."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tfcourse.model.config import TransformerConfig
from tfcourse.training.compute import Precision


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a model is trained: the same keys in all recipes.

    `batch` counts items, `warmup`, the `decay` of warmup_stable_decay and the two
    `..._every` steps. `result` is what the
    run gives: the mean of the weights of the last `average` checkpoints, or those of
    the best evaluation. `patience` ends it after that many evaluations without a new
    best. A mean loss above `max_loss`, by default three times that of a uniform guess,
    is divergence. `chunk` is as `batch_loss` has it. `parts` and `packed` are as
    `Compute` has them; with `precision`, `recompute`, `shard` and `compile` they change
    speed and memory, not what is computed.
    """

    steps: int
    batch: int = 64
    lr: float = 1e-3
    schedule: Literal[
        "constant", "inverse_sqrt", "linear", "cosine", "warmup_stable_decay"
    ] = "cosine"
    warmup: int = 0
    decay: int = 0
    weight_decay: float = 0.01
    beta2: float = 0.98
    clip: float | None = 1.0
    max_loss: float | None = None
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    chunk: int | None = None
    result: Literal["last", "best"] = "last"
    average: int = 1
    patience: int | None = None
    evaluate_every: int = 100
    checkpoint_every: int = 100
    seed: int = 0
    device: str = "auto"
    precision: Precision = "fp32"
    parts: int = 1
    packed: bool = False
    recompute: bool = False
    shard: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, not {self.lr}")


_COUNTS = (
    "steps",
    "batch",
    "average",
    "evaluate_every",
    "checkpoint_every",
    "parts",
    "patience",
    "chunk",
)


@dataclass(frozen=True)
class Settings:
    """All settings of a run: of its data, its training and its model.

    `data` is the dataclass of a recipe's own keys; `model` has the fields of
    `TransformerConfig` but vocab_size, which the tokenizer decides.
    """

    data: Any
    training: Training
    model: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return them all by name, fit for JSON."""
        return {**asdict(self.data), **asdict(self.training), **self.model}

    def changed(self, given: Mapping[str, Any]) -> "Settings":
        """Return settings with other values, each of the type that its name has.

        Unknown names, and values of another type, raise `ValueError`.
        """
        kinds = self.kinds()
        if unknown := sorted(set(given) - set(kinds)):
            raise ValueError(
                f"unknown setting {', '.join(unknown)}; known: {', '.join(kinds)}"
            )
        for name, value in given.items():
            _check(name, value, kinds[name])
        changed = {**self.to_dict(), **given}

        def part(kind: type) -> Any:
            return kind(**{field.name: changed[field.name] for field in fields(kind)})

        model = {name: changed[name] for name in changed if name in _MODEL}
        return Settings(part(type(self.data)), part(Training), model)

    def kinds(self) -> dict[str, Any]:
        """Return the type of each setting, by name."""
        own = get_type_hints(type(self.data))
        return {**own, **get_type_hints(Training), **_MODEL}


_MODEL = {
    name: kind
    for name, kind in get_type_hints(TransformerConfig).items()
    if name != "vocab_size"
}


def read_settings(texts: Iterable[str], settings: Settings) -> dict[str, Any]:
    """Return {name: value} of texts such as `steps=60`; raises `ValueError`."""
    kinds, values = settings.kinds(), {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set takes name=value, not {text!r}")
        # An unknown name is reported by `changed`, with the known ones.
        values[name] = _read(name, value, kinds[name]) if name in kinds else value
    return values


def _read(name: str, text: str, kind: Any) -> Any:
    """Read a value as it is written: of the first type allowed that has the form."""
    for allowed in _allowed(kind):
        try:
            if allowed is str or get_origin(allowed) is Literal:
                return text
            if allowed is type(None) or allowed is bool:
                return _WORDS[allowed][text.lower()]
            return allowed(text)
        except (ValueError, KeyError):
            continue
    raise ValueError(f"{name} must be {_wanted(kind)}, not {text!r}")


_WORDS: dict[type, dict[str, Any]] = {
    bool: {"true": True, "false": False},
    type(None): {"none": None},
}


def _check(name: str, value: Any, kind: Any) -> None:
    for allowed in _allowed(kind):
        if get_origin(allowed) is Literal:
            fits = value in get_args(allowed)
        else:
            # Not isinstance: True is an int to Python, and a slip here.
            fits = type(value) is allowed or (allowed is float and type(value) is int)
        if fits:
            return
    raise ValueError(f"{name} must be {_wanted(kind)}, not {value!r}")


def _allowed(kind: Any) -> tuple[Any, ...]:
    union = get_origin(kind) in (Union, UnionType)
    return get_args(kind) if union else (kind,)


def _wanted(kind: Any) -> str:
    words: list[str] = []
    for allowed in _allowed(kind):
        if get_origin(allowed) is Literal:
            words += get_args(allowed)
        else:
            words.append("none" if allowed is type(None) else allowed.__name__)
    return " or ".join(words)
