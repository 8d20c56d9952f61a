"""A recipe's run: trained into a folder, resumed from it, and read back."""

import json
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tfcourse.data.files import replace_text
from tfcourse.data.saved import load_tokenizer, save_tokenizer
from tfcourse.data.tokenizers import AnyTokenizer
from tfcourse.model.config import TransformerConfig
from tfcourse.model.transformer import Transformer
from tfcourse.recipes.catalogue import recipe
from tfcourse.recipes.settings import Settings, Training
from tfcourse.recipes.task import Recipe, Task
from tfcourse.training.averaging import average_weights
from tfcourse.training.checkpoint import (
    Checkpoints,
    checkpoint_folders,
    write_weights,
)
from tfcourse.training.compute import Compute, make_accelerator, shard
from tfcourse.training.history import History, Log
from tfcourse.training.loop import fit
from tfcourse.training.optimizer import adamw
from tfcourse.training.recompute import recomputed
from tfcourse.training.schedules import (
    constant,
    cosine,
    inverse_sqrt,
    linear,
    warmup_stable_decay,
)
from tfcourse.training.scores import Score
from tfcourse.training.step import batch_loss

FORMAT = "tfcourse run 1"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Run:
    """A trained model as it lies in a folder, with what it was trained by."""

    name: str
    recipe: Recipe
    settings: Settings
    tokenizer: AnyTokenizer
    model: Transformer


def train(
    name: str,
    out: Path,
    changes: Mapping[str, Any],
    *,
    resume: bool = False,
    progress: bool | None = None,
) -> History:
    """Train a recipe into the folder `out`, and return what happened.

    There are then settings.json, tokenizer.json, log.jsonl, checkpoints and, at the
    end, model.safetensors. With `resume` a run that was stopped goes on as if it had
    not been, with the same settings; if there is none yet, it begins. Other settings
    than the run began with, and a folder that has a run, raise `ValueError`.
    """
    recipe_ = recipe(name)
    settings = recipe_.settings.changed(changes)
    accelerator = make_accelerator()
    _check_folder(out, name, settings, resume=resume)
    with accelerator.main_process_first():  # the others find what it downloaded
        task = recipe_.task(settings, _tokenizer_in(out))
    training = settings.training
    # What cannot be is refused before anything is written.
    schedule_of(training)(1)
    device = device_of(training)
    torch.manual_seed(training.seed)
    model = recipe_.build(config_of(settings, task.tokenizer), settings)
    if accelerator.is_main_process:
        _write_start(out, name, settings, task.tokenizer)
    if accelerator.num_processes == 1:
        model.to(device)
    history = _fit(model, task, training, out, resume, progress, accelerator)
    if accelerator.is_main_process:
        _write_result(out, training)
    return history


def load_run(folder: Path, device: str = "auto") -> Run:
    """Return the model of a finished run; without one, raises `ValueError`."""
    saved = _settings_in(folder)
    if saved is None or not (folder / WEIGHTS).is_file():
        what = "an unfinished run: --resume goes on with it" if saved else "no run"
        raise ValueError(f"{folder} has {what}")
    recipe_ = recipe(saved["recipe"])
    settings = recipe_.settings.changed(saved["settings"])
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    model = recipe_.build(config_of(settings, tokenizer), settings)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{folder / WEIGHTS} is not of this run: {error}") from error
    where = settings.changed({"device": device}).training
    model = model.to(device_of(where)).eval()
    return Run(saved["recipe"], recipe_, settings, tokenizer, model)


def evaluate_run(folder: Path, device: str = "auto") -> list[Score]:
    """Return the model's figures on the test data; also into evaluation.json."""
    run = load_run(folder, device)
    scores = run.recipe.task(run.settings, run.tokenizer).score(run.model)
    content = [vars(score) for score in scores]
    replace_text(folder / "evaluation.json", json.dumps(content, indent=1))
    return scores


def is_main_process() -> bool:
    """Say whether this is the one process that reports."""
    return make_accelerator().is_main_process


def config_of(settings: Settings, tokenizer: AnyTokenizer) -> TransformerConfig:
    """Return the model's description: what is set, for the tokenizer's vocabulary."""
    return TransformerConfig(vocab_size=tokenizer.vocab_size, **settings.model)


