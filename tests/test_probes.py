"""Probes pass on what is right, torch's and ours, and name what is wrong in mutants."""

from collections.abc import Callable
from itertools import cycle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_models import EverythingOn, no_shape_checks, small_model, some_tokens
from torch import Tensor, nn

from tfcourse.model.attention import record_attention
from tfcourse.model.masks import padding, same_document
from tfcourse.probes import (
    assert_accumulation_equals_batch,
    assert_cache_equals_full,
    assert_causal,
    assert_deterministic,
    assert_documents_apart,
    assert_matches_reference,
    assert_order_seen,
    assert_padding_invariant,
    assert_permutation_equivariant,
    assert_rows_independent,
    assert_targets_shifted,
    assert_tied,
    assert_weights_are_distributions,
)
from tfcourse.training.losses import token_loss

torch.manual_seed(0)  # for the layers that are made on import
WIDTH = 8
X = torch.randn(3, 6, WIDTH, generator=torch.Generator().manual_seed(0))
ALLOWED = torch.ones(6, 6, dtype=torch.bool).tril()


def attend(x: Tensor, mask: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x, attn_mask=mask)


def torch_encoder(**options: Any) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()


def running_sum(tokens: Tensor) -> Tensor:
    return tokens[..., None].cumsum(1).float()


def first(output: Any) -> Tensor:
    """Return the outputs of a recurrent layer without its state."""
    return output[0]


def fails(
    probe: Callable[..., float], message: str, *args: Any, **options: Any
) -> None:
    with pytest.raises(AssertionError, match=message or None):
        probe(*args, **options)


# ------------------------------------------------------------------------ causality


@pytest.mark.parametrize("train", [False, True])
def test_causal_models_pass(train: bool) -> None:
    encoder, dropped = torch_encoder(dropout=0.3).train(train), ~ALLOWED
    lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True, dropout=0.3, num_layers=2)
    lstm.train(train)
    ours = small_model(train=train, dropout=0.3)
    assert assert_causal(lambda x: encoder(x, mask=dropped), X) < 1e-6
    assert assert_causal(lambda x: first(lstm(x)), X) < 1e-6
    assert assert_causal(ours, some_tokens()) < 1e-6


CAUSAL_MUTANTS = {
    "no mask": attend,
    "mask inverted": lambda x: attend(x, ~ALLOWED),
    "mask one too wide": lambda x: attend(x, ALLOWED.roll(1, 1) | ALLOWED),
    "mask after the softmax": lambda x: ((x @ x.mT).softmax(-1) * ALLOWED) @ x,
    "softmax over the queries": lambda x: (
        (x @ x.mT).masked_fill(~ALLOWED, -torch.inf).softmax(-2) @ x
    ),
    "shifted the wrong way": lambda x: x.roll(-1, dims=1),
    "a window around the middle": nn.Sequential(
        nn.Flatten(2), nn.Conv1d(6, 6, 1), nn.Tanh()
    ),
    "both directions": lambda x: first(both_directions(x)),
}
both_directions = nn.GRU(WIDTH, WIDTH, batch_first=True, bidirectional=True)


@pytest.mark.parametrize("fault", CAUSAL_MUTANTS)
def test_what_looks_ahead_is_caught(fault: str) -> None:
    fails(assert_causal, "the model looks ahead", CAUSAL_MUTANTS[fault], X)


def test_a_decoder_that_is_causal_in_training_only_is_caught() -> None:
    encoder = torch_encoder()

    def model(x: Tensor) -> Tensor:
        return encoder(x, mask=~ALLOWED if encoder.training else None)

    encoder.train()
    assert_causal(model, X)
    encoder.eval()
    fails(assert_causal, "looks ahead", model, X)


def test_the_message_names_output_token_and_size() -> None:
    def leak(x: Tensor) -> Tensor:
        return x + F.one_hot(torch.tensor(3), 6)[:, None] * x[:, 5:]

    x = torch.zeros(1, 6, 2)
    x[0, 5] = 0.25  # changed to 1 - 2 · 0.25
    message = "output 3 changed by 0.25 when token 5 was changed: the model looks ahead"
    fails(assert_causal, f"^{message}$", leak, x)


def test_the_worst_output_is_named() -> None:
    weight = torch.tensor([0, 1.0, 3.0, 2.0, 1.0, 1.0])[:, None]
    fails(assert_causal, "output 2 .* token 4", lambda x: x + weight * x[:, 4:5], X)


