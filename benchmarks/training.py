"""The training step, of tfcourse and of its peers: its time and its peak memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from benchmarks.memory import peak_bytes
from benchmarks.peers import Peer, check, peers_of
from benchmarks.shapes import Shape, Style, config_of, random_batch
from benchmarks.timing import Run, race, ratio
from tfcourse.data.pairs import Batch
from tfcourse.model.attention import record_attention
from tfcourse.model.transformer import Transformer
from tfcourse.training.compute import Compute, Precision, make_accelerator
from tfcourse.training.optimizer import adamw
from tfcourse.training.step import train_step

RATE = 1e-4
OURS, EXPLICIT = "tfcourse", "tfcourse, explicit attention"
PARTS = 4
IN_PARTS, PACKED = f"tfcourse, {PARTS} parts by length", "tfcourse, packed"
# Ways of ours that a peer is compared with as well, each in a column of its own.
MORE_WAYS = {PACKED: "packed_ratio", IN_PARTS: "parts_ratio"}


@dataclass(frozen=True)
class Setting:
    """How a comparison is made."""

    precision: Precision = "fp32"
    compiled: bool = False
    device: str = "cpu"
    rounds: int = 20
    limit: float = 120.0
    nanogpt: Path | None = None

    @property
    def mode(self) -> str:
        """ "compiled" or "eager"."""
        return "compiled" if self.compiled else "eager"


@dataclass(frozen=True)
class Contender:
    """Someone in a race: whose parameters it has, and what it does in a round."""

    name: str
    style: str
    parameters: int
    run: Run


def our_step(
    model: Transformer, batch: Batch, setting: Setting, way: str = OURS
) -> Run:
    """Return a training step by tfcourse's own means, as `fit` makes it."""
    optimizer = adamw(model, lr=RATE)
    compute = Compute(
        setting.precision,
        parts=PARTS if way == IN_PARTS else 1,
        accelerator=make_accelerator(),
        packed=way == PACKED,
    )

    def step() -> None:
        train_step(model, batch, optimizer, compute=compute)

    def slow_step() -> None:
        with record_attention(model):
            step()

    return slow_step if way == EXPLICIT else step


def their_step(peer: Peer, model: nn.Module, batch: Batch, setting: Setting) -> Run:
    """Return the same step by the shortest loop that does it, at its best settings."""
    optimizer = AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), fused=True)
    compute, device = Compute(setting.precision), batch.tokens.device

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with compute.autocast(device):
            loss = peer.loss(model, batch)
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def contenders(shape: Shape, setting: Setting) -> Iterator[Contender]:
    """Yield the checked peers of a shape, and before them ours in each of their styles.

    Where rows are padded, ours is timed packed and in parts by length as well, and
    in one style the explicit path, which the course reads; the last two eagerly only.
    """
    batch = random_batch(shape).to(setting.device)
    peers = peers_of(shape, setting.nanogpt)
    counts = {peer.name: check(peer, shape) for peer in peers}
    for style in dict.fromkeys(peer.style for peer in peers):
        count = next(counts[peer.name] for peer in peers if peer.style == style)
        for way in _ways(shape, style, setting):
            model = Transformer(config_of(shape, style))
            place(model, setting)
            run = our_step(model, batch, setting, way)
            yield Contender(way, style, count, run)
    for peer in peers:
        model = cast(Any, peer.build(shape))
        place(model, setting)
        run = their_step(peer, model, batch, setting)
        yield Contender(peer.name, peer.style, counts[peer.name], run)


def _ways(shape: Shape, style: Style, setting: Setting) -> list[str]:
    explicit = style == "biased" and not setting.compiled
    padded = shape.family != "decoder"
    in_parts = padded and not setting.compiled
    return [OURS, *[EXPLICIT] * explicit, *[PACKED] * padded, *[IN_PARTS] * in_parts]


def place(model: nn.Module, setting: Setting) -> None:
    """Make a model ready for training in a setting, in place."""
    model.to(setting.device).train()
    if setting.compiled:
        torch._dynamo.config.recompile_limit = 64  # as many models in one process
        # By default a second shape in the process makes code for any, which is slower.
        model.compile(dynamic=False)


def time_training(shape: Shape, setting: Setting) -> list[dict[str, Any]]:
    """Return a row of times for each contender, with its ratio to ours.

    A peer's has also those to ours packed and in parts, where there are such.
    """
    entered = {f"{c.name}|{c.style}": c for c in contenders(shape, setting)}
    runs = {name: contender.run for name, contender in entered.items()}
    samples = race(runs, rounds=setting.rounds, limit=setting.limit)
    rows = []
    for name, contender in entered.items():
        ours = samples[f"{OURS}|{contender.style}"]
        row = describe("train", shape, setting, contender) | samples[name].summary()
        row["tokens_per_second"] = _tokens(shape) / row["seconds"]["median"]
        if contender.name != OURS:
            row["ratio"] = ratio(samples[name], ours)
            row["cpu_ratio"] = ratio(samples[name], ours, "cpu")
        for way, column in MORE_WAYS.items():
            other = samples.get(f"{way}|{contender.style}")
            if other and not contender.name.startswith(OURS):
                row[column] = ratio(samples[name], other)
        rows.append(row)
    return rows


def measure_memory(shape: Shape, setting: Setting) -> list[dict[str, Any]]:
    """Return a row of peak memory for each contender, with its ratio to ours."""
    rows: list[dict[str, Any]] = []
    peaks: dict[tuple[str, str], int] = {}
    for contender in contenders(shape, setting):
        contender.run()  # makes the optimizer's state
        peak = peak_bytes(contender.run, setting.device)
        row = describe("memory", shape, setting, contender) | {"peak_bytes": peak}
        peaks[contender.name, contender.style] = peak
        if contender.name != OURS:
            row["ratio"] = peak / peaks[OURS, contender.style]
        for way, column in MORE_WAYS.items():
            other = peaks.get((way, contender.style))
            if other and not contender.name.startswith(OURS):
                row[column] = peak / other
        rows.append(row)
    return rows


def describe(
    kind: str, shape: Shape, setting: Setting, contender: Contender
) -> dict[str, Any]:
    """Return what a contender's row says before anything is measured."""
    return about(kind, shape, setting) | {
        "contender": contender.name,
        "style": contender.style,
        "parameters": contender.parameters,
    }


def about(kind: str, shape: Shape, setting: Setting) -> dict[str, Any]:
    """Return what every row of a comparison says."""
    return {
        "kind": kind,
        "shape": shape.name,
        "title": str(shape),
        "precision": setting.precision,
        "mode": setting.mode,
    }


def _tokens(shape: Shape) -> int:
    """Return the tokens of a step: those that a decoder reads, or an encoder."""
    return shape.batch * shape.length
