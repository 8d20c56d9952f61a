"""What a machine can do at most: the ceilings that a step is measured against."""

import time

import torch

from benchmarks.shapes import Shape
from benchmarks.timing import Run, wait
from tfcourse.model.transformer import Transformer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def matmul_peak(dtype: torch.dtype, device: str, *, size: int, tries: int = 5) -> float:
    """Return the most operations a second that a product of square matrices reached."""
    first, second = (
        torch.randn(size, size, device=device, dtype=dtype) for _ in range(2)
    )
    return 2 * size**3 / _fastest(lambda: first @ second, tries)


def bandwidth(device: str, *, megabytes: int, tries: int = 5) -> float:
    """Return the most bytes a second that a copy within memory read and wrote."""
    source = torch.zeros(megabytes * 250_000, device=device)
    target = torch.ones_like(source)
    return 2 * source.nbytes / _fastest(lambda: target.copy_(source), tries)


def _fastest(run: Run, tries: int) -> float:
    run()
    seconds = []
    for _ in range(tries):
        wait()
        start = time.perf_counter()
        run()
        wait()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def bf16_is_native(device: str, least: float = 0.5) -> bool:
    """Say whether bf16 products reach `least` of fp32's speed, or are emulated."""
    speeds = [matmul_peak(kind, device, size=256) for kind in DTYPES.values()]
    return speeds[1] >= least * speeds[0]


def matrix_weights(model: Transformer) -> int:
    """Return how many weights of the model each token is multiplied with.

    Tables of embeddings and positions are looked up, not multiplied; a tied head's is.
    """
    looked_up = {"positions.table", "segments"}
    count = 0 if model.unembedding is not None else model.embedding.weight.numel()
    for name, weight in model.named_parameters():
        module = name.rpartition(".")[0]
        is_table = module == "embedding" or any(map(module.endswith, looked_up))
        if weight.dim() == 2 and not is_table:
            count += weight.numel()
    return count


def step_operations(model: Transformer, shape: Shape) -> int:
    """Return the floating-point operations of a decoder's training step.

    Six for each weight and token, and 12 T d for each layer and token: scores and
    sums of values, forward and twice backward, as if nothing were masked (the count of
    Chowdhery et al. 2022, appendix B).
    """
    if shape.family != "decoder":
        raise ValueError(f"the count is a decoder's, not of {shape.family}")
    attention = 12 * shape.layers * shape.width * shape.length
    return shape.batch * shape.length * (6 * matrix_weights(model) + attention)
