"""On what a step is computed: processes, precision, and in how many parts."""

import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from tfcourse.data.packed import share_rows
from tfcourse.data.pairs import IGNORE, Batch
from tfcourse.model.layers import Block

with warnings.catch_warnings():
    # In a notebook, tqdm's widgets are asked for on import, and missed with a warning
    # that would stand among the outputs.
    warnings.filterwarnings("ignore", message="IProgress not found")
    from accelerate import Accelerator
    from accelerate.utils import broadcast_object_list, gather_object

__all__ = [
    "Accelerator",
    "Compute",
    "Precision",
    "broadcast_object_list",
    "gather_object",
    "is_sharded",
    "make_accelerator",
    "parts_of",
    "shard",
    "share",
    "synchronised",
    "whole",
]

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """How a step is computed, which changes its speed and memory, not its meaning.

    Each process takes its share of a batch's rows and goes through them in `parts`, one
    after another: the gradient is that of the whole batch. Rows of like length go
    together, so that less is padding. With `packed`, rows share a row where padding
    would be (`share_rows`), which is for a model and a loss that take a batch's
    positions and masks, as the Transformer and `batch_loss` do. Below fp32, PyTorch's
    autocast computes in 16 bits, weights and their updates stay in 32, and fp16 losses
    are scaled (Micikevicius et al. 2018). `accelerator` is made by `make_accelerator`
    if none is given.
    """

    precision: Precision = "fp32"
    parts: int = 1
    accelerator: Accelerator | None = None
    packed: bool = False

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            known = ", ".join(get_args(Precision))
            raise ValueError(f"precision must be one of {known}, not {self.precision}")
        if self.parts < 1:
            raise ValueError(f"parts must be at least 1, not {self.parts}")

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the block in which the loss is computed."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(device.type, dtype=DTYPES[self.precision])

    def scaler(self, device: torch.device) -> GradScaler | None:
        """Return what keeps small fp16 gradients from vanishing, or None."""
        return GradScaler(device.type) if self.precision == "fp16" else None


def make_accelerator() -> Accelerator:
    """Return accelerate's view of the processes that a launcher started, or of one.

    Precision is not left to accelerate: it rewrites a model's `forward`, leaves fp16
    out on CPUs, and has one for a whole process, where a notebook may compare two.
    Several processes that accelerate does not see, and would each train alone, raise
    `ValueError`.
    """
    on_cpu = not torch.accelerator.is_available()
    accelerator = Accelerator(cpu=on_cpu, mixed_precision="no")
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise ValueError(
            f"{launched} processes were started, but accelerate sees "
            f"{accelerator.num_processes} on {accelerator.device}"
        )
    return accelerator


def shard(model: nn.Module, accelerator: Accelerator) -> None:
    """Divide each weight among the processes, block by block (FSDP2), in place.

    To be called before the optimizer is made. A weight is whole only while its block
    computes, so the model is to be called itself, not `encode` or other parts of it
    (Rajbhandari et al. 2020, stage 3; Zhao et al. 2023).
    """
    # Here, since to import it takes longer than to import PyTorch.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model.to(accelerator.device)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for module in list(model.modules()):
        if isinstance(module, Block):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_sharded(model: nn.Module) -> bool:
    """Return whether the model's weights are divided among processes."""
    return hasattr(model, "set_requires_gradient_sync")  # FSDPModule's


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor, gathered if it is divided; every process must call it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def share(batch: Batch, index: int, count: int) -> Batch:
    """Return the rows index, index + count ... of a batch.

    Where there are none, one row that asks for nothing: each process must take part in
    each step.
    """
    if count == 1:
        return batch
    if index >= len(batch.tokens):
        first = share(batch, 0, len(batch.tokens))
        return replace(first, target=torch.full_like(first.target, IGNORE))
    return batch.rows(slice(index, None, count))


def parts_of(batch: Batch, compute: Compute, accelerator: Accelerator) -> list[Batch]:
    """Return this process's share of a batch, in the parts it is gone through in.

    There are as many on each process: sharded weights are gathered in each part. Rows
    of like length make a part, which then ends with its longest row.
    """
    processes = accelerator.num_processes
    mine = share(batch, accelerator.process_index, processes)
    largest = -(-len(batch.tokens) // processes)
    count = min(compute.parts, largest)
    parts = [mine] if count == 1 else _by_length(mine, count)
    return [share_rows(part) for part in parts] if compute.packed else parts


def _by_length(batch: Batch, count: int) -> list[Batch]:
    rows = batch.lengths().argsort(stable=True).tensor_split(count)
    # Where there are fewer rows than parts, `share` gives one that asks for nothing.
    return [
        batch.rows(chosen).trimmed() if len(chosen) else share(batch, count, count + 1)
        for chosen in rows
    ]


@contextmanager
def synchronised(
    model: nn.Module, accelerator: Accelerator, *, last: bool
) -> Iterator[None]:
    """Let gradients go between processes in the last part's backward pass only."""
    if is_sharded(model):
        model.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield
    elif last:
        yield
    else:
        with accelerator.no_sync(model):
            yield
