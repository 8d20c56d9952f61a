"""What a run leaves on disk while it goes on: checkpoints, best weights, log."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfcourse.data.pairs import Batch
from tfcourse.training.checkpoint import (
    CheckpointError,
    Checkpoints,
    checkpoint_folders,
    newest_checkpoint,
    tidy,
    write_checkpoint,
    write_weights,
)
from tfcourse.training.history import Best, Log
from tfcourse.training.state import TrainingState, fingerprint
from tfcourse.training.step import DivergenceError


class Keeper:
    """Begins a run, or goes on with it, and writes down what it does."""

    def __init__(
        self,
        state: TrainingState,
        checkpoints: Checkpoints | None,
        best: Best,
        log: Log | None,
    ) -> None:
        self.state, self.checkpoints, self.best = state, checkpoints, best
        self.is_main = state.accelerator.is_main_process
        self.log = log if self.is_main else None
        self.newest: Path | None = None
        self._batch: int | None = None

    @property
    def steps_done(self) -> int:
        """Steps that the run has made, those before it was resumed included."""
        return len(self.state.history.steps)

    @property
    def is_over(self) -> bool:
        """Whether the evaluations say that the run should end."""
        return self.best.is_over(self.state.history)

    def start(self, steps: int) -> None:
        """Go on from the newest checkpoint, if that is asked for and there is one.

        One of more steps than the run is to have raises `ValueError`, as do
        checkpoints where none is to be resumed.
        """
        if self.checkpoints is not None:
            folder = Path(self.checkpoints.folder)
            if self.checkpoints.resume:
                self._resume(folder, steps)
            elif found := checkpoint_folders(folder):
                raise ValueError(
                    f"{folder} has {found[-1].name}: resume=True goes on from it, "
                    "another folder begins anew"
                )
        self.state.accelerator.wait_for_everyone()  # all have read before one tidies
        if self.checkpoints is not None and self.is_main:
            folder, keep = Path(self.checkpoints.folder), self.checkpoints.keep
            tidy(folder, self.steps_done, keep=keep)
        if self.log is not None:
            self.log.start(self.state.history)

    def _resume(self, folder: Path, steps: int) -> None:
        saved = newest_checkpoint(folder, self.state.check)
        if saved is None:
            return
        if len(saved.facts["history"]["steps"]) > steps:
            raise ValueError(f"{saved.path} is beyond the {steps} steps of the run")
        self.state.restore(saved)
        self.newest, self._batch = saved.path, saved.facts["batch"]

    def check_batch(self, batch: Batch) -> None:
        """Raise `CheckpointError` if this is not the last batch that was trained on."""
        if fingerprint(batch) != self._batch:
            raise CheckpointError(
                f"{self.newest} was trained on other data: its batch {self.steps_done} "
                "is not the run's"
            )

    def keep(self, batch: Batch, *, is_last: bool) -> None:
        """Write what is due after a step, `batch` being the step's."""
        if self.log is not None:
            self.log.add(self.state.history)
        if self.checkpoints is None:
            return
        self._keep_best(Path(self.checkpoints.folder))
        step = self.steps_done
        if is_last or self.is_over or step % self.checkpoints.every == 0:
            tensors, facts = self.state.tensors(), self.state.facts(batch)
            folder, keep = Path(self.checkpoints.folder), self.checkpoints.keep
            if self.is_main:
                self.newest = write_checkpoint(folder, step, tensors, facts, keep=keep)
            self.state.accelerator.wait_for_everyone()

    def _keep_best(self, folder: Path) -> None:
        history = self.state.history
        looked = history.evaluations and history.evaluations[-1][0] == self.steps_done
        if looked and self.best.step(history) == self.steps_done:
            weights = self.state.tensors()["model"]
            step, value = history.evaluations[-1]
            if self.is_main:
                path = folder / "best.safetensors"
                write_weights(path, weights, f"step {step}, evaluation {value!r}")

    @contextmanager
    def naming_checkpoint(self) -> Iterator[None]:
        """Add to a `DivergenceError` where the last good weights are."""
        try:
            yield
        except DivergenceError as error:
            if self.newest is None:
                raise
            raise DivergenceError(
                f"{error}; the last good checkpoint is {self.newest}"
            ) from error