def test_a_model_that_reads_nothing_is_not_called_causal() -> None:
    fails(
        assert_causal, "no output changed when token 0 was changed", lambda x: 0 * x, X
    )
    blind = torch.tensor([1, 1, 0, 1, 1, 1])[:, None]
    fails(assert_causal, "token 2 .* does not read", lambda x: x * blind, X)


def test_token_ids_are_changed_to_others_of_the_inputs() -> None:
    seen = []

    def model(tokens: Tensor) -> Tensor:
        seen.append(tokens)
        return running_sum(tokens)

    assert_causal(model, torch.tensor([[4, 900, 4, 31]]))
    assert torch.cat(seen).unique().tolist() == [4, 31, 900]
    assert len({tuple(tokens[0].tolist()) for tokens in seen}) == 5


def test_the_random_state_is_left_alone() -> None:
    state = torch.random.get_rng_state()
    assert_causal(lambda x: F.dropout(x, 0.1), X)
    assert torch.equal(torch.random.get_rng_state(), state)


# -------------------------------------------------------------------------- padding


def masked(x: Tensor, valid: Tensor) -> Tensor:
    return attend(x, valid[:, None])


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    return (x * valid[..., None]).sum(1) / valid.sum(1, keepdim=True)


def torch_padded(x: Tensor, valid: Tensor) -> Tensor:
    return ENCODER(x, src_key_padding_mask=~valid)


ENCODER = torch_encoder()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pad", [None, 0])
def test_models_that_ignore_padding_pass(side: str, pad: int | None) -> None:
    options = {"side": side, "pad": pad}
    model = small_model("encoder", position="none")
    assert assert_padding_invariant(torch_padded, X, **options) < 1e-5
    assert assert_padding_invariant(masked, X, **options) < 1e-6
    assert_padding_invariant(masked_mean, X, per_token=False, **options)
    assert_padding_invariant(
        lambda tokens, valid: model(tokens, mask=padding(valid)),
        some_tokens(),
        **options,
    )


def counted_from_the_left(x: Tensor, valid: Tensor) -> Tensor:
    return masked(x + 0.1 * torch.arange(x.shape[1])[:, None], valid)


@pytest.mark.parametrize(
    ("model", "sides"),
    [
        (lambda x, valid: attend(x), ("right", "left")),
        (lambda x, valid: attend(x, ~valid[:, None]), ("right", "left")),
        (lambda x, valid: masked(x, valid[:1]), ("right", "left")),
        (lambda x, valid: x - masked_mean(x, valid).mean(0), ("right", "left")),
        (counted_from_the_left, ("left",)),
        (lambda x, valid: x.cumsum(1), ("left",)),
    ],
    ids=["none", "inverted", "first row's", "across rows", "positions", "recurrent"],
)
def test_what_reads_padding_is_caught(model: Any, sides: tuple[str, ...]) -> None:
    for side in ("right", "left"):
        if side in sides:
            fails(assert_padding_invariant, "is attended to", model, X, side=side)
        else:
            assert_padding_invariant(model, X, side=side)


def test_a_pooled_output_that_counts_padding_is_caught() -> None:
    def mean(x: Tensor, valid: Tensor) -> Tensor:
        return x.mean(1)

    fails(assert_padding_invariant, "row 0", mean, X, per_token=False)


def test_the_message_names_row_output_and_padding() -> None:
    def leak(x: Tensor, valid: Tensor) -> Tensor:
        return x + 0.25 * (~valid).sum(1)[:, None, None] * (x == 4)

    x = torch.arange(18.0).view(3, 6, 1)
    message = (
        "output 4 of row 0 changed by 0.25 when the row was padded with 1 "
        r"token\(s\) on the right: padding is attended to"
    )
    fails(assert_padding_invariant, f"^{message}$", leak, x)
    message = (
        r"output 3 of row 0 .* 1 token\(s\) on the left: padding is attended to, or "
        "positions count it"
    )
    fails(assert_padding_invariant, f"^{message}$", leak, x, side="left")


