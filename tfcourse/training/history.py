"""What happened in a run: the history, and one line of JSON a step for machines."""

import json
import math
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StepResult:
    """One update: mean loss in nats per token, gradient norm before the cut, tokens."""

    loss: float
    gradient_norm: float
    tokens: int


@dataclass
class History:
    """What happened at each update; `steps` count from 1.

    `losses` are means in nats per token, `gradient_norms` those before the cut,
    `tokens` the targets seen so far, `evaluations` pairs of step and value; `seconds`
    is the time from the start to the last update, evaluations included, and without
    what passed between a run and its resumption.
    """

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    began: float = field(default_factory=time.perf_counter, repr=False)

    def add(self, step: int, learning_rate: float, result: StepResult) -> None:
        """Append one update."""
        self.steps.append(step)
        self.losses.append(result.loss)
        self.learning_rates.append(learning_rate)
        self.gradient_norms.append(result.gradient_norm)
        self.tokens.append(result.tokens + (self.tokens[-1] if self.tokens else 0))
        self.seconds = time.perf_counter() - self.began

    def to_json(self) -> dict[str, Any]:
        """Return everything but the clock, fit for JSON."""
        return {name: value for name, value in asdict(self).items() if name != "began"}

    def load_json(self, saved: dict[str, Any]) -> None:
        """Become the history that `to_json` wrote, and count its seconds on."""
        pairs = [(step, value) for step, value in saved["evaluations"]]
        vars(self).update(saved | {"evaluations": pairs})
        self.began = time.perf_counter() - self.seconds

    def plot(self, ax: Any = None, **line: Any) -> Any:
        """Draw the losses over the steps, and the evaluations against a second axis.

        `ax` is matplotlib's current one by default, and is returned; `line` goes to its
        `plot` for the losses.
        """
        from matplotlib import pyplot

        ax = pyplot.gca() if ax is None else ax
        ax.plot(self.steps, self.losses, **line)
        ax.set(xlabel="step", ylabel="loss in nats per token")
        if self.evaluations:
            right = ax.twinx()
            right.plot(*zip(*self.evaluations, strict=True), "o--", color="black")
            right.set_ylabel("evaluation")
        return ax


@dataclass(frozen=True)
class Best:
    """Which evaluation is the best, and after how many worse ones training stops.

    The highest is the best, or the lowest; with `patience` None nothing stops.
    """

    lowest: bool = False
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise ValueError(
                f"patience must be at least 1 evaluation, or None, not {self.patience}"
            )

    def step(self, history: History) -> int:
        """Return the step of the best evaluation, the first among equals."""
        return history.evaluations[self._place(history)][0]

    def is_over(self, history: History) -> bool:
        """Return whether the last `patience` evaluations were all worse than one."""
        if self.patience is None or not history.evaluations:
            return False
        return len(history.evaluations) - 1 - self._place(history) >= self.patience

    def _place(self, history: History) -> int:
        values = [value for _, value in history.evaluations]
        return values.index(min(values) if self.lowest else max(values))


@dataclass
class Log:
    """A file with one line of JSON every `every` steps.

    A line has step, loss, learning rate, gradient norm, tokens so far, tokens a second
    since the line before, seconds so far, and the evaluation if there was one; a number
    that is not finite is null.
    A run that goes on from a checkpoint first drops the lines after it.
    """

    path: Path | str
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be at least 1 step, not {self.every}")

    def start(self, history: History) -> None:
        """Keep the lines of the steps in the history, and no others."""
        path, kept = Path(self.path), []
        if path.exists() and history.steps:
            # A line without its end was being written when the run was killed.
            lines = path.read_text("utf-8").splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]
            kept = [n for n in whole if json.loads(n)["step"] <= history.steps[-1]]
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.new")
        draft.write_text("".join(kept), "utf-8")
        os.replace(draft, path)
        self._last = (history.tokens[-1] if kept else 0, history.seconds)

    def add(self, history: History) -> None:
        """Write the newest update, if it is one of those asked for."""
        if history.steps[-1] % self.every:
            return
        tokens, seconds = history.tokens[-1], history.seconds
        new, passed = tokens - self._last[0], seconds - self._last[1]
        self._last = (tokens, seconds)
        line = {
            "step": history.steps[-1],
            "loss": history.losses[-1],
            "learning_rate": history.learning_rates[-1],
            "gradient_norm": history.gradient_norms[-1],
            "tokens": tokens,
            "tokens_per_second": new / passed if passed > 0 else math.inf,
            "seconds": seconds,
        }
        if history.evaluations and history.evaluations[-1][0] == line["step"]:
            line["evaluation"] = history.evaluations[-1][1]
        valid = {n: v if math.isfinite(v) else None for n, v in line.items()}
        with Path(self.path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(valid) + "\n")  # closed, and so flushed, at once