def device_of(training: Training) -> torch.device:
    """Return the device that is set; "auto" is an accelerator if there is one."""
    if training.device == "auto":
        found = torch.accelerator.current_accelerator()
        return torch.device("cpu") if found is None else found
    try:
        return torch.device(training.device)
    except RuntimeError as error:
        raise ValueError(f"device={training.device!r}: {error}") from error


def schedule_of(training: Training) -> Callable[[int], float]:
    """Return the learning rate's factor by step."""
    shapes: dict[str, Callable[..., float]] = {
        "constant": constant,
        "inverse_sqrt": inverse_sqrt,
        "linear": partial(linear, total=training.steps),
        "cosine": partial(cosine, total=training.steps),
        "warmup_stable_decay": partial(
            warmup_stable_decay, total=training.steps, decay=training.decay
        ),
    }
    return partial(shapes[training.schedule], warmup=training.warmup)


def _optimizer(model: Transformer, training: Training) -> torch.optim.Optimizer:
    return adamw(
        model,
        lr=training.lr,
        betas=(0.9, training.beta2),
        weight_decay=training.weight_decay,
    )


def _fit(
    model: Transformer,
    task: Task,
    training: Training,
    out: Path,
    resume: bool,
    progress: bool | None,
    accelerator: Any,
) -> History:
    loss = partial(
        batch_loss,
        label_smoothing=training.label_smoothing,
        z_loss=training.z_loss,
        chunk=training.chunk,
    )
    with ExitStack() as stack:
        if training.recompute:
            stack.enter_context(recomputed(model))
        if training.shard:
            shard(model, accelerator)
        if training.compile:
            model.compile()
        return fit(
            model,
            task.batches(),
            steps=training.steps,
            optimizer=_optimizer(model, training),
            schedule=schedule_of(training),
            loss=loss,
            clip=training.clip,
            max_loss=training.max_loss or 3 * math.log(model.config.vocab_size),
            evaluate=task.validate,
            every=training.evaluate_every,
            best=task.best,
            compute=Compute(
                training.precision, training.parts, accelerator, training.packed
            ),
            checkpoints=Checkpoints(
                out / "checkpoints",
                training.checkpoint_every,
                keep=max(2, training.average),
                resume=resume,
            ),
            log=Log(out / "log.jsonl"),
            seed=training.seed,
            progress=progress,
        )


def _write_result(out: Path, training: Training) -> None:
    folder = out / "checkpoints"
    if training.result == "best":
        files = [folder / "best.safetensors"]
    else:
        last = checkpoint_folders(folder)[-training.average :]
        files = [path / WEIGHTS for path in last]
    write_weights(out / WEIGHTS, average_weights(files), f"mean of {len(files)}")


def _write_start(
    out: Path, name: str, settings: Settings, tokenizer: AnyTokenizer
) -> None:
    save_tokenizer(tokenizer, out / "tokenizer.json")
    content = {"format": FORMAT, "recipe": name, "settings": settings.to_dict()}
    replace_text(out / "settings.json", json.dumps(content, indent=1))


def _check_folder(out: Path, name: str, settings: Settings, *, resume: bool) -> None:
    saved = _settings_in(out)
    if saved is None:
        return
    if not resume:
        raise ValueError(f"{out} has a run: --resume goes on with it")
    asked = {"recipe": name, **settings.to_dict()}
    begun = {"recipe": saved["recipe"], **saved["settings"]}
    for key in {**begun, **asked}:
        if begun.get(key, math.nan) != asked.get(key):
            raise ValueError(
                f"{out} was begun with {key}={begun.get(key)}, not {asked.get(key)}: "
                "a run goes on with the settings it began with"
            )


def _settings_in(folder: Path) -> dict[str, Any] | None:
    path = folder / "settings.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f'it lacks "format": "{FORMAT}"')
    except ValueError as error:
        raise ValueError(f"{path} is not of a run: {error}") from error
    return content


def _tokenizer_in(folder: Path) -> AnyTokenizer | None:
    path = folder / "tokenizer.json"
    return load_tokenizer(path) if path.is_file() else None
