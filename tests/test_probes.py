"""Probes pass on what is right, torch's and ours, and name what is wrong in mutants."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_models import EverythingOn, no_shape_checks, small_model, some_tokens
from torch import Tensor, nn

from tfcourse.model.masks import padding
from tfcourse.probes import (
    assert_cache_equals_full,
    assert_causal,
    assert_matches_reference,
    assert_padding_invariant,
    assert_permutation_equivariant,
)

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


# ------------------------------------------------------------------- of all the probes

PROBES = {
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


@pytest.mark.parametrize("name", ["padding", "order", "cache"])
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