def test_rows_are_padded_by_different_amounts_and_filled_if_asked() -> None:
    seen = []

    def model(tokens: Tensor, valid: Tensor) -> Tensor:
        seen.append((tokens, valid))
        return tokens.float()[..., None]

    tokens = torch.arange(12).view(4, 3) + 1
    assert_padding_invariant(model, tokens, side="left", pad=0)
    filled, valid = seen[0]
    assert filled.tolist() == [[0, 2, 3], [0, 0, 6], [0, 8, 9], [0, 0, 12]]
    assert torch.equal(valid, filled > 0)
    assert [alone.tolist() for alone, _ in seen[2:]] == [
        [[2, 3]],
        [[6]],
        [[8, 9]],
        [[12]],
    ]
    assert all(bool(valid.all()) for _, valid in seen[2:])


# ------------------------------------------------------------------------------ order


def test_models_without_positions_pass() -> None:
    assert assert_permutation_equivariant(torch_encoder(), X) < 1e-5
    assert assert_permutation_equivariant(attend, X) < 1e-6
    model = small_model("encoder", position="none")
    assert assert_permutation_equivariant(model, some_tokens()) < 1e-5


ORDER_MUTANTS = {
    "causal": lambda x: attend(x, ALLOWED),
    "recurrent": lambda x: first(both_directions(x)),
    "positions": lambda x: attend(x + torch.arange(6)[:, None]),
    "neighbours": lambda x: x + x.roll(1, dims=1),
    "mirror": lambda x: x + x.flip(1),
    "the last place": lambda x: torch.cat((x[:, :-1], 2 * x[:, -1:]), dim=1),
}


@pytest.mark.parametrize("fault", ORDER_MUTANTS)
def test_what_sees_the_order_is_caught(fault: str) -> None:
    fails(assert_permutation_equivariant, "sees the order", ORDER_MUTANTS[fault], X)


def test_the_message_names_the_order_place_and_size() -> None:
    def model(x: Tensor) -> Tensor:
        return x + torch.tensor([0, 0, 0.5])[:, None]

    x = torch.tensor([[[1.0], [2.0], [4.0]]])
    message = (
        r"put in the order \[[012], [012], [012]\], and the output of the one now at "
        "place [012] changed by 0.5: the model sees the order"
    )
    fails(assert_permutation_equivariant, message, model, x)


# ------------------------------------------------------------------------------ cache


def reader(fault: str = "") -> Callable[[Tensor, list[Tensor] | None], Tensor]:
    """Return causal attention with a cache: a list of the vectors read so far."""

    def model(x: Tensor, cache: list[Tensor] | None) -> Tensor:
        past = cache or []
        start = 0 if fault == "position" else sum(part.shape[1] for part in past)
        x = x + 0.1 * (start + torch.arange(x.shape[1]))[:, None]
        seen = torch.cat([*past, x], dim=1)
        offset = seen.shape[1] - x.shape[1]
        if fault == "mask" and x.shape[1] > 1:
            offset = 0
        mask = torch.ones(x.shape[1], seen.shape[1], dtype=torch.bool).tril(offset)
        out = F.scaled_dot_product_attention(x, seen, seen, attn_mask=mask)
        if fault == "empty" and cache == []:
            out = out + 1
        if cache is not None:
            cache.append(x[:, :1] if fault == "keys" else x)
        return out

    return model


def test_caches_that_change_nothing_pass() -> None:
    assert assert_cache_equals_full(reader(), X, new_cache=list) < 1e-6
    ours = small_model()
    run = lambda tokens, cache: ours(tokens, cache=cache)  # noqa: E731
    assert assert_cache_equals_full(run, some_tokens()) < 1e-5


def test_the_pieces_are_single_tokens_a_prompt_and_chunks() -> None:
    sizes: list[int] = []

    def model(x: Tensor, cache: list[Tensor] | None) -> Tensor:
        if cache is not None:
            sizes.append(x.shape[1])
        return reader()(x, cache)

    assert_cache_equals_full(model, X[:, :5], new_cache=list)
    assert sizes == [*[1, 1, 1, 1, 1], *[2, 1, 1, 1], *[2, 2, 1]]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "position",
            r"^with 1 token\(s\) read after 1 in a cache, output 1 is [0-9.e-]+ away "
            "from the full pass: keys or values are lost, or positions start again$",
        ),
        ("keys", r"1 token\(s\) read after 3 in a cache, output 3 .* are lost"),
        (
            "mask",
            r"2 token\(s\) read after 2 in a cache, output [23] .* mask .* forget",
        ),
        ("empty", r"1 token\(s\) read after 0 in a cache, output 0 .* an empty cache"),
    ],
)
def test_caches_that_change_something_are_caught(fault: str, message: str) -> None:
    fails(assert_cache_equals_full, message, reader(fault), X, new_cache=list)


