"""Each planted bug does what it says, is named by a probe, and leaves no trace."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from small_models import small_model, some_tokens
from torch import Tensor

from tfcourse.course.broken_decoder import (
    padding_is_read,
    unshifted_batch,
    without_causal_mask,
    without_cross_attention,
)
from tfcourse.data.pairs import IGNORE, Batch, translation_batch
from tfcourse.data.tokenizers import Tokenizer
from tfcourse.model.masks import padding
from tfcourse.model.transformer import Transformer
from tfcourse.probes import assert_causal, assert_padding_invariant

Planted = Callable[[Transformer], AbstractContextManager[None]]
BUGS: list[Planted] = [without_causal_mask, padding_is_read, without_cross_attention]


@pytest.fixture
def model() -> Transformer:
    return small_model("encoder-decoder")


def looks_ahead(model: Transformer) -> str:
    source = some_tokens(1, 5)
    tokens = torch.arange(1, 7)[None]
    try:
        assert_causal(lambda x: model(x, source), tokens)
    except AssertionError as error:
        return str(error)
    return ""


def reads_padding(model: Transformer) -> str:
    tokens = torch.arange(1, 5)[None]

    def run(source: Tensor, valid: Tensor) -> Tensor:
        rows = tokens.expand(len(source), -1)
        return model(rows, source, source_mask=padding(valid))

    try:
        assert_padding_invariant(run, some_tokens(3, 6), per_token=False)
    except AssertionError as error:
        return str(error)
    return ""


@torch.no_grad()
def reaction_to_source(model: Transformer) -> float:
    tokens, source = some_tokens(2, 4), torch.arange(10).view(2, 5)
    return float((model(tokens, source) - model(tokens, source + 1)).abs().max())


def test_without_the_causal_mask_the_model_looks_ahead(model: Transformer) -> None:
    assert looks_ahead(model) == ""
    with without_causal_mask(model):
        assert "the model looks ahead" in looks_ahead(model)
    assert looks_ahead(model) == ""


def test_padding_of_the_source_is_read(model: Transformer) -> None:
    assert reads_padding(model) == ""
    with padding_is_read(model):
        assert "padding is attended to" in reads_padding(model)
        assert looks_ahead(model) == ""
    assert reads_padding(model) == ""


def test_without_cross_attention_the_source_changes_nothing(model: Transformer) -> None:
    assert reaction_to_source(model) > 1e-3
    with without_cross_attention(model):
        assert reaction_to_source(model) == 0.0
    assert reaction_to_source(model) > 1e-3


@pytest.mark.parametrize("bug", BUGS)
def test_undone_after_an_error_too(model: Transformer, bug: Planted) -> None:
    tokens, source = some_tokens(2, 4), some_tokens(2, 5)
    before = model(tokens, source)
    with pytest.raises(KeyError), bug(model):
        raise KeyError
    assert torch.equal(model(tokens, source), before)


def test_a_model_that_lacks_the_part_is_refused() -> None:
    with pytest.raises(ValueError, match="num_decoder_layers=0"):
        without_causal_mask(small_model("encoder")).__enter__()
    for bug in (padding_is_read, without_cross_attention):
        with pytest.raises(ValueError, match="num_encoder_layers=0"):
            bug(small_model("decoder")).__enter__()


def predictions(
    model: Transformer, make: Callable[..., Batch], tokenizer: Tokenizer
) -> Callable[[Tensor], Tensor]:
    """Row t of the outputs is what the loss compares with the token after x[t]."""

    def run(x: Tensor) -> Tensor:
        pairs = [("12", tokenizer.decode(row)) for row in x.tolist()]
        batch = make(pairs, tokenizer)
        return model(batch.tokens, batch.source)[:, 1:]

    return run


def test_unshifted_targets_are_named_by_the_causal_probe(model: Transformer) -> None:
    tokenizer = Tokenizer.from_texts(["1234"])
    x = torch.tensor([tokenizer.encode("3124")])
    assert_causal(predictions(model, translation_batch, tokenizer), x)
    with pytest.raises(AssertionError, match="the model looks ahead"):
        assert_causal(predictions(model, unshifted_batch, tokenizer), x)


def test_an_unshifted_batch_reads_what_it_asks_for() -> None:
    tokenizer = Tokenizer.from_texts(["a1b2"])
    pairs = [("a", "1b2"), ("b", "2")]
    right, wrong = (
        make(pairs, tokenizer) for make in (translation_batch, unshifted_batch)
    )
    asked = right.target != IGNORE
    assert torch.equal(wrong.target, right.target)
    assert torch.equal(wrong.tokens[asked], right.target[asked])
    assert not torch.equal(right.tokens[asked], right.target[asked])
    assert wrong.source is not None
    assert wrong.source_valid is not None
