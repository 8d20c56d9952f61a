"""The planted bug does what it says, is named by a probe, and leaves no trace."""

import pytest
import torch

from tfcourse.course.broken_recurrent import state_kept_between_calls
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
