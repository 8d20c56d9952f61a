"""Recurrent language models: causal, and the same in steps as in one pass."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_models import disturb, no_shape_checks, some_tokens
from torch import Tensor

from tfcourse.probes import assert_cache_equals_full, assert_causal
from tfcourse.variants.recurrent import LAYERS, RecurrentLM

VOCAB, WIDTH = 11, 8


def model_of(kind: str, **options: Any) -> RecurrentLM:
    made = RecurrentLM(vocab_size=VOCAB, d_model=WIDTH, kind=kind, **options)
    disturb(made)
    return made.double().eval()


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("kind", LAYERS)
def test_no_logit_depends_on_a_later_token(kind: str, num_layers: int) -> None:
    model = model_of(kind, num_layers=num_layers, dropout=0.3)
    assert assert_causal(model, some_tokens()) < 1e-12
    assert assert_causal(model.train(), some_tokens()) < 1e-12


class Memory:
    """A state that is kept between calls, as a cache is."""

    state = None


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("kind", LAYERS)
def test_steps_give_what_a_full_pass_gives(kind: str, num_layers: int) -> None:
    model = model_of(kind, num_layers=num_layers)

    def read(tokens: Tensor, memory: Memory | None) -> Tensor:
        if memory is None:
            return model(tokens)
        logits, memory.state = model.step(tokens, memory.state)
        return logits

    error = assert_cache_equals_full(read, some_tokens(), new_cache=Memory)
    assert error < 1e-12


def test_a_state_given_is_not_changed() -> None:
    model = model_of("lstm")
    _, state = model.step(some_tokens())
    kept = [part.clone() for part in state]
    model.step(some_tokens(), state)
    assert all(map(torch.equal, state, kept))


def rnn(x: Tensor, h: Tensor, w: list[Tensor]) -> Tensor:
    return torch.tanh(w[0] @ x + w[2] + w[1] @ h + w[3])


def gru(x: Tensor, h: Tensor, w: list[Tensor]) -> Tensor:
    of_x, of_h = (w[0] @ x + w[2]).chunk(3), (w[1] @ h + w[3]).chunk(3)
    reset = torch.sigmoid(of_x[0] + of_h[0])
    update = torch.sigmoid(of_x[1] + of_h[1])
    new = torch.tanh(of_x[2] + reset * of_h[2])
    return (1 - update) * new + update * h


@pytest.mark.parametrize(("kind", "cell"), [("rnn", rnn), ("gru", gru)])
def test_each_token_turns_the_state_into_the_next_by_the_equation(kind, cell) -> None:
    model, tokens = model_of(kind), some_tokens(batch=1)
    h, weights = torch.zeros(WIDTH).double(), list(model.layers.parameters())
    for token, found in zip(tokens[0], model(tokens)[0], strict=True):
        h = cell(model.embedding.weight[token], h, weights)
        assert torch.allclose(model.head(h), found, rtol=1e-12, atol=1e-12)


def test_an_lstm_keeps_a_cell_that_gates_open_and_close() -> None:
    model, tokens = model_of("lstm"), some_tokens(batch=1)
    h, c = torch.zeros(2, WIDTH).double()
    w = list(model.layers.parameters())
    for token, found in zip(tokens[0], model(tokens)[0], strict=True):
        gates = w[0] @ model.embedding.weight[token] + w[2] + w[1] @ h + w[3]
        enter, forget, new, leave = gates.chunk(4)
        c = forget.sigmoid() * c + enter.sigmoid() * new.tanh()
        h = leave.sigmoid() * c.tanh()
        assert torch.allclose(model.head(h), found, rtol=1e-12, atol=1e-12)


def test_forget_gates_start_with_the_bias_asked_for_and_others_are_left() -> None:
    """With weights of zero a gate of sigmoid(forget_bias) is what remains of a cell."""
    options = {"vocab_size": VOCAB, "d_model": WIDTH, "kind": "lstm", "num_layers": 2}
    torch.manual_seed(1)
    plain = RecurrentLM(**options).layers
    torch.manual_seed(1)
    remembering = RecurrentLM(**options, forget_bias=1.0).layers
    forget = slice(WIDTH, 2 * WIDTH)
    for layer in range(2):
        names = [f"bias_{side}_l{layer}" for side in ("ih", "hh")]
        total = sum(getattr(remembering, name)[forget] for name in names)
        assert torch.equal(total, torch.ones(WIDTH))
        for name in names:
            others = [getattr(part, name).clone() for part in (plain, remembering)]
            for other in others:
                other.data[forget] = 0
            assert torch.equal(*others)
            assert others[0].abs().max() > 0
        for side in ("ih", "hh"):
            name = f"weight_{side}_l{layer}"
            assert torch.equal(getattr(plain, name), getattr(remembering, name))


def test_dropout_acts_before_and_after_the_layers_in_training_only() -> None:
    model, tokens = model_of("gru", dropout=0.5), some_tokens()
    assert torch.equal(model(tokens), model(tokens))
    model.train()
    seen: list[Tensor] = []
    model.layers.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    model.head.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    model(tokens)
    for part in seen:
        assert 0.3 < (part == 0).double().mean() < 0.7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "qrnn"}, "kind must be one of rnn, lstm, gru, not 'qrnn'"),
        ({"kind": "gru", "forget_bias": 1.0}, "no forget_bias for 'gru'"),
    ],
)
def test_impossible_options_are_refused(options: Any, message: str) -> None:
    with no_shape_checks(), pytest.raises(ValueError, match=message):
        RecurrentLM(vocab_size=VOCAB, d_model=WIDTH, **options)


@pytest.mark.parametrize("kind", LAYERS)
def test_it_learns_to_say_again_what_it_was_told(kind: str) -> None:
    """Four tokens, a mark, and the same four: without memory the loss is log(8)."""
    model = RecurrentLM(vocab_size=9, d_model=48, kind=kind)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(250):
        said = torch.randint(8, (64, 4))
        tokens = torch.cat((said, torch.full((64, 1), 8), said), dim=1)
        logits = model(tokens[:, :-1])[:, 4:]
        loss = F.cross_entropy(logits.flatten(0, 1), said.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1.0
