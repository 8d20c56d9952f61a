"""A mixture of experts computes what is chosen and nothing else, and can be evened."""

import math
from typing import Any

import pytest
import torch
from small_models import disturb, small_config, small_model, some_tokens
from torch import Tensor, nn

from tfcourse.model.layers import FeedForward
from tfcourse.model.transformer import Transformer
from tfcourse.probes import assert_causal, assert_permutation_equivariant
from tfcourse.variants.experts import (
    Experts,
    Routing,
    load_balance_loss,
    record_routing,
)


def experts(num_experts: int = 4, top_k: int = 2, **options: Any) -> Experts:
    made = Experts(small_config(**options), num_experts, top_k).double()
    disturb(made)
    return made


def stream(batch: int = 2, seq: int = 9) -> Tensor:
    return torch.randn(batch, seq, 8, dtype=torch.float64)


def token_by_token(layer: Experts, x: Tensor) -> Tensor:
    """Return each token's weighted sum of experts, one token and expert at a time."""
    out = torch.zeros_like(x)
    for row in range(x.shape[0]):
        for place in range(x.shape[1]):
            token = x[row, place]
            odds = [math.exp(weight @ token) for weight in layer.router.weight.detach()]
            order = sorted(range(len(odds)), key=lambda i: -odds[i])[: layer.top_k]
            total = sum(odds[i] for i in order) if layer.top_k > 1 else sum(odds)
            for i in order:
                output = layer.experts[i](token[None, None])[0, 0]
                out[row, place] += odds[i] / total * output
    return out


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("num_experts", "top_k"), [(4, 1), (4, 2), (3, 3), (5, 4)])
def test_the_result_is_that_of_a_loop_over_tokens(
    num_experts: int, top_k: int, gated: bool
) -> None:
    layer, x = experts(num_experts, top_k, gated=gated, activation="gelu"), stream()
    assert torch.allclose(layer(x), token_by_token(layer, x), rtol=1e-12, atol=1e-12)


def test_one_expert_is_the_dense_network() -> None:
    layer, x = experts(1, 1), stream()
    assert torch.equal(layer(x), layer.experts[0](x))


def test_equal_experts_are_the_dense_network_whoever_is_chosen() -> None:
    layer, x = experts(4, 3), stream()
    for expert in layer.experts:
        expert.load_state_dict(layer.experts[0].state_dict())
    assert torch.allclose(layer(x), layer.experts[0](x), rtol=1e-12, atol=1e-12)


def sent_to(layer: Experts, *favourites: int) -> Tensor:
    """Make the router prefer these experts, the first most; return what to send."""
    x = stream().abs()
    with torch.no_grad():
        layer.router.weight.zero_()
        for rank, index in enumerate(favourites):
            layer.router.weight[index] = 1.0 - 0.2 * rank
    return x


def test_an_expert_is_given_its_own_tokens_alone() -> None:
    layer, x = experts(4, 2), stream()
    given: dict[int, Tensor] = {}
    for index, expert in enumerate(layer.experts):
        expert.register_forward_pre_hook(
            lambda module, args, index=index: given.__setitem__(index, args[0])
        )
    with record_routing(layer) as routes:
        layer(x)
    chosen, tokens = routes[""].chosen, x.flatten(0, 1)
    assert sum(part.shape[1] for part in given.values()) == 2 * len(tokens)
    for index, part in given.items():
        assert torch.equal(part[0], tokens[(chosen == index).any(1)])
    given.clear()
    layer(sent_to(layer, 2, 0))
    assert set(given) == {0, 2}


def test_gradients_reach_the_router_and_the_chosen_experts_only() -> None:
    layer = experts(4, 2)
    layer(sent_to(layer, 2, 0)).square().sum().backward()
    for index, expert in enumerate(layer.experts):
        for weight in expert.parameters():
            if index in (0, 2):
                assert weight.grad is not None
                assert weight.grad.abs().max() > 0
            else:
                assert weight.grad is None
    assert layer.router.weight.grad is not None
    moved = layer.router.weight.grad.abs().amax(1) > 1e-9
    assert moved.tolist() == [True, False, True, False]


