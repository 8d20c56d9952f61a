"""Calls timed in turns, what their times say, and the machine they were taken on."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks import WAIT_POLICY

Run = Callable[[], object]
LIBRARIES = ("torch", "transformers", "x-transformers")
FEWEST = 3  # rounds that are made even when the time is over


@dataclass
class Samples:
    """Seconds of one contender, a number a round.

    `wall` is the time that passed, `cpu` what all threads of this process computed:
    other programs on the machine lengthen the first and hardly the second.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return median and quartiles of the time that passed, and the computed."""
        low, middle, high = (quantile(self.wall, part) for part in (0.25, 0.5, 0.75))
        return {
            "seconds": {"median": middle, "q1": low, "q3": high},
            "cpu_seconds": statistics.median(self.cpu),
            "rounds": len(self.wall),
        }


def quantile(values: list[float], part: float) -> float:
    """Return the value below which `part` of the values lie, interpolated."""
    ordered = sorted(values)
    place = part * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def race(
    runs: Mapping[str, Run],
    *,
    rounds: int,
    limit: float = float("inf"),
    warmup: int = 2,
) -> dict[str, Samples]:
    """Time each call once a round, in an order that turns by one from round to round.

    What slows the machine for a while then slows all of them. The first `warmup` rounds
    do not count; after `limit` seconds no further round begins, but three are made.
    """
    if rounds < FEWEST:
        raise ValueError(f"rounds must be at least {FEWEST}, not {rounds}")
    names, samples = list(runs), {name: Samples() for name in runs}
    start = time.perf_counter()
    for number in range(-warmup, rounds):
        if number >= FEWEST and time.perf_counter() - start > limit:
            break
        first = number % len(names)
        for name in names[first:] + names[:first]:
            wall, cpu = timed(runs[name])
            if number >= 0:
                samples[name].wall.append(wall)
                samples[name].cpu.append(cpu)
    return samples


def timed(run: Run) -> tuple[float, float]:
    """Return the seconds that one call took, and those that it computed."""
    wait()
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    wait()
    return time.perf_counter() - wall, time.process_time() - cpu


def wait() -> None:
    """Wait until an accelerator, if there is one, has done what it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def ratio(first: Samples, second: Samples, clock: str = "wall") -> float:
    """Return how much longer the first takes, the median of the rounds' ratios."""
    pairs = zip(getattr(first, clock), getattr(second, clock), strict=True)
    return statistics.median(a / b for a, b in pairs)


def machine(device: str) -> dict[str, Any]:
    """Say what a time was measured on, and with which versions."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "wait_policy": WAIT_POLICY,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
        **{name: _version(name) for name in LIBRARIES},
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
