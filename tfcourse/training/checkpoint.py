"""Checkpoints on disk: written whole or not at all, and read only if they are whole.

A checkpoint is a folder `step-00000042` of safetensors files and a `state.json`, which
has their SHA-256. Nothing is a pickle: to read a checkpoint runs no code of whoever
wrote it.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

FORMAT = "tfcourse checkpoint 1"


class CheckpointError(ValueError):
    """A checkpoint is damaged, or belongs to another run."""


@dataclass(frozen=True)
class Checkpoints:
    """Where a run is saved, every how many steps, and how many of them are kept.

    The last step is saved besides, and the weights of the best evaluation, as
    `best.safetensors`. With `resume` the run goes on from the newest checkpoint, if
    there is one; without, a folder that has some raises `ValueError`. Learning rate,
    decay and the like are those of the call, not of the checkpoint.
    """

    folder: Path | str
    every: int = 100
    keep: int = 2
    resume: bool = False

    def __post_init__(self) -> None:
        for name in ("every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, not {getattr(self, name)}"
                )


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds: tensors by file and name, and facts for JSON."""

    path: Path
    tensors: dict[str, dict[str, Tensor]]
    facts: dict[str, Any]


def write_checkpoint(
    folder: Path,
    step: int,
    tensors: dict[str, dict[str, Tensor]],
    facts: dict[str, Any],
    *,
    keep: int,
) -> Path:
    """Write a checkpoint, remove all but the newest `keep`, and return its folder.

    It is written beside and renamed, so that a process killed at any moment leaves the
    old ones and perhaps the new one, but never a part of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = _folder(folder, step)
    draft = folder / f".{final.name}.part"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    digests = {}
    for name, group in tensors.items():
        path = draft / f"{name}.safetensors"
        save_file({key: t.contiguous() for key, t in group.items()}, path)
        digests[path.name] = _digest(path)
        _sync(path)
    state = {"format": FORMAT, "step": step, "files": digests, "facts": facts}
    (draft / "state.json").write_text(json.dumps(state), "utf-8")
    _sync(draft / "state.json")
    _sync(draft)
    if final.exists():  # one that was refused, or the run would have gone on from it
        _remove(final)
    draft.rename(final)
    _sync(folder)
    tidy(folder, step, keep=keep)
    return final


def tidy(folder: Path, step: int, *, keep: int) -> None:
    """Remove what a kill left unfinished, and all but the newest `keep` checkpoints.

    Those after `step` were refused, and do not count.
    """
    for unfinished in folder.glob(".*.part"):
        shutil.rmtree(unfinished)
    last = _folder(folder, step)
    for old in [path for path in checkpoint_folders(folder) if path <= last][:-keep]:
        _remove(old)


def write_weights(path: Path, weights: dict[str, Tensor], about: str) -> None:
    """Write one safetensors file, whole or not at all, with a remark in its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    whole = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(whole, draft, metadata={"about": about})
    _sync(draft)
    draft.replace(path)
    _sync(path.parent)


def checkpoint_folders(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    return sorted(folder.glob("step-*"))


def read_checkpoint(path: Path) -> Saved:
    """Return what a checkpoint holds; one not whole raises `CheckpointError`."""
    try:
        state = json.loads((path / "state.json").read_text("utf-8"))
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise CheckpointError(f"{path}: state.json is not a {FORMAT}")
        for name, digest in state["files"].items():
            if _digest(path / name) != digest:
                raise CheckpointError(f"{path}: {name} is not the file that was saved")
        tensors = {
            name.removesuffix(".safetensors"): load_file(path / name)
            for name in state["files"]
        }
        return Saved(path, tensors, state["facts"])
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{path} is not whole: {reason}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} has a file without tensors: {error}") from error


def newest_checkpoint(folder: Path, check: Callable[[Saved], None]) -> Saved | None:
    """Return the newest checkpoint that is whole and passes `check`; None if none is.

    `check` raises `CheckpointError` for one of another run. What is refused is warned
    of; if nothing is left but refusals, the last is raised: a run that is to go on must
    not silently begin again.
    """
    refused = None
    for path in reversed(checkpoint_folders(folder)):
        try:
            saved = read_checkpoint(path)
            check(saved)
            return saved
        except CheckpointError as error:
            warnings.warn(f"checkpoint refused: {error}", stacklevel=2)
            refused = error
    if refused is not None:
        raise CheckpointError(
            f"no checkpoint in {folder} can be used; the oldest: {refused}"
        ) from refused
    return None


def _folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    # Renamed first: a process killed while deleting must not leave half a checkpoint.
    doomed = path.rename(path.with_name(f".{path.name}.old.part"))
    shutil.rmtree(doomed)