def test_positions_that_start_again_at_each_step_are_caught() -> None:
    model = small_model(position="rotary")

    def run(tokens: Tensor, cache: Any) -> Tensor:
        place = torch.arange(tokens.shape[1]).expand_as(tokens)
        return model(tokens, cache=cache, position=place)

    fails(assert_cache_equals_full, "positions start again", run, some_tokens())


# -------------------------------------------------------------------------- reference


def test_equal_functions_pass_whatever_they_return() -> None:
    query, key, value = torch.randn(3, 2, 4, 6, WIDTH)

    def by_hand(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return (query @ key.mT * WIDTH**-0.5).softmax(-1) @ value

    torchs = F.scaled_dot_product_attention
    assert assert_matches_reference(by_hand, torchs, query, key, value) < 1e-6
    logits = torch.tensor([1.0, -torch.inf, torch.inf])
    assert assert_matches_reference(lambda: logits, logits.clone) == 0
    assert assert_matches_reference(lambda: X.argmax(-1), lambda: X.argmax(-1)) == 0


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: x.mT, r"shape is \(3, 8, 6\), the reference's \(3, 6, 8\)"),
        (lambda x: x[:1], r"shape is \(1, 6, 8\), the reference's \(3, 6, 8\)"),
        (
            lambda x: x * WIDTH**0.5,
            r"144 of 144 elements .*; all are 2\.828 times .*: is a scale missing\?$",
        ),
        (lambda x: -x, "all are -1 times the reference's"),
        (lambda x: x + 1, r"144 of 144 elements differ.* and not [0-9.-]+$"),
        (lambda x: x.where(x < x.max(), torch.nan), "1 of 144 .* is nan and not"),
        (lambda x: x.where(x < x.max(), torch.inf), "1 of 144 .* is inf and not"),
    ],
)
def test_what_differs_from_the_reference_is_said(model: Any, message: str) -> None:
    fails(assert_matches_reference, message, model, lambda x: x.clone(), X)


def test_the_worst_element_is_named() -> None:
    found = X.clone()
    found[1, 2, 3], found[0, 0, 0] = 7.0, X[0, 0, 0] + 0.1
    message = rf"^2 of 144 .* worst, \(1, 2, 3\), is 7 and not {X[1, 2, 3]:.4g}$"
    fails(assert_matches_reference, message, lambda: found, lambda: X)


# ------------------------------------------------------- the same again, rows, packing


def test_models_in_eval_mode_are_deterministic() -> None:
    assert assert_deterministic(torch_encoder(dropout=0.5), X) == 0
    assert assert_deterministic(small_model(dropout=0.5), some_tokens()) == 0


def test_dropout_that_is_left_on_is_caught() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.cat((x[:, :5], F.dropout(x[:, 5:], 0.5)), dim=1)

    fails(
        assert_deterministic, "^output 5 .* read again: is dropout still on", model, X
    )
    fails(assert_deterministic, "dropout", torch_encoder(dropout=0.5).train(), X)
    fails(assert_deterministic, "", small_model(dropout=0.5, train=True), some_tokens())


def test_rows_of_usual_models_are_independent() -> None:
    assert assert_rows_independent(torch_encoder(), X) < 1e-5
    assert assert_rows_independent(small_model(), some_tokens()) < 1e-5
    batch_norm = nn.BatchNorm1d(6).eval()
    assert assert_rows_independent(batch_norm, X) == 0


def along_batch(x: Tensor) -> Tensor:
    return x + torch.arange(len(x))[:, None, None]


ROW_MUTANTS = {
    "positions along the batch": along_batch,
    "batch statistics": lambda x: nn.BatchNorm1d(6)(x),
    "attention over the batch": lambda x: attend(x.transpose(0, 1)).transpose(0, 1),
    "a token of the next row": lambda x: x + F.pad(x[:, :1].roll(1, 0), (0, 0, 0, 5)),
}


@pytest.mark.parametrize("fault", ROW_MUTANTS)
def test_rows_that_see_each_other_are_caught(fault: str) -> None:
    message = r"^output [0-5] of row [0-2] changed by .* alone: it sees other rows"
    fails(assert_rows_independent, message, ROW_MUTANTS[fault], X)


def test_the_row_and_the_size_are_named() -> None:
    message = r"output 0 of row 1 changed by 1 when the row was read alone"
    fails(assert_rows_independent, message, along_batch, torch.eye(3)[:, :, None])


