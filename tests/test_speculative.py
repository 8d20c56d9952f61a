"""Speculative decoding gives what the large model alone would give, in fewer passes."""

from collections import Counter
from itertools import product
from typing import Any

import pytest
import torch
from small_models import no_shape_checks, small_config, small_model, some_tokens
from torch import Tensor

from tfcourse.generation import generate
from tfcourse.model.transformer import Transformer
from tfcourse.speculative import check, speculate

TINY = {"vocab_size": 3, "d_model": 4, "num_decoder_layers": 1}


def models(family: str = "decoder", **options: Any) -> tuple[Transformer, Transformer]:
    """Return two models of the same vocabulary that do not agree."""
    return tuple(small_model(family, dtype=torch.float64, **options) for _ in range(2))


def source_of(family: str) -> dict[str, Tensor]:
    return {"source": some_tokens(1, 5)} if family == "encoder-decoder" else {}


@pytest.mark.parametrize("family", ["decoder", "encoder-decoder"])
@pytest.mark.parametrize("position", ["rotary", "relative", "learned"])
@pytest.mark.parametrize("num_guesses", [1, 3, 20])
def test_greedy_tokens_are_the_large_models(
    family: str, position: str, num_guesses: int
) -> None:
    model, draft = models(family, position=position)
    prompt, given = some_tokens(1, 3), source_of(family)
    expected = generate(model, prompt, max_new_tokens=12, **given)
    for guesser in (draft, model):
        found = speculate(
            model,
            guesser,
            prompt,
            max_new_tokens=12,
            num_guesses=num_guesses,
            temperature=0.0,
            **given,
        )
        assert torch.equal(found.tokens, expected)


def test_a_draft_that_is_the_model_is_never_refused() -> None:
    model, _ = models()
    for temperature in (0.0, 0.7):
        found = speculate(
            model,
            model,
            some_tokens(1, 3),
            max_new_tokens=10,
            num_guesses=4,
            temperature=temperature,
        )
        assert found.tokens.shape == (1, 13)
        assert (found.passes, found.guessed, found.accepted) == (2, 8, 8)


def test_a_draft_that_is_always_wrong_costs_passes_but_no_token() -> None:
    model, draft = models()
    with torch.no_grad():  # it wants what the model wants least
        draft.load_state_dict(model.state_dict())
        draft.decoder.last_norm.weight.neg_()
        draft.decoder.last_norm.bias.neg_()
    prompt = some_tokens(1, 3)
    found = speculate(
        model, draft, prompt, max_new_tokens=6, num_guesses=2, temperature=0.0
    )
    assert torch.equal(found.tokens, generate(model, prompt, max_new_tokens=6))
    assert found.accepted == 0
    assert found.passes == 6


def test_samples_have_the_large_models_distribution() -> None:
    model, draft = models(**TINY)
    with torch.no_grad():  # make them differ more than chance would
        draft.embedding.weight.mul_(-1)
    prompt, generator = torch.tensor([[1]]), torch.Generator().manual_seed(0)
    runs, length, temperature = 1000, 2, 1.5
    seen: Counter[tuple[int, ...]] = Counter()
    for _ in range(runs):
        found = speculate(
            model,
            draft,
            prompt,
            max_new_tokens=length,
            num_guesses=2,
            temperature=temperature,
            generator=generator,
        )
        seen[tuple(found.tokens[0, 1:].tolist())] += 1
    outputs = torch.tensor(list(product(range(3), repeat=length)))
    counts = torch.tensor([seen[tuple(row)] for row in outputs.tolist()])

    def chi_square(of: Transformer) -> float:
        """Return how far the counts are from what this model alone would draw."""
        read = torch.cat((prompt.expand(9, 1), outputs), dim=1)
        with torch.no_grad():
            steps = (of(read[:, :-1]) / temperature).log_softmax(-1)
        log_p = steps.gather(2, outputs[..., None]).sum((1, 2))
        expected = runs * log_p.exp()
        assert of is draft or expected.min() > 3
        return float(((counts - expected).square() / expected).sum())

    # 8 degrees of freedom: 99.9 % of such sums are below 26.
    assert chi_square(model) < 26
    assert chi_square(draft) > 100


