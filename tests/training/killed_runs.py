"""Run in a process of its own: kills its children while they train.

Children are forked before PyTorch has computed anything, so that a kill costs no new
import. Prints how many were killed.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # an optimizer's first step would, in each child
from small_runs import BATCHES, run, small_transformer
from torch import Tensor, nn

from tfcourse.data.pairs import Batch
from tfcourse.training.step import batch_loss

CHANGES = ("fsync", "mkdir", "rename", "replace", "rmdir", "unlink")


def forked(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        work()
        os._exit(0)
    return child


def kill_at_call(count: int) -> None:
    """Let the process kill itself just before it changes the disk for the n-th time."""
    calls = []

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            calls.append(original)
            if len(calls) == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **options)

        return call

    for name in CHANGES:
        setattr(os, name, counted(getattr(os, name)))


def was_killed(child: int) -> bool:
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) == signal.SIGKILL
    assert os.WEXITSTATUS(status) == 0
    return False


def slow_loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Leave time to be killed, on a busy machine as well."""
    time.sleep(0.02)
    return batch_loss(model, batch)


def kill_at_random(folder: Path, times: int) -> int:
    """Kill the run `times` times, after a random time in a random step."""
    log, killed = folder / "log.jsonl", 0
    for part in range(1, times + 1):
        goal = random.randint(15 * part - 14, 15 * part)
        child = forked(lambda: run(folder, resume=True, loss=slow_loss))
        while not log.exists() or log.read_bytes().count(b"\n") < goal:
            time.sleep(0.002)
        time.sleep(random.random() * 0.05)
        os.kill(child, signal.SIGKILL)
        killed += was_killed(child)
    return killed


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with torch.no_grad():  # what a first call loads, the children then need not
        batch_loss(small_transformer(), BATCHES[0])

    def resume_until_a_change() -> None:
        kill_at_call(random.randint(1, 14))
        run(folder, resume=True)

    killed = kill_at_random(folder, 3) + was_killed(forked(resume_until_a_change))
    assert not was_killed(forked(lambda: run(folder, resume=True)))
    print(killed)