def test_one_row_or_equal_rows_show_nothing() -> None:
    for x in (X[:1], X[:1].expand(3, -1, -1)):
        with pytest.raises(ValueError, match="two or more that differ"):
            assert_rows_independent(attend, x)


DOCUMENT = torch.tensor([[0, 0, 0, 1, 1, 1], [4, 4, 7, 7, 7, 7], [0, 1, 1, 1, 2, 2]])


def apart(document: Tensor) -> Tensor:
    return document[:, :, None] == document[:, None]


def place_in(document: Tensor) -> Tensor:
    return apart(document).tril().sum(-1) - 1


def packed(x: Tensor, document: Tensor) -> Tensor:
    return attend(x + place_in(document)[..., None], apart(document) & causal_of(x))


def causal_of(x: Tensor) -> Tensor:
    return ALLOWED[: x.shape[1], : x.shape[1]]


def test_packed_documents_that_are_kept_apart_pass() -> None:
    encoder, ours = torch_encoder(), small_model()
    assert assert_documents_apart(packed, X, DOCUMENT) < 1e-6
    assert (
        assert_documents_apart(
            lambda x, number: encoder(x, (~apart(number)).repeat_interleave(2, 0)),
            X,
            DOCUMENT,
        )
        < 1e-5
    )
    assert (
        assert_documents_apart(
            lambda ids, number: ours(
                ids, mask=same_document(number), position=place_in(number)
            ),
            some_tokens(3, 6),
            DOCUMENT,
        )
        < 1e-5
    )


@pytest.mark.parametrize(
    "model",
    [
        lambda x, number: attend(x, causal_of(x)),
        lambda x, number: attend(x + torch.arange(x.shape[1])[:, None], apart(number)),
        lambda x, number: attend(x, apart(number[:1])),
        lambda x, number: x.cumsum(1),
    ],
    ids=["no mask", "positions go on", "first row's", "state is carried"],
)
def test_documents_that_see_each_other_are_caught(model: Any) -> None:
    message = r"^output \d of document \d in row \d changed by .* packed with others"
    fails(assert_documents_apart, message, model, X, DOCUMENT)


def test_the_document_and_the_row_are_named() -> None:
    def model(x: Tensor, number: Tensor) -> Tensor:
        return x + 0.5 * (number == 7) * (number == 4).any(1, keepdim=True)

    x = torch.arange(18.0).view(3, 6)
    message = r"output \d of document 7 in row 1 changed by 0.5 when"
    fails(assert_documents_apart, message, model, x, DOCUMENT)


@pytest.mark.parametrize("document", [DOCUMENT[:, :5], torch.zeros_like(DOCUMENT)])
def test_documents_that_are_none_are_refused(document: Tensor) -> None:
    with no_shape_checks(), pytest.raises(ValueError, match="two or more in one"):
        assert_documents_apart(packed, X, document)


@pytest.mark.parametrize("fault", ORDER_MUTANTS)
def test_models_that_see_the_order_pass(fault: str) -> None:
    assert assert_order_seen(ORDER_MUTANTS[fault], X) > 1e-3


def test_our_models_with_positions_see_the_order() -> None:
    for position in ("sinusoidal", "rotary", "relative"):
        model = small_model("encoder", position=position)
        assert assert_order_seen(model, some_tokens()) > 1e-3


@pytest.mark.parametrize("model", [attend, torch_encoder(), lambda x: x.square()])
def test_what_does_not_see_the_order_is_caught(model: Any) -> None:
    message = r"order \[\d(, \d)+\], .* moved with them, .* does not see the order"
    fails(assert_order_seen, message, model, X)


def test_how_much_the_order_has_to_change_is_the_callers() -> None:
    def faint(x: Tensor) -> Tensor:
        return x + 1e-4 * torch.arange(6)[:, None]

    fails(assert_order_seen, "does not see the order", faint, X)
    assert 1e-5 < assert_order_seen(faint, X, least=1e-5) < 1e-3


# ---------------------------------------------------------------- head and embedding


class Bag(nn.Module):
    """The running mean of embeddings, and a head."""

    def __init__(self, head: str = "tied") -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, WIDTH)
        self.own = nn.Linear(WIDTH, 11)
        self.bias = nn.Parameter(torch.randn(11))
        if head == "copied":
            self.own.weight = nn.Parameter(self.embedding.weight.detach().clone())
        elif head == "tied":
            self.own.weight = self.embedding.weight
        self.mixed = head == "mixed"

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens).cumsum(1).tanh()
        logits = self.own(hidden)
        if self.mixed:
            logits = logits + hidden @ self.embedding.weight.T
        return logits + self.bias


