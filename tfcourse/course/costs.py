"""What a computation costs: its work, its longest chain, what it keeps, its time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

Run = Callable[[], object]

# How many matrix products one after another a step of autograd's record stands for.
PRODUCTS = {"Mm": 1, "Addmm": 1, "Bmm": 1, "Convolution": 1, "ScaledDot": 2}


def flops(run: Run) -> int:
    """Return the floating-point operations in a call's matrix products: its work.

    A multiplication and an addition count as two. PyTorch counts no fused attention on
    CPUs: call within `record_attention`, on the device `meta` if the lengths are large.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return int(counter.get_total_flops())


def longest_chain(output: Tensor, products: Mapping[str, int] = PRODUCTS) -> int:
    """Return how many products at least wait for one another before `output` is there.

    Autograd records which result was computed from which; this is the longest path in
    its record, with the steps named counted and all others free. Without a record, and
    with a kernel in it that hides a whole recurrent layer, raises `ValueError`.
    """
    if output.grad_fn is None:
        raise ValueError("the output has no record: compute it with gradients")
    length: dict[object, int] = {}
    waiting = [output.grad_fn]
    while waiting:
        step = waiting[-1]
        earlier = [node for node, _ in step.next_functions if node is not None]
        unknown = [node for node in earlier if node not in length]
        if step not in length and unknown:
            waiting += unknown
            continue
        waiting.pop()
        own = _products(step.name(), products)
        length[step] = own + max((length[node] for node in earlier), default=0)
    return length[output.grad_fn]


def _products(name: str, products: Mapping[str, int]) -> int:
    if "Rnn" in name:
        raise ValueError(f"{name} hides its steps: call a cell for each token instead")
    return sum(count for start, count in products.items() if name.startswith(start))


def bytes_kept(run: Run, *inputs: Tensor) -> int:
    """Return the bytes that a call keeps for its backward pass, each storage once.

    The inputs, such as weights, are there anyway and are not counted.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    kept: dict[int, int] = {}
    alive: list[object] = []  # a storage that is freed may give its address to the next

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        alive.append(run())
    return sum(kept.values())


def race(*runs: Run, rounds: int = 5) -> list[float]:
    """Return the median seconds of each call, after one round that does not count.

    The calls take turns, so that whatever slows the machine for a while slows all of
    them. On a CPU it is the time that this process computes, not the time that passes:
    other programs do not count.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, not {rounds}")
    on_cpu = not torch.accelerator.is_available()
    clock = time.process_time if on_cpu else time.perf_counter
    taken: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds + 1):
        for run, seconds in zip(runs, taken, strict=True):
            start = clock()
            run()
            if not on_cpu:
                torch.accelerator.synchronize()
            seconds.append(clock() - start)
    return [statistics.median(seconds[1:]) for seconds in taken]