def test_a_router_of_one_choice_learns_too() -> None:
    """Divided by its sum the only weight would be one, and its gradient zero."""
    layer = experts(4, 1)
    layer(stream()).square().sum().backward()
    assert layer.router.weight.grad is not None
    assert layer.router.weight.grad.abs().max() > 1e-3


@pytest.mark.parametrize("top_k", [1, 2])
def test_gradients_are_those_of_finite_differences(top_k: int) -> None:
    layer, x = experts(3, top_k), stream(1, 4).requires_grad_()
    names = [name for name, _ in layer.named_parameters()]

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        given = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(layer, given, (x,))

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()), fast_mode=True)


def test_it_works_under_autocast() -> None:
    layer = experts().float()
    with torch.autocast("cpu", torch.bfloat16):
        for x in (torch.randn(2, 5, 8), torch.randn(2, 5, 8, dtype=torch.bfloat16)):
            assert layer(x).dtype == x.dtype


@pytest.mark.parametrize(("num_experts", "top_k"), [(4, 0), (4, 5), (0, 1), (4, -1)])
def test_impossible_numbers_are_refused(num_experts: int, top_k: int) -> None:
    message = rf"top_k must be in 1 \.\.\. num_experts={num_experts}, not {top_k}"
    with pytest.raises(ValueError, match=message):
        Experts(small_config(), num_experts, top_k)


# ------------------------------------------------------------------- the balance


def routing_of(probability: Tensor, top_k: int = 1) -> Routing:
    return Routing(probability, probability.topk(top_k).indices)


def test_the_balance_loss_is_one_for_an_even_router_and_most_for_a_single_expert() -> (
    None
):
    even = torch.eye(4).repeat(3, 1)
    assert load_balance_loss(routing_of(even)).item() == pytest.approx(1)
    single = torch.eye(4)[[2] * 12]
    assert load_balance_loss(routing_of(single)).item() == pytest.approx(4)
    flat = Routing(torch.full((12, 4), 0.25), torch.zeros(12, 1).long())
    assert load_balance_loss(flat).item() == pytest.approx(1)


def test_the_balance_loss_is_the_sum_computed_by_hand() -> None:
    probability = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])
    # Two choices each: (0, 1) and (1, 2); P = (0.3, 0.45, 0.25).
    expected = 3 * (0.25 * 0.3 + 0.5 * 0.45 + 0.25 * 0.25)
    found = load_balance_loss(routing_of(probability, top_k=2))
    assert found.item() == pytest.approx(expected)


def test_the_least_balance_loss_of_sure_routers_is_the_even_one() -> None:
    """Where the shares are the probabilities, no other split is as low as 1."""
    for count in range(13):
        probability = torch.eye(2)[[0] * count + [1] * (12 - count)]
        found = load_balance_loss(routing_of(probability)).item()
        expected = 2 * ((count / 12) ** 2 + (1 - count / 12) ** 2)
        assert found == pytest.approx(expected)
        assert (found == pytest.approx(1)) == (count == 6)
        assert found > 1 - 1e-6


def test_unsure_choices_can_bring_the_balance_loss_below_one() -> None:
    rows = [[0.5001, 0.4999]] * 3 + [[0.0, 1.0]]
    found = load_balance_loss(routing_of(torch.tensor(rows))).item()
    assert found == pytest.approx(2 * (0.75 * 0.375 + 0.25 * 0.625), abs=1e-3)
    assert found < 0.9


