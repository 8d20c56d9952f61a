"""Recurrent translators: aligned by attention, or led by the last state alone."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_models import disturb, some_tokens
from torch import Tensor

from tfcourse.probes import assert_causal, assert_padding_invariant
from tfcourse.variants.recurrent import LAYERS
from tfcourse.variants.translator import AdditiveAttention, RecurrentTranslator

VOCAB, WIDTH = 11, 8
ATTENTION = pytest.mark.parametrize("attention", [True, False])
VALID = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]).bool()
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def model_of(kind: str = "gru", **options: Any) -> RecurrentTranslator:
    made = RecurrentTranslator(vocab_size=VOCAB, d_model=WIDTH, kind=kind, **options)
    disturb(made)
    return made.double().eval()


@ATTENTION
@pytest.mark.parametrize("kind", LAYERS)
def test_no_logit_depends_on_a_later_token(kind: str, attention: bool) -> None:
    model = model_of(kind, attention=attention, dropout=0.3)
    source = some_tokens(seq=5)
    for train in (False, True):
        model.train(train)
        assert assert_causal(lambda x: model(x, source), some_tokens()) < 1e-12


@ATTENTION
@pytest.mark.parametrize("kind", LAYERS)
def test_every_source_token_is_read_by_the_first_logit(
    kind: str, attention: bool
) -> None:
    model, source = model_of(kind, attention=attention), some_tokens(1, seq=5)
    first = some_tokens(1, seq=1)
    for place in range(5):
        changed = source.clone()
        changed[0, place] = (changed[0, place] + 1) % VOCAB
        assert not torch.equal(model(first, changed), model(first, source))


@ATTENTION
@pytest.mark.parametrize("kind", LAYERS)
def test_padding_of_the_source_changes_nothing(kind: str, attention: bool) -> None:
    model, tokens = model_of(kind, attention=attention), some_tokens(1, seq=4)

    def logits(source: Tensor, valid: Tensor) -> Tensor:
        rows = tokens.expand(len(source), -1)
        return model(rows, source, source_valid=valid)

    source = some_tokens(seq=5)
    for pad in (None, 0):
        error = assert_padding_invariant(
            logits, source, pad=pad, per_token=False, atol=1e-12, rtol=0
        )
        assert error < 1e-12


@pytest.mark.parametrize("kind", LAYERS)
def test_alignments_sum_to_one_over_real_tokens(kind: str) -> None:
    model = model_of(kind)
    tokens, source = some_tokens(), some_tokens(seq=5)
    weights = model.alignment(tokens, source, source_valid=VALID)
    assert weights.shape == (3, 7, 5)
    assert torch.allclose(weights.sum(-1), torch.ones(3, 7).double(), **EXACT)
    hidden = ~VALID[:, None].expand(3, 7, 5)
    assert weights[hidden].abs().max() == 0
    assert weights[~hidden].min() > 0
    everywhere = model.alignment(tokens, source)
    assert everywhere.min() > 0
    assert torch.allclose(everywhere[0], weights[0], **EXACT)


def test_a_model_without_attention_aligns_nothing() -> None:
    with pytest.raises(ValueError, match="attention=False"):
        model_of(attention=False).alignment(some_tokens(), some_tokens())


def test_the_weights_are_those_computed_by_hand() -> None:
    """Scores vᵀ tanh(W s + U h) with W = 1, U = 2 and v = 3, in one dimension."""
    layer = AdditiveAttention(1).double()
    for part, weight in ((layer.of_state, 1), (layer.of_memory, 2), (layer.score, 3)):
        torch.nn.init.constant_(part.weight, weight)
    state, memory = torch.tensor([[0.5]]), torch.tensor([[[0.1], [-0.7], [0.4]]])
    odds = [math.exp(3 * math.tanh(0.5 + 2 * h)) for h in (0.1, -0.7)]
    expected = torch.tensor([*(part / sum(odds) for part in odds), 0.0]).double()
    valid = torch.tensor([[True, True, False]])
    found = layer(state.double(), memory.double(), valid)[0]
    assert torch.allclose(found, expected, rtol=1e-6)


def gru_step(x: Tensor, h: Tensor, layer: torch.nn.GRU, suffix: str = "l0") -> Tensor:
    w = {name: getattr(layer, f"{name}_{suffix}") for name in NAMES}
    of_x = (w["weight_ih"] @ x + w["bias_ih"]).chunk(3)
    of_h = (w["weight_hh"] @ h + w["bias_hh"]).chunk(3)
    reset, update = (of_x[0] + of_h[0]).sigmoid(), (of_x[1] + of_h[1]).sigmoid()
    new = (of_x[2] + reset * of_h[2]).tanh()
    return (1 - update) * new + update * h


NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def encoded_by_hand(
    model: RecurrentTranslator, source: list[int]
) -> tuple[Tensor, Tensor]:
    """Return [source, d_model] outputs of both directions, and their joined ends."""
    sides = []
    for suffix, order in (("l0", source), ("l0_reverse", source[::-1])):
        h, states = torch.zeros(WIDTH // 2).double(), []
        for token in order:
            x = model.embedding.weight[token]
            h = gru_step(x, h, model.encoder, suffix)
            states.append(h)
        sides.append(states)
    ends = torch.cat((sides[0][-1], sides[1][-1]))
    both = [torch.stack(sides[0]), torch.stack(sides[1][::-1])]
    return torch.cat(both, dim=1), ends


def test_the_state_before_a_token_chooses_what_goes_into_it() -> None:
    """Bahdanau et al., section 3.1: c from the last s; s from the last s, y and c."""
    model, tokens, source = model_of(), some_tokens(1, 4), some_tokens(1, 5)
    memory, s = encoded_by_hand(model, source[0].tolist())
    attention = model.attention
    for token, found in zip(tokens[0], model(tokens, source)[0], strict=True):
        score = torch.stack(
            [
                attention.score.weight[0]
                @ torch.tanh(
                    attention.of_state.weight @ s + attention.of_memory.weight @ h
                )
                for h in memory
            ]
        )
        context = score.softmax(0) @ memory
        x = torch.cat((model.embedding.weight[token], context))
        s = gru_step(x, s, model.decoder)
        expected = model.head(torch.cat((s, context)))
        assert torch.allclose(found, expected, **EXACT)


def test_without_attention_the_last_state_is_all_that_is_passed_on() -> None:
    model = model_of(attention=False)
    tokens, source = some_tokens(1, 4), some_tokens(1, 5)
    _, s = encoded_by_hand(model, source[0].tolist())
    for token, found in zip(tokens[0], model(tokens, source)[0], strict=True):
        s = gru_step(model.embedding.weight[token], s, model.decoder)
        assert torch.allclose(found, model.head(s), **EXACT)


@ATTENTION
def test_an_lstm_passes_on_its_cell_as_well(attention: bool) -> None:
    model, tokens = model_of("lstm", attention=attention), some_tokens()
    source = some_tokens(seq=5)
    given: list[tuple[Tensor, Tensor]] = []
    model.decoder.register_forward_pre_hook(lambda module, args: given.append(args[1]))
    model(tokens, source)
    _, (hidden, cell) = model.encoder(model.embedding(source))
    for found, ends in zip(given[0], (hidden, cell), strict=True):
        assert torch.allclose(found[0], torch.cat((ends[0], ends[1]), 1), **EXACT)


def test_an_lstm_asks_attention_with_its_hidden_state() -> None:
    model, asked, said = model_of("lstm"), [], []
    model.attention.register_forward_pre_hook(lambda m, args: asked.append(args[0]))
    model.decoder.register_forward_hook(lambda m, a, out: said.append(out[0][:, 0]))
    model(some_tokens(), some_tokens(seq=5))
    assert len(asked) == len(said) == 7
    assert all(map(torch.equal, asked[1:], said[:-1]))


@ATTENTION
def test_dropout_acts_before_and_after_both_sides_in_training_only(
    attention: bool,
) -> None:
    model = model_of(dropout=0.5, attention=attention)
    tokens, source = some_tokens(), some_tokens(seq=5)
    assert torch.equal(model(tokens, source), model(tokens, source))
    seen: list[Tensor] = []
    model.train().encoder.register_forward_hook(
        lambda m, args, out: seen.append(args[0].data)
    )
    for part in (model.decoder, model.head):
        part.register_forward_hook(
            lambda m, args, out: seen.append(args[0][..., :WIDTH])
        )
    model(tokens, source)
    assert len(seen) == (1 + 7 + 1 if attention else 3)
    for part in seen:
        assert 0.2 < (part == 0).double().mean() < 0.8


@pytest.mark.parametrize(
    "valid",
    [
        [[False, True, True], [True, True, True]],
        [[True, False, True], [True, True, True]],
        [[False, False, False], [True, True, True]],
    ],
    ids=["left", "within", "all"],
)
@ATTENTION
def test_padding_that_is_not_at_the_end_is_refused(
    attention: bool, valid: list[list[bool]]
) -> None:
    model, source = model_of(attention=attention), some_tokens(2, 3)
    with pytest.raises(ValueError, match="first tokens of each row"):
        model(some_tokens(2, 3), source, source_valid=torch.tensor(valid))


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match="d_model=7 must be even"):
        RecurrentTranslator(vocab_size=VOCAB, d_model=7)
    with pytest.raises(ValueError, match="no forget_bias for 'gru'"):
        RecurrentTranslator(vocab_size=VOCAB, d_model=8, kind="gru", forget_bias=1.0)


def test_forget_gates_of_both_sides_start_with_the_bias() -> None:
    model = RecurrentTranslator(
        vocab_size=VOCAB, d_model=WIDTH, kind="lstm", forget_bias=2.0
    )
    biases = 0
    for layers, width in ((model.encoder, WIDTH // 2), (model.decoder, WIDTH)):
        for name, bias in layers.named_parameters():
            if name.startswith("bias_ih"):
                other = getattr(layers, name.replace("ih", "hh"))
                total = (bias + other)[width : 2 * width]
                assert torch.equal(total, torch.full((width,), 2.0))
                biases += 1
    assert biases == 3


def copied(kind: str, **options: Any) -> float:
    """Train to copy four of eight symbols; return the last loss, log(8) = 2.1 first."""
    model = RecurrentTranslator(vocab_size=9, d_model=32, kind=kind, **options)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        source = torch.randint(8, (64, 4))
        tokens = F.pad(source[:, :-1], (1, 0), value=8)
        logits = model(tokens, source)
        loss = F.cross_entropy(logits.flatten(0, 1), source.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_with_attention_it_learns_to_copy(kind: str) -> None:
    assert copied(kind) < 0.5