@pytest.mark.parametrize("seed", range(5))
def test_keeping_and_drawing_anew_add_up_to_the_wanted_distribution(seed: int) -> None:
    torch.manual_seed(seed)
    offered, wanted = torch.randn(2, 6, dtype=torch.float64).mul(2).softmax(-1)
    runs = 2000
    guesses = torch.multinomial(offered, runs, replacement=True)
    after = torch.ones(1, 6, dtype=torch.float64)
    found = torch.stack(
        [
            check(guess[None], offered[None], torch.cat((wanted[None], after)))[0]
            for guess in guesses
        ]
    )
    share = torch.bincount(found, minlength=6) / len(found)
    assert (share - wanted).abs().max() < 0.05
    drawn = torch.bincount(guesses, minlength=6) / runs
    assert (drawn - wanted).abs().max() > 0.06


def test_all_kept_is_followed_by_one_more() -> None:
    offered = torch.eye(4)[[1, 2]]
    wanted = torch.eye(4)[[1, 2, 3]]
    assert check(torch.tensor([1, 2]), offered, wanted).tolist() == [1, 2, 3]


def test_the_first_refusal_ends_the_guesses() -> None:
    offered = torch.eye(4)[[1, 2, 3]]
    wanted = torch.eye(4)[[1, 0, 3, 3]]
    assert check(torch.tensor([1, 2, 3]), offered, wanted).tolist() == [1, 0]


def test_a_stop_token_ends_it_even_among_kept_guesses() -> None:
    model, _ = models()
    prompt = some_tokens(1, 3)
    whole = generate(model, prompt, max_new_tokens=10)
    stop = int(whole[0, 5])
    expected = generate(model, prompt, max_new_tokens=10, stop_token=stop)
    found = speculate(
        model,
        model,
        prompt,
        max_new_tokens=10,
        num_guesses=5,
        temperature=0.0,
        stop_token=stop,
    )
    assert torch.equal(found.tokens, expected)
    assert found.tokens.shape[1] < 13


def test_a_generator_makes_it_repeatable() -> None:
    model, draft = models()
    prompt = some_tokens(1, 3)

    def run(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        found = speculate(model, draft, prompt, max_new_tokens=9, generator=generator)
        return found.tokens.tolist()

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_no_new_tokens_is_the_prompt() -> None:
    model, draft = models()
    found = speculate(model, draft, some_tokens(1, 3), max_new_tokens=0)
    assert (found.tokens.shape, found.passes) == ((1, 3), 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": torch.zeros(2, 3, dtype=torch.long)}, r"one prompt.*\(2, 3\)"),
        ({"prompt": torch.zeros(1, 0, dtype=torch.long)}, r"one prompt.*\(1, 0\)"),
        ({"max_new_tokens": -1}, "max_new_tokens must be at least 0, not -1"),
        ({"max_new_tokens": 14}, "3 tokens and max_new_tokens=14 .* max_seq_len=16"),
        ({"stop_token": 11}, r"stop_token 11 is outside 0 \.\.\. 10"),
        ({"num_guesses": 0}, "num_guesses must be at least 1, not 0"),
        ({"temperature": -0.5}, r"temperature must be at least 0, not -0\.5"),
        (
            {"draft": Transformer(small_config(vocab_size=12))},
            "vocab_size=12 is not the model's 11",
        ),
        (
            {"draft": Transformer(small_config(max_seq_len=4))},
            "more than max_seq_len=4",
        ),
        ({"draft": Transformer(small_config("encoder"))}, "num_decoder_layers=0"),
    ],
)
def test_impossible_requests_are_refused(options: dict[str, Any], message: str) -> None:
    model, draft = models()
    prompt = torch.zeros(1, 3, dtype=torch.long)
    given = {"prompt": prompt, "draft": draft, "max_new_tokens": 3, **options}
    with no_shape_checks(), pytest.raises(ValueError, match=message):
        speculate(model, **given)