TEN = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])  # 0, 7, 10 are left out


def test_tied_heads_pass_with_a_bias_or_without() -> None:
    torchs = Bag()
    before = torchs.embedding.weight.clone()
    assert assert_tied(torchs, torchs.embedding.weight, TEN) < 1e-5
    assert torch.equal(torchs.embedding.weight, before)
    for options in ({}, {"head_bias": True, "scale_logits": True}):
        ours = small_model(**options)
        assert assert_tied(ours, ours.embedding.weight, TEN) < 1e-5


@pytest.mark.parametrize("head", ["copied", "own"])
def test_a_head_of_its_own_is_caught(head: str) -> None:
    model = Bag(head)
    message = "^no logit changed when token 0, .* of 3: the head is not tied$"
    fails(assert_tied, message, model, model.embedding.weight, TEN)


def test_a_head_with_more_than_the_embedding_is_caught() -> None:
    model = Bag("mixed")
    message = "a logit at place [0-5] was .* from that of 3: the head has more"
    fails(assert_tied, message, model, model.embedding.weight, TEN)


def test_the_logits_of_other_tokens_must_stay() -> None:
    model = Bag()

    def normed(tokens: Tensor) -> Tensor:
        return model(tokens).log_softmax(-1)

    fails(assert_tied, "a logit at place", normed, model.embedding.weight, TEN)


def test_the_embedding_is_put_back_after_an_error() -> None:
    weight = torch.randn(11, WIDTH)
    before, calls = weight.clone(), []

    def model(tokens: Tensor) -> Tensor:
        calls.append(tokens)
        if len(calls) == 3:
            raise KeyError
        return weight[tokens] @ weight.T

    with pytest.raises(KeyError):
        assert_tied(model, weight, TEN)
    assert torch.equal(weight, before)


def test_a_token_must_be_left_out() -> None:
    model = Bag()
    with pytest.raises(ValueError, match="one left out"):
        assert_tied(model, model.embedding.weight, torch.arange(11)[None])


# ---------------------------------------------------------------------------- weights

MASKED = ALLOWED.clone()
MASKED[0] = False  # the first query may attend to nothing
SCORES = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(1))
WEIGHTS = SCORES.masked_fill(~MASKED, -torch.inf).softmax(-1).nan_to_num()


def test_weights_of_torch_and_ours_are_distributions() -> None:
    assert assert_weights_are_distributions(SCORES.softmax(-1)) < 1e-6
    assert assert_weights_are_distributions(WEIGHTS, MASKED) < 1e-6
    layer = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
    _, weights = layer(X, X, X, attn_mask=~ALLOWED, average_attn_weights=False)
    assert assert_weights_are_distributions(weights.detach(), ALLOWED) < 1e-6
    valid = torch.ones(3, 7, dtype=torch.bool)
    valid[0, :2] = False
    ours, allowed = small_model(), torch.ones(7, 7, dtype=torch.bool).tril()
    with torch.no_grad(), record_attention(ours) as recorded:
        ours(some_tokens(), mask=padding(valid))
    for weights in recorded.values():
        allowed_here = allowed & valid[:, None, None]
        assert assert_weights_are_distributions(weights, allowed_here) < 1e-6


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            SCORES.softmax(-1) * MASKED,
            "^the weights of query 1 .* is .* off: were they",
        ),
        (SCORES.softmax(-2), "gives weight to key [1-5], which is masked"),
        (SCORES.softmax(-2) * MASKED, "query [1-5] have a sum that is .* off"),
        (
            SCORES.softmax(-1),
            "^query [0-4] gives weight to key [0-5], which is masked: 0.",
        ),
        (WEIGHTS * 1.01, "sum that is 0.01 off"),
        (2 * WEIGHTS - WEIGHTS.flip(-1).tril() * MASKED, "query .* below 0, by 0"),
        (WEIGHTS + 1 / 6, "masked"),
        (WEIGHTS.masked_fill(MASKED & ~MASKED.roll(1, 0), torch.nan), r"\(nan\)"),
    ],
    ids=[
        "masked after the softmax",
        "over the queries",
        "over the queries, masked",
        "not masked",
        "too much",
        "negative",
        "a row that should be zero",
        "nan",
    ],
)
def test_weights_that_are_no_distributions_are_caught(
    weights: Tensor, message: str
) -> None:
    fails(assert_weights_are_distributions, message, weights, MASKED)


