"""Exact match counts whole outputs, the same for any batch and any company."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_models import small_model

from tfcourse.data.tokenizers import Tokenizer
from tfcourse.generation import beam_search, generate
from tfcourse.model.transformer import Transformer
from tfcourse.training.evaluation import exact_match, translate

TOKENIZER = Tokenizer.from_texts(["0123456"])  # with the four special ones, 11 ids
TEXTS = ["1", "234", "56123", "0"]
FAMILIES = ("encoder-decoder", "decoder")


def talkative_model(family: str) -> Transformer:
    """Return a model whose outputs are of several tokens, and differ."""
    model = small_model(family)
    with torch.no_grad():
        model.embedding.weight[TOKENIZER.stop] = 0.0  # seldom the likeliest
    return model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_a_text_is_translated_alike_alone_and_in_company(
    family: str, batch_size: int
) -> None:
    model = talkative_model(family)
    together = translate(
        model, TEXTS, TOKENIZER, max_new_tokens=6, batch_size=batch_size
    )
    for text, output in zip(TEXTS, together, strict=True):
        ids = torch.tensor([TOKENIZER.encode(text)])
        start = torch.tensor([[TOKENIZER.start]])
        if family == "decoder":
            prompt, source = torch.cat((ids, start), dim=1), None
        else:
            prompt, source = start, ids
        tokens = generate(
            model,
            prompt,
            max_new_tokens=6,
            source=source,
            stop_token=TOKENIZER.stop,
        )
        assert output == TOKENIZER.decode(tokens[0, prompt.shape[1] :])
    assert len(set(together)) > 1


def test_beams_are_those_of_beam_search() -> None:
    model = talkative_model("encoder-decoder")
    outputs = translate(model, TEXTS, TOKENIZER, num_beams=3, max_new_tokens=5)
    for text, output in zip(TEXTS, outputs, strict=True):
        tokens, _ = beam_search(
            model,
            torch.tensor([[TOKENIZER.start]]),
            max_new_tokens=5,
            num_beams=3,
            stop_token=TOKENIZER.stop,
            source=torch.tensor([TOKENIZER.encode(text)]),
        )
        assert output == TOKENIZER.decode(tokens[0])


def test_exact_match_is_the_share_of_whole_outputs() -> None:
    model = talkative_model("encoder-decoder")
    outputs = translate(model, TEXTS, TOKENIZER, max_new_tokens=6)
    pairs = list(zip(TEXTS, outputs, strict=True))
    assert exact_match(model, pairs, TOKENIZER, max_new_tokens=6) == 1.0
    pairs[0] = (pairs[0][0], pairs[0][1] + "0")
    assert exact_match(model, pairs, TOKENIZER, max_new_tokens=6) == 0.75


@pytest.mark.parametrize("family", FAMILIES)
def test_output_ends_where_the_model_has_no_more_positions(family: str) -> None:
    model = talkative_model(family)
    long = translate(model, TEXTS, TOKENIZER)
    read = 1 + (max(map(len, TEXTS)) if family == "decoder" else 0)
    assert max(map(len, long)) == model.config.max_seq_len - read
    short = translate(model, TEXTS, TOKENIZER, max_new_tokens=3)
    assert max(map(len, short)) == 3
    assert all(map(str.startswith, long, short))


@pytest.mark.parametrize("call", [translate, exact_match])
def test_dropout_is_off_and_the_mode_comes_back(call: Callable[..., Any]) -> None:
    model = small_model("encoder-decoder", dropout=0.5, train=True)
    items = TEXTS
    if call is exact_match:
        items = list(zip(items, translate(model, items, TOKENIZER), strict=True))
    assert call(model, items, TOKENIZER) == call(model, items, TOKENIZER)
    if call is exact_match:
        assert call(model, items, TOKENIZER) == 1.0
    assert model.training


def test_beams_for_a_decoder_alone_are_refused() -> None:
    with pytest.raises(ValueError, match="num_beams=2: prefixes"):
        translate(small_model("decoder"), ["1"], TOKENIZER, num_beams=2)


def test_nothing_to_translate() -> None:
    model: Transformer = small_model("encoder-decoder")
    assert translate(model, [], TOKENIZER) == []
    with pytest.raises(ValueError, match="no pairs"):
        exact_match(model, [], TOKENIZER)
