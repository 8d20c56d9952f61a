"""The planted bug does what it says, is named by a probe, and leaves no trace."""

import pytest
import torch

from tfcourse.course.broken_recurrent import gradient_cut, state_kept_between_calls
from tfcourse.probes import assert_deterministic
from tfcourse.variants.recurrent import Kind, RecurrentLM

TOKENS = torch.tensor([[3, 1, 4, 1, 5]])


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_an_answer_depends_on_what_was_read_before(kind: Kind) -> None:
    model = RecurrentLM(vocab_size=9, d_model=8, kind=kind).eval()
    healthy = model(TOKENS)
    with state_kept_between_calls(model):
        torch.testing.assert_close(model(TOKENS), healthy)  # the first call is right
        following = model(TOKENS)
        expected = model.step(torch.cat((TOKENS, TOKENS), 1), _new(model))[0]
    torch.testing.assert_close(following, expected[:, 5:])
    assert (following - healthy).abs().max() > 1e-3
    assert torch.equal(model(TOKENS), healthy)


def _new(model: RecurrentLM) -> object:
    state = torch.zeros(1, 1, 8)
    return (state, state) if isinstance(model.layers, torch.nn.LSTM) else state


def test_the_probe_for_determinism_names_it() -> None:
    model = RecurrentLM(vocab_size=9, d_model=8, kind="gru").eval()
    assert assert_deterministic(model, TOKENS) == 0
    with (
        state_kept_between_calls(model),
        pytest.raises(AssertionError, match="when the same inputs were read again"),
    ):
        assert_deterministic(model, TOKENS)


def test_a_state_that_is_given_counts() -> None:
    model = RecurrentLM(vocab_size=9, d_model=8, kind="gru").eval()
    _, state = model.step(TOKENS)
    healthy = model.step(TOKENS, state)[0]
    with state_kept_between_calls(model):
        model(TOKENS.flip(1))
        assert torch.equal(model.step(TOKENS, state)[0], healthy)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_a_cut_gradient_shows_in_no_output(kind: Kind) -> None:
    model = RecurrentLM(vocab_size=9, d_model=8, kind=kind).eval()
    healthy, state = model.step(TOKENS)
    with gradient_cut(model, every=2):
        cut, last = model.step(TOKENS)
    torch.testing.assert_close(cut, healthy)
    torch.testing.assert_close(last, state)


def test_tokens_before_the_cut_get_no_gradient_at_all() -> None:
    model = RecurrentLM(vocab_size=9, d_model=8, kind="gru")
    reacts = _tokens_with_gradient(model)
    with gradient_cut(model, every=2):  # 3 1 | 4 1 | 5
        assert _tokens_with_gradient(model) == [5]
    with gradient_cut(model, every=3):  # 3 1 4 | 1 5
        assert _tokens_with_gradient(model) == [1, 5]
    assert reacts == _tokens_with_gradient(model) == [1, 3, 4, 5]


def _tokens_with_gradient(model: RecurrentLM) -> list[int]:
    model.zero_grad()
    model(TOKENS)[0, -1].logsumexp(0).backward()
    gradient = model.embedding.weight.grad
    assert gradient is not None
    return [int(token) for token in gradient.norm(dim=-1).nonzero()]


def test_pieces_of_no_length_are_refused() -> None:
    model = RecurrentLM(vocab_size=9, d_model=8)
    with pytest.raises(ValueError, match="every must be at least 1, not 0"):
        gradient_cut(model, every=0).__enter__()