def test_weights_without_a_mask_must_sum_to_one() -> None:
    fails(assert_weights_are_distributions, "query 0 .* sum that is 1 off", WEIGHTS)
    assert assert_weights_are_distributions(WEIGHTS, atol=1.0) == 1.0


# ------------------------------------------------------------------- targets and loss

WORDS = torch.tensor([[1, 5, 6, 7, 8], [1, 9, 4, 0, 0]])
NEXT = torch.tensor([[5, 6, 7, 8, 2], [9, 4, 2, -100, -100]])


def test_shifted_targets_pass_and_are_counted() -> None:
    assert assert_targets_shifted(WORDS, NEXT) == 6
    prefix = NEXT.clone()
    prefix[0, :2] = -100
    assert assert_targets_shifted(WORDS, prefix) == 4
    assert assert_targets_shifted(WORDS, NEXT.where(NEXT >= 0, -1), ignore=-1) == 6


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            WORDS.where(NEXT >= 0, -100),
            "^row 0 asks for token 1 at place 0, but the next one is 5: targets are "
            "not shifted, so the model is asked to repeat what it reads$",
        ),
        (F.pad(NEXT[:, 1:], (0, 1), value=-100), "token 6 .* shifted twice$"),
        (F.pad(WORDS[:, :-1], (1, 0), value=3), "token 3 .* not the tokens, shifted"),
        (NEXT.where(NEXT != 4, 8), "^row 1 asks for token 8 at place 1, .* one is 4"),
    ],
    ids=["not shifted", "twice", "the other way", "one wrong"],
)
def test_targets_that_are_not_shifted_are_caught(target: Tensor, message: str) -> None:
    fails(assert_targets_shifted, message, WORDS, target)


def test_targets_that_ask_nothing_show_nothing() -> None:
    lonely = torch.full_like(WORDS, -100)
    lonely[0, 2] = 7
    with pytest.raises(ValueError, match="two neighbouring places"):
        assert_targets_shifted(WORDS, lonely)


LOGITS = torch.randn(2, 5, 11, generator=torch.Generator().manual_seed(2))
WHOLE = LOGITS, NEXT
ROWS = [(LOGITS[:1], NEXT[:1]), (LOGITS[1:], NEXT[1:])]
BARE = [ROWS[0], (LOGITS[1:, :3], NEXT[1:, :3])]  # without padding


