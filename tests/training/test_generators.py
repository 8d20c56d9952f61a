"""Generators are written down and set again, all of them."""

import json
import random

import numpy as np
import pytest
import torch

from tfcourse.training.generators import (
    generator_states,
    seeded,
    set_generator_states,
)

CPU = torch.device("cpu")


def draws() -> list[float]:
    # Two of normal ones: generators keep the second of a pair for the next call.
    drawn = [random.gauss(0, 1), random.random(), float(np.random.normal())]
    return [*drawn, float(np.random.random()), *torch.randn(3).tolist()]


def test_what_comes_after_is_what_would_have_come() -> None:
    draws()
    states = json.loads(json.dumps(generator_states(CPU)))
    first = draws()
    assert draws() != first
    set_generator_states(states, CPU)
    assert draws() == first


def test_a_seeded_block_draws_from_its_seed_and_leaves_the_rest_alone() -> None:
    before = torch.get_rng_state()
    with seeded(3, CPU):
        first = torch.rand(2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    with seeded(3, CPU):
        assert torch.equal(torch.rand(2), first)
    with pytest.raises(InterruptedError), seeded(3, CPU):
        raise InterruptedError
    assert not torch.equal(torch.rand(2), first)
    with seeded(4, CPU):
        assert not torch.equal(torch.rand(2), first)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_the_devices_own_generator_is_among_them(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, state = torch.device(kind), torch.arange(9, dtype=torch.uint8)
    set_to: list[torch.Tensor] = []
    module = getattr(torch, kind)
    monkeypatch.setattr(module, "get_rng_state", lambda *device: state)
    monkeypatch.setattr(
        module, "set_rng_state", lambda state, *device: set_to.append(state)
    )
    states = json.loads(json.dumps(generator_states(device)))
    set_generator_states(states, device)
    assert torch.equal(set_to[0], state)
    # A checkpoint of another device has no state for this one, and changes nothing.
    set_generator_states(generator_states(CPU), device)
    assert len(set_to) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_draws_what_it_would_have_drawn() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    states = json.loads(json.dumps(generator_states(device)))
    first = torch.randn(3, device=device)
    set_generator_states(states, device)
    assert torch.equal(torch.randn(3, device=device), first)
