"""The random generators that a run draws from: seeded, written down, set again."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's generators for a block, and give the caller's back at its end."""
    before = _torch_states(device)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        _set_torch_states(before, device)


def generator_states(device: torch.device) -> dict[str, Any]:
    """Return the states of Python's, NumPy's and PyTorch's generators, fit for JSON."""
    numpy = np.random.get_state(legacy=False)
    assert isinstance(numpy, dict)  # what legacy=False says
    key = numpy["state"]["key"].tolist()
    return {
        "python": random.getstate(),
        "numpy": numpy | {"state": numpy["state"] | {"key": key}},
        "torch": {
            name: bytes(state.tolist()).hex()
            for name, state in _torch_states(device).items()
        },
    }


def set_generator_states(states: dict[str, Any], device: torch.device) -> None:
    """Set the generators to what `generator_states` returned."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(states["numpy"])
    found = {
        name: torch.tensor(list(bytes.fromhex(state)), dtype=torch.uint8)
        for name, state in states["torch"].items()
    }
    _set_torch_states(found, device)


def _torch_states(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _set_torch_states(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])