@pytest.mark.parametrize("top_k", [1, 2])
def test_to_lower_the_balance_loss_evens_the_load(top_k: int) -> None:
    layer, x = experts(4, top_k), stream(8, 32)
    with torch.no_grad():
        layer.router.weight[0] += layer.router.weight[0].sign()
        x += layer.router.weight[0]  # nearly all tokens prefer expert 0
    optimizer = torch.optim.Adam([layer.router.weight], lr=0.02)

    def loads() -> tuple[Tensor, float]:
        with record_routing(layer) as routes:
            layer(x)
        loss = load_balance_loss(routes[""])
        share = torch.bincount(routes[""].chosen.flatten(), minlength=4) / 256
        return loss, float(share.max())

    _, before = loads()
    for _ in range(100):
        optimizer.zero_grad()
        loads()[0].backward()
        optimizer.step()
    loss, after = loads()
    assert before > 0.95
    assert after < 0.25 * top_k + 0.25
    assert loss.item() < 1.1


# ------------------------------------------------------------------- in a model


def model_with(family: str = "decoder", **options: Any) -> Transformer:
    model = small_model(family, dtype=torch.float64, **options).eval()
    for stack in filter(None, (model.encoder, model.decoder)):
        for block in stack.blocks:
            block.feed_forward = Experts(model.config, 4, 2).double()
    return model


def test_a_transformer_with_experts_is_causal_and_sees_no_order() -> None:
    assert_causal(model_with(), some_tokens())
    no_order = model_with("encoder", position="none")
    assert_permutation_equivariant(no_order, torch.arange(9)[None])


def test_two_experts_of_equal_weight_are_one_network_of_twice_the_width() -> None:
    layer, x = experts(2, 2), stream()
    layer.router.weight.data.zero_()
    wide = FeedForward(small_config(d_ff=24)).double()
    first, second = layer.experts
    with torch.no_grad():
        wide.widen.weight.copy_(torch.cat((first.widen.weight, second.widen.weight)))
        wide.widen.bias.copy_(torch.cat((first.widen.bias, second.widen.bias)))
        narrow = torch.cat((first.narrow.weight, second.narrow.weight), 1) / 2
        wide.narrow.weight.copy_(narrow)
        wide.narrow.bias.copy_((first.narrow.bias + second.narrow.bias) / 2)
    assert torch.allclose(layer(x), wide(x), rtol=1e-12, atol=1e-12)


def test_recording_names_every_layer_and_keeps_gradients() -> None:
    model, tokens = model_with(), some_tokens()
    expected = model(tokens)
    with record_routing(model) as routes:
        found = model(tokens)
    assert torch.equal(found, expected)
    names = {f"decoder.blocks.{index}.feed_forward" for index in range(2)}
    assert set(routes) == names
    for routing in routes.values():
        assert routing.probability.shape == (21, 4)
        assert routing.chosen.shape == (21, 2)
        assert torch.equal(routing.chosen, routing.probability.topk(2).indices)
        assert torch.allclose(routing.probability.sum(1), torch.ones(21).double())
    sum(load_balance_loss(routing) for routing in routes.values()).backward()
    for block in model.decoder.blocks:
        assert block.feed_forward.router.weight.grad.abs().max() > 0


def test_recording_ends_with_the_block_and_after_an_error() -> None:
    model = model_with()
    with pytest.raises(ValueError, match="token id"), record_routing(model) as routes:
        model(torch.full((1, 2), 99))
    model(some_tokens())
    assert routes == {}
    layers = [part for part in model.modules() if isinstance(part, Experts)]
    assert [part.record for part in layers] == [None, None]


def test_a_layer_called_again_replaces_its_record() -> None:
    layer = experts()
    with record_routing(layer) as routes:
        layer(stream(seq=9))
        layer(stream(seq=3))
    assert routes[""].chosen.shape == (6, 2)


def test_a_model_without_experts_cannot_be_recorded() -> None:
    with (
        pytest.raises(ValueError, match="Linear has no Experts"),
        record_routing(nn.Linear(2, 2)),
    ):
        pytest.fail("the block must not be entered")
