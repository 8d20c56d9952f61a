"""Run by `torchrun` in two processes: everything that needs more than one.

A run leaves its checkpoints in the folder that is given; the first process writes there
what cannot be seen in them.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from small_runs import BATCHES, run, small_transformer
from torch import Tensor, nn

from tfcourse.data.pairs import Batch
from tfcourse.training.compute import Compute, make_accelerator, shard, share
from tfcourse.training.loop import fit
from tfcourse.training.optimizer import adamw, sgd
from tfcourse.training.step import backward, batch_loss


def exact(folder: Path | None, *, sharded: bool = False, **options: Any) -> nn.Module:
    """Run in float64 with no dropout and no Adam, so that sums hardly round."""
    model = small_transformer(dropout=0.0).double()
    compute = options.pop("compute", Compute())
    if sharded:
        shard(model, compute.accelerator or make_accelerator())
    optimizer = options.pop("make", sgd)(model, lr=0.05)
    given = {"optimizer": optimizer, "lr": None, "average": None, "every": 6}
    run(folder, model=model, compute=compute, **(given | options))
    return model


def by_hand(model: nn.Module, batch: Batch) -> list[Tensor]:
    """Return the gradient of a step on all processes, without accelerate and DDP.

    Each has the gradient of its sum; these are added up, and divided by all tokens.
    """
    mine = share(batch, dist.get_rank(), dist.get_world_size())
    total, count = batch_loss(model, mine)
    gradients = torch.autograd.grad(total, list(model.parameters()))
    dist.all_reduce(count)
    for gradient in gradients:
        dist.all_reduce(gradient)
    return [gradient / count for gradient in gradients]


def worst_by_hand(batch: Batch) -> float:
    """Return how far accelerate's step on two processes is from the one by hand.

    And from that of one process, which goes through the whole batch.
    """
    model = small_transformer(dropout=0.0).double()
    accelerator = make_accelerator()
    total, count = batch_loss(model, batch)
    alone = torch.autograd.grad(total / count, list(model.parameters()))
    expected = [by_hand(model, batch), alone]
    wrapped = accelerator.prepare(model)
    assert isinstance(wrapped, nn.parallel.DistributedDataParallel)
    backward(wrapped, batch, clip=None, compute=Compute(accelerator=accelerator))
    found = [p.grad for p in model.parameters()]
    return max(
        (g - e).abs().max().item()
        for gradients in expected
        for g, e in zip(found, gradients, strict=True)
    )


def evaluations_of_all() -> list[Any]:
    """Return what each process takes for the result of an evaluation."""
    history = run(
        None, steps=4, average=None, evaluate=lambda m: float(dist.get_rank())
    )
    found: list[Any] = [None, None]
    dist.all_gather_object(found, history.evaluations)
    return found


def seeds_differ() -> bool:
    """Return whether each process drops other units."""
    drawn = torch.empty(2)

    def loss(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        mine = torch.rand(())
        both = [torch.empty(()) for _ in range(2)]
        dist.all_gather(both, mine)
        drawn.copy_(torch.stack(both))
        return batch_loss(model, batch)

    run(None, steps=1, loss=loss, average=None, evaluate=None)
    return bool(drawn[0] != drawn[1])


def compiled() -> dict[str, Any]:
    """Train a compiled model: here, as Dynamo cannot see through checks of shapes."""
    model = small_transformer(dropout=0.0)
    names = list(model.state_dict())
    model.compile(backend="eager")
    losses = fit(model, [BATCHES[0]] * 3, lr=1e-2).losses
    return {"losses": losses, "same_names": list(model.state_dict()) == names}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    accelerator = make_accelerator()
    assert accelerator.num_processes == 2
    found: dict[str, Any] = {
        "worst": worst_by_hand(BATCHES[0]),
        "worst_of_one_row": worst_by_hand(share(BATCHES[0], 0, 8)),
        "seeds": seeds_differ(),
        "evaluations": evaluations_of_all(),
    }
    found["compiled"] = compiled()
    exact(folder / "ddp", steps=12)
    in_chunks = partial(batch_loss, chunk=5)
    exact(folder / "chunks", steps=12, loss=in_chunks)
    try:
        exact(None, steps=1, sharded=True, loss=in_chunks)
    except ValueError as error:
        found["chunks"] = str(error)
    exact(folder / "from-one", steps=12, resume=True)
    exact(folder / "parts", steps=12, compute=Compute(parts=2))
    exact(folder / "parts-sharded", steps=12, compute=Compute(parts=2), sharded=True)
    exact(folder / "sharded", steps=12, sharded=True)
    exact(folder / "from-one-sharded", steps=12, resume=True, sharded=True)
    try:
        exact(None, steps=1, sharded=True, compute=Compute("fp16"))
    except ValueError as error:
        found["fp16"] = str(error)
    exact(folder / "adam", steps=12, sharded=True, make=adamw)
    again = Compute(accelerator=accelerator)  # two runs in a row with one accelerator
    exact(None, steps=2, compute=again)
    exact(folder / "again", steps=12, compute=again)
    if accelerator.is_main_process:
        (folder / "found.json").write_text(json.dumps(found))
    accelerator.end_training()
