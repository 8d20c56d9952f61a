"""AdamW and SGD: which parameters decay, and that an update is the published one."""

import pytest
import torch
from small_models import small_model
from torch import nn

from tfcourse.training.optimizer import adamw, sgd


def test_matrices_decay_and_norms_and_biases_do_not() -> None:
    model = small_model("encoder-decoder")
    decayed, kept = adamw(model, lr=0.1, weight_decay=0.3).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    name_of = {id(p): name for name, p in model.named_parameters()}
    kept_names = {name_of[id(p)] for p in kept["params"]}
    expected = {n for n in name_of.values() if "norm" in n or n.endswith("bias")}
    assert kept_names == expected
    assert {name_of[id(p)] for p in decayed["params"]} == set(
        name_of.values()
    ) - expected


def test_without_a_gradient_only_the_decay_moves_a_weight() -> None:
    model = small_model("decoder")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    adamw(model, lr=0.1, weight_decay=0.5).step()
    for name, p in model.named_parameters():
        factor = 1 - 0.1 * 0.5 if p.dim() >= 2 else 1.0
        torch.testing.assert_close(p.detach(), before[name] * factor)


def test_two_updates_are_those_of_the_paper() -> None:
    layer = nn.Linear(3, 2).double()
    optimizer = adamw(layer, lr=0.01, betas=(0.9, 0.98), weight_decay=0.1)
    expected = layer.weight.detach().clone()
    first, second = torch.zeros(2, 3).double(), torch.zeros(2, 3).double()
    for t in (1, 2):
        gradient = torch.randn(2, 3).double()
        layer.weight.grad, layer.bias.grad = gradient, torch.zeros(2).double()
        optimizer.step()
        first = 0.9 * first + 0.1 * gradient
        second = 0.98 * second + 0.02 * gradient**2
        direction = (first / (1 - 0.9**t)) / ((second / (1 - 0.98**t)).sqrt() + 1e-8)
        expected = expected - 0.01 * (0.1 * expected + direction)
        torch.testing.assert_close(layer.weight.detach(), expected)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_is_that_of_the_papers(nesterov: bool) -> None:
    layer = nn.Linear(3, 2).double()
    optimizer = sgd(layer, lr=0.1, momentum=0.8, nesterov=nesterov, weight_decay=0.3)
    expected, velocity = layer.weight.detach().clone(), 0.0
    for _ in range(3):
        gradient = torch.randn(2, 3).double()
        layer.weight.grad, layer.bias.grad = gradient, torch.zeros(2).double()
        optimizer.step()
        decayed = gradient + 0.3 * expected
        velocity = 0.8 * velocity + decayed
        expected = expected - 0.1 * (decayed + 0.8 * velocity if nesterov else velocity)
        torch.testing.assert_close(layer.weight.detach(), expected)


def test_sgd_has_the_groups_of_adamw() -> None:
    model = small_model("encoder-decoder")
    model.embedding.weight.requires_grad_(False)
    ours, theirs = (
        [({id(p) for p in g["params"]}, g["weight_decay"]) for g in made.param_groups]
        for made in (make(model, lr=0.1, weight_decay=0.3) for make in (sgd, adamw))
    )
    assert ours == theirs


def test_frozen_parameters_are_left_out() -> None:
    model = small_model("decoder")
    model.embedding.weight.requires_grad_(False)
    groups = adamw(model, lr=0.1).param_groups
    chosen = {id(p) for group in groups for p in group["params"]}
    assert id(model.embedding.weight) not in chosen
    assert len(chosen) == len(list(model.parameters())) - 1


@pytest.mark.parametrize(("device", "fused"), [("cpu", True), ("meta", False)])
def test_the_fused_update_is_used_where_there_is_one(device: str, fused: bool) -> None:
    optimizer = adamw(small_model("decoder").to(device), lr=0.1)
    assert optimizer.defaults["fused"] is fused


def test_a_model_with_nothing_to_train_is_refused() -> None:
    for make in (adamw, sgd):
        with pytest.raises(ValueError, match="no parameters"):
            make(nn.ReLU(), lr=0.1)


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ValueError, match="Nesterov momentum requires a momentum"):
        sgd(nn.Linear(2, 2), lr=0.1, momentum=0.0, nesterov=True)
