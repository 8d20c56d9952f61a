"""A small run with all that changes in one: dropout, evaluations, average, log."""

import hashlib
import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_models import no_shape_checks, small_config
from torch import nn

from tfcourse.data.pairs import Batches, translation_batch
from tfcourse.data.tokenizers import Tokenizer
from tfcourse.model.transformer import Transformer
from tfcourse.training.averaging import moving_average
from tfcourse.training.checkpoint import Checkpoints
from tfcourse.training.history import Best, History, Log
from tfcourse.training.loop import fit
from tfcourse.training.schedules import cosine

TOKENIZER = Tokenizer.from_texts(["0123456"])  # with the four special ones, 11 ids
TEXTS = [f"{n % 7}{n % 5}{n % 3}"[: 1 + n % 3] for n in range(40)]
BATCHES = Batches(
    [(text, text) for text in TEXTS], TOKENIZER, translation_batch, size=8, epochs=12
)
STEPS = len(BATCHES)  # 60


def small_transformer(dropout: float = 0.2) -> Transformer:
    torch.manual_seed(3)
    one_each = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    return Transformer(small_config("encoder-decoder", dropout=dropout, **one_each))


def draw(model: nn.Module) -> float:
    """Draw from all generators, as an evaluation may: runs then depend on them all."""
    return random.random() + np.random.random() + torch.rand(()).item()


def run(
    folder: Path | None,
    *,
    resume: bool = False,
    steps: int = STEPS,
    every: int = 7,
    model: nn.Module | None = None,
    **options: Any,
) -> History:
    """Train from the same start, into `folder`, with a checkpoint every few steps."""
    random.seed(1)
    np.random.seed(2)
    model = small_transformer() if model is None else model
    kept = folder and Checkpoints(folder, every=every, resume=resume)
    given = {
        "lr": 1e-2,
        "schedule": partial(cosine, total=STEPS, warmup=5),
        "evaluate": draw,
        "every": 4,
        "best": Best(lowest=True),
        "log": folder and Log(folder / "log.jsonl"),
        "seed": 4,
    }
    if "average" not in options:
        given["average"] = moving_average(model, 0.9)
    with no_shape_checks():  # beartype draws from Python's generator
        return fit(
            model, BATCHES, steps=steps, checkpoints=kept or None, **(given | options)
        )


def left_behind(folder: Path) -> dict[str, Any]:
    """Return what a run left that does not depend on the clock."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.name == "state.json":
            state = json.loads(path.read_text())
            del state["facts"]["history"]["seconds"]
            found[name] = state
        elif path.name == "log.jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            timed = {"seconds", "tokens_per_second"}
            found[name] = [
                {k: v for k, v in line.items() if k not in timed} for line in lines
            ]
        elif path.is_file():
            found[name] = path.read_bytes()
    return found
