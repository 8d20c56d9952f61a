"""How a chapter begins: its size, device and seed are checked and set in one place."""

from __future__ import annotations

import gc
import random
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from tfcourse.course import plots
from tfcourse.course.ledger import Key, load_ledger

SIZES = ("smoke", "laptop", "gpu")
DEVICES = ("auto", "cpu", "cuda", "mps")

T = TypeVar("T")


@dataclass(frozen=True)
class Chapter:
    """What the cells of a chapter need to know about this run."""

    number: Key
    size: str
    device: torch.device
    seed: int

    @property
    def trained(self) -> bool:
        """Whether this run trains for long enough to judge a claim about training."""
        return self.size != "smoke"

    def pick(self, *, smoke: T, laptop: T, gpu: T) -> T:
        """Return the value that belongs to this run's size."""
        return {"smoke": smoke, "laptop": laptop, "gpu": gpu}[self.size]


def start(number: Key, *, size: str, device: str, seed: int) -> Chapter:
    """Check the parameters, seed the generators, fix the threads, set the figure style.

    Float sums depend on the number of threads. A chapter on a CPU uses one, so that its
    numbers are the same in JupyterLab, under nbval beside another process, and at the
    next run. Raises ValueError naming what is known when a parameter is not.
    """
    known = list(load_ledger().chapters)
    if number not in known:
        raise ValueError(f"unknown chapter {number!r}; known: {_listed(known)}")
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; known: {_listed(SIZES)}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"a seed is an integer from 0 to 2**32 - 1, got {seed!r}")
    chosen = choose_device(device)
    if chosen.type == "cpu":
        torch.set_num_threads(1)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    plots.use_style()
    gc.freeze()  # what was imported stays: the collector need not go through it
    return Chapter(number, size, chosen, seed)


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" takes cuda, then mps, then the CPU.

    Raises ValueError when the name is unknown or this machine has no such device.
    """
    if name not in DEVICES:
        raise ValueError(f"unknown device {name!r}; known: {_listed(DEVICES)}")
    present = [
        *(["cuda"] if torch.cuda.is_available() else []),
        *(["mps"] if torch.backends.mps.is_available() else []),
        "cpu",
    ]
    if name == "auto":
        return torch.device(present[0])
    if name not in present:
        raise ValueError(
            f"device {name!r} is not on this machine; known here: {_listed(present)}"
        )
    return torch.device(name)


def _listed(names: object) -> str:
    return ", ".join(str(name) for name in names)  # type: ignore[attr-defined]
