"""GPT-2 124M against the ceilings of a GPU: how near a step and a token come to them.

Runs where CUDA is. `plan` says elsewhere what would run; the parts are tested on CPU in
a tiny shape, all but the recording of a CUDA graph.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.limits import DTYPES, bandwidth, matmul_peak, step_operations
from benchmarks.memory import peak_bytes
from benchmarks.shapes import Shape, config_of, random_batch
from benchmarks.timing import race
from benchmarks.training import OURS, Setting, about, our_step, place
from tfcourse.model.cache import StaticKVCache
from tfcourse.model.transformer import Transformer

# The vocabulary of 50,257 is padded to a multiple of 64, as nanoGPT does.
GPT2 = Shape("gpt2-124m", "decoder", 768, 12, 12, 1024, 16, 50_304)
PROMPT = 32


@dataclass(frozen=True)
class Effort:
    """How large the measurements of the ceilings are, and how often all is repeated."""

    matrix: int = 8192
    megabytes: int = 2048
    rounds: int = 20
    new: int = 256


def plan(shape: Shape = GPT2) -> str:
    """Say what `measure` runs."""
    return (
        f"On CUDA: {shape}, vocabulary {shape.vocab}, in bf16, compiled. A training "
        "step (forward, backward, clip, AdamW), its peak memory, and its operations a "
        "second against the fastest product of square matrices; decoding at batch 1 "
        "from a static cache, eager, compiled, and as one CUDA graph, and the bytes "
        "that a token reads against the fastest copy within memory."
    )


def measure(
    shape: Shape = GPT2,
    setting: Setting | None = None,
    effort: Effort | None = None,
) -> list[dict[str, Any]]:
    """Return a row of the ceilings, one of training and one for each way to decode."""
    setting = setting or Setting("bf16", compiled=True, device="cuda")
    effort = effort or Effort()
    dtype = DTYPES[setting.precision]
    if setting.device == "cuda":
        # As peers do: fp32 products, where there are any left, in TF32.
        torch.set_float32_matmul_precision("high")
    peak = matmul_peak(dtype, setting.device, size=effort.matrix)
    copied = bandwidth(setting.device, megabytes=effort.megabytes)
    limits = {"matmul_per_second": peak, "bytes_per_second": copied}

    def row(kind: str, found: dict[str, Any]) -> dict[str, Any]:
        return about(kind, shape, setting) | {"contender": OURS} | found

    return [
        row("limits", limits),
        row("mfu", train(shape, setting, effort, peak)),
        *(
            row("bandwidth", {"how": how} | found)
            for how, found in decode(shape, setting, effort, copied).items()
        ),
    ]


def train(
    shape: Shape, setting: Setting, effort: Effort, peak: float
) -> dict[str, Any]:
    """Time a training step, and say which part of the ceiling `peak` it uses."""
    model = Transformer(config_of(shape, "biased"))
    place(model, setting)
    batch = random_batch(shape).to(setting.device)
    step = our_step(model, batch, setting)
    step()
    row = race({OURS: step}, rounds=effort.rounds)[OURS].summary()
    seconds = row["seconds"]["median"]
    return row | {
        "tokens_per_second": shape.batch * shape.length / seconds,
        "model_flops_utilisation": step_operations(model, shape) / seconds / peak,
        "peak_bytes": peak_bytes(step, setting.device),
    }


@torch.no_grad()
def decode(
    shape: Shape, setting: Setting, effort: Effort, copied: float
) -> dict[str, dict[str, Any]]:
    """Time single tokens at batch 1, and say which part of the ceiling they use.

    A token reads all weights but the tables that are looked up, and the cache: the
    whole of it, since a static one is read to its end.
    """
    dtype = DTYPES[setting.precision]
    model = Transformer(config_of(shape, "biased")).to(setting.device, dtype).eval()
    looked_up = shape.length * shape.width  # the positions
    weights = sum(p.numel() for p in model.parameters()) - looked_up
    capacity = PROMPT + effort.new
    kept = 2 * shape.layers * shape.width * capacity
    found = {}
    for how, run in _ways(model, setting, capacity).items():
        row = race({how: run}, rounds=effort.rounds)[how].summary()
        seconds = row["seconds"]["median"] / effort.new
        read = (weights + kept) * dtype.itemsize
        found[how] = row | {
            "tokens_per_second": 1 / seconds,
            "bandwidth_utilisation": read / seconds / copied,
        }
    return found


def _ways(
    model: Transformer, setting: Setting, capacity: int
) -> dict[str, Callable[[], Tensor]]:
    """Return what writes capacity - PROMPT tokens: eager, compiled, as a graph."""
    ways = {"eager": _writer(model, model, setting, capacity)}
    if setting.compiled:
        fast = torch.compile(model)
        ways["compiled"] = _writer(fast, model, setting, capacity)
        if setting.device == "cuda":
            name = "compiled, CUDA graph"
            ways[name] = _writer(fast, model, setting, capacity, graph=True)
    return ways


def _writer(
    call: Callable[..., Tensor],
    model: Transformer,
    setting: Setting,
    capacity: int,
    *,
    graph: bool = False,
) -> Callable[[], Tensor]:
    """Return a loop of single tokens, each the likeliest after the one before.

    What stands in the cache before them does not matter for the time: it is empty.
    """
    dtype = DTYPES[setting.precision]
    cache = StaticKVCache(
        model.config, batch=1, capacity=capacity, device=setting.device, dtype=dtype
    )
    token = torch.zeros(1, 1, dtype=torch.long, device=setting.device)

    @torch.no_grad()
    def one() -> None:
        logits = call(token, cache=cache, output="last")
        token.copy_(logits[:, -1].argmax(dim=-1, keepdim=True))

    step = _recorded(one) if graph else one

    def write() -> Tensor:
        token.zero_()
        cache.crop(PROMPT)
        for _ in range(capacity - PROMPT):
            step()
        return token

    return write


def _recorded(one: Callable[[], None]) -> Callable[[], None]:
    """Return the replay of a call as one CUDA graph: no launch waits for Python."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # a graph records what has been called before
        for _ in range(3):
            one()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        one()
    return graph.replay