def torch_sum(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    logits, target = batch
    total = F.cross_entropy(logits.mT, target, reduction="sum")
    return total, (target != -100).sum()


def mean_of_means(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return F.cross_entropy(batch[0].mT, batch[1]), torch.tensor(1)


def all_places(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return torch_sum(batch)[0], torch.tensor(batch[1].numel())


@pytest.mark.parametrize("parts", [ROWS, BARE], ids=["padded", "bare"])
def test_losses_that_add_up_pass(parts: Any) -> None:
    assert assert_accumulation_equals_batch(torch_sum, WHOLE, parts) < 1e-6
    ours = lambda batch: token_loss(*batch, label_smoothing=0.1)  # noqa: E731
    assert assert_accumulation_equals_batch(ours, WHOLE, parts) < 1e-6


def test_a_mean_of_means_is_caught() -> None:
    message = r"mean over 1, and that of its 2 part\(s\) [\d.]+, over 2: is it a mean"
    for parts in (ROWS, BARE):
        fails(assert_accumulation_equals_batch, message, mean_of_means, WHOLE, parts)


def test_padding_that_counts_is_caught_by_parts_without_it() -> None:
    message = r"mean over 10, and that of its 2 part\(s\) [\d.]+, over 8: .* padding"
    fails(assert_accumulation_equals_batch, message, all_places, WHOLE, BARE)
    assert_accumulation_equals_batch(all_places, WHOLE, ROWS)


def test_a_loss_that_is_nan_does_not_add_up() -> None:
    def broken(batch: Any) -> tuple[Tensor, Tensor]:
        return torch.tensor(torch.nan), torch.tensor(1)

    fails(assert_accumulation_equals_batch, "nan", broken, WHOLE, ROWS)


# ------------------------------------------------------------------- of all the probes

SIGN = cycle((1, -1))
PROBES = {
    "rows": (assert_rows_independent, along_batch),
    "deterministic": (assert_deterministic, lambda x, *_: x * next(SIGN)),
    "causal": (assert_causal, attend),
    "padding": (assert_padding_invariant, lambda x, valid: attend(x)),
    "order": (assert_permutation_equivariant, lambda x: attend(x, ALLOWED)),
    "cache": (assert_cache_equals_full, lambda x, cache: attend(x)),
}


@pytest.mark.parametrize("name", PROBES)
def test_tolerances_are_the_callers(name: str) -> None:
    probe, mutant = PROBES[name]
    largest = probe(mutant, X, atol=99.0, rtol=0.0)
    assert isinstance(largest, float)
    assert largest > 0.1
    assert probe(mutant, X, atol=largest * 1.001, rtol=0.0) == largest
    fails(probe, "", mutant, X, atol=largest * 0.999, rtol=0.0)
    assert probe(mutant, X, atol=0.0, rtol=1e9) == largest


def test_the_tolerance_is_relative_to_the_reference() -> None:
    def close(x: Tensor) -> Tensor:
        return 1000 * x + 0.01

    fails(assert_matches_reference, "", close, lambda x: 1000 * x, X, rtol=0.0)
    assert_matches_reference(close, lambda x: 1000 * x, X, atol=0.01, rtol=1e-6)
    x = torch.tensor([1.0, 100.0])
    assert_matches_reference(lambda: x * 1.01, lambda: x, atol=0.0, rtol=0.011)
    fails(
        assert_matches_reference, "", lambda: x * 1.01, lambda: x, atol=0.0, rtol=0.009
    )


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (X[:, :1], r"two tokens or more, not of shape \(3, 1, 8\)"),
        (torch.arange(5), r"not of shape \(5,\)"),
        (torch.ones(2, 4, 3), "all equal"),
        (torch.tensor([[7, 7, 7], [7, 7, 7]]), "all equal"),
    ],
)
def test_inputs_that_can_show_nothing_are_refused(
    name: str, inputs: Tensor, message: str
) -> None:
    with no_shape_checks(), pytest.raises(ValueError, match=message):
        PROBES[name][0](lambda x, *_: x, inputs)


@pytest.mark.parametrize("name", PROBES)
def test_an_output_that_is_not_one_per_token_is_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"shape \(3, 8\) for inputs of shape \(3, 6, 8"
    ):
        PROBES[name][0](lambda x, *_: x.mean(1), X)


@pytest.mark.parametrize("name", PROBES)
def test_nan_is_never_right(name: str) -> None:
    fails(PROBES[name][0], r"\(nan\)", lambda x, *_: x / 0 * 0, X)


def test_an_empty_output_shows_nothing() -> None:
    with pytest.raises(ValueError, match=r"shape \(0, 6, 8\) shows nothing"):
        assert_matches_reference(lambda: X[:0], lambda: X[:0])


@pytest.mark.parametrize("name", ["padding", "order", "cache", "rows"])
def test_dropout_is_not_taken_for_a_fault(name: str) -> None:
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        PROBES[name][0](lambda x, *_: F.dropout(x, 0.5), X)


def test_the_side_of_padding_is_right_or_left() -> None:
    with no_shape_checks(), pytest.raises(ValueError, match="not 'top'"):
        assert_padding_invariant(masked, X, side="top")


def test_no_gradient_is_kept() -> None:
    weight = torch.ones(WIDTH, requires_grad=True)

    def model(x: Tensor, *_: Any) -> Tensor:
        out = x * weight
        assert not out.requires_grad
        return out

    assert_causal(model, X)
    assert_padding_invariant(model, X)
    assert_permutation_equivariant(model, X)
    assert_cache_equals_full(model, X)
    assert_matches_reference(model, model, X)


def test_probes_work_where_the_inputs_are() -> None:
    model = small_model("encoder", position="none")
    tokens = some_tokens()
    # On `meta` is what is made without a device.
    with torch.device("meta"), EverythingOn("cpu"):
        assert_permutation_equivariant(model, tokens)
        assert_padding_invariant(
            lambda ids, valid: model(ids, mask=padding(valid)), tokens
        )
        assert_causal(running_sum, tokens)
    decoder = small_model()
    with torch.device("meta"), EverythingOn("cpu"):
        assert_cache_equals_full(lambda ids, cache: decoder(ids, cache=cache), tokens)
