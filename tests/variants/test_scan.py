"""The scan gives the states of the loop, in fewer rounds."""

import pytest
import torch

from tfcourse.course.costs import longest_chain
from tfcourse.variants.scan import join, recurrence_by_loop, recurrence_by_scan


def steps(length: int, *batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (*batch, length, 3)
    return torch.rand(shape, dtype=torch.double), torch.randn(shape, dtype=torch.double)


@pytest.mark.parametrize("length", [1, 2, 3, 8, 13, 256])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_scan_and_loop_agree(length: int, batch: tuple[int, ...]) -> None:
    decay, value = steps(length, *batch)
    by_loop = recurrence_by_loop(decay, value)
    torch.testing.assert_close(recurrence_by_scan(decay, value), by_loop)
    state = torch.zeros(*batch, 3, dtype=torch.double)
    for t in range(length):
        state = decay[..., t, :] * state + value[..., t, :]
    torch.testing.assert_close(by_loop[..., -1, :], state)


def test_gradients_agree() -> None:
    found = []
    for recurrence in (recurrence_by_loop, recurrence_by_scan):
        torch.manual_seed(0)
        decay, value = (part.requires_grad_() for part in steps(9))
        recurrence(decay, value).square().sum().backward()
        found.append((decay.grad, value.grad))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(("length", "rounds"), [(2, 1), (8, 3), (9, 4), (256, 8)])
def test_rounds_grow_with_the_logarithm(length: int, rounds: int) -> None:
    decay, value = (part.requires_grad_() for part in steps(length))
    products = {"Mul": 1}
    assert longest_chain(recurrence_by_scan(decay, value), products) == rounds
    assert longest_chain(recurrence_by_loop(decay, value), products) == length


def test_join_is_one_step_after_the_other() -> None:
    first, then = torch.tensor([[2.0], [3.0]]), torch.tensor([[5.0], [7.0]])
    decay, value = join(tuple(first), tuple(then))
    assert (decay.item(), value.item()) == (10, 5 * 3 + 7)
