"""Generation gives the tokens that transformers gives for the same weights."""

from typing import Any

import pytest
import torch
from pretrained_models import VOCAB, gpt2, llama, marian, t5
from torch import Tensor

from tfcourse.generation import beam_search, generate
from tfcourse.model.masks import padding
from tfcourse.pretrained import from_pretrained

MAKERS = {"gpt2": gpt2, "llama": llama, "t5": t5, "marian": marian}
CROSSED = ("t5", "marian")
START, STOP, PAD = 0, 1, 2  # a padding of 0 is none to transformers' beam search
NEW = 8


def inputs(name: str) -> tuple[Tensor, dict[str, Any], dict[str, Any]]:
    """Return a prompt, and what else our function and theirs are given."""
    generator = torch.Generator().manual_seed(0)

    def tokens(seq: int) -> Tensor:
        return torch.randint(3, VOCAB, (3, seq), generator=generator)

    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 4 + [False]])
    if name in CROSSED:
        source = tokens(5)
        start = torch.full((3, 1), START)
        ours = {"source": source, "source_mask": padding(valid)}
        theirs = {"input_ids": source, "decoder_input_ids": start}
        return start, ours, {**theirs, "attention_mask": valid.long()}
    prompt, valid = tokens(5), valid.flip(1)
    ours = {"prompt_mask": valid}
    return prompt, ours, {"input_ids": prompt, "attention_mask": valid.long()}


def doubled(name: str, seed: int) -> Any:
    """Return a model in float64, where no two outputs are as good as equal."""
    # Their cache counts the encoder's layers.
    layers = {
        "t5": {"num_layers": 2, "num_decoder_layers": 2},
        "marian": {"encoder_layers": 2, "decoder_layers": 2},
    }
    return MAKERS[name](seed, **layers.get(name, {})).double().eval()


def same(found: Tensor, expected: Tensor) -> bool:
    """Compare up to the padding that one of the two may have more of."""
    width = max(found.shape[1], expected.shape[1])
    rows = (
        torch.nn.functional.pad(part, (0, width - part.shape[1]), value=PAD)
        for part in (found, expected)
    )
    return torch.equal(*rows)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("penalty", [0.7, 3.0])
def test_a_repetition_penalty_is_theirs(name: str, penalty: float) -> None:
    theirs = doubled(name, 0)
    prompt, given, asked = inputs(name)
    if name not in CROSSED:  # theirs counts padding as said, ours does not
        prompt, asked["input_ids"] = prompt[:1], prompt[:1]
        given, asked["attention_mask"] = {}, torch.ones_like(prompt)
    expected = theirs.generate(
        **asked,
        max_new_tokens=NEW,
        do_sample=False,
        repetition_penalty=penalty,
        eos_token_id=STOP,
        pad_token_id=PAD,
    )
    ours = from_pretrained(theirs)
    found = generate(
        ours,
        prompt,
        max_new_tokens=NEW,
        repetition_penalty=penalty,
        stop_token=STOP,
        pad_token=PAD,
        **given,
    )
    assert same(found, expected)
    plain = generate(
        ours, prompt, max_new_tokens=NEW, stop_token=STOP, pad_token=PAD, **given
    )
    assert penalty < 1 or not same(found, plain)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("num_beams", [2, 4])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("stops", [[STOP], [STOP, 5, 9]])
def test_beams_are_theirs(
    name: str, num_beams: int, length_penalty: float, stops: list[int]
) -> None:
    for seed in range(3):
        theirs = doubled(name, seed)
        prompt, given, asked = inputs(name)
        expected = theirs.generate(
            **asked,
            max_new_tokens=NEW,
            do_sample=False,
            num_beams=num_beams,
            length_penalty=length_penalty,
            early_stopping="never",  # what is best, not what was found first
            eos_token_id=stops,
            pad_token_id=PAD,
            return_dict_in_generate=True,
            output_scores=True,
        )
        found, score = beam_search(
            from_pretrained(theirs),
            prompt,
            max_new_tokens=NEW,
            num_beams=num_beams,
            length_penalty=length_penalty,
            stop_token=stops,
            pad_token=PAD,
            **given,
        )
        assert same(found, expected.sequences), seed
        assert torch.allclose(score, expected.sequences_scores, atol=1e-5), seed
