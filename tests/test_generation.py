"""Generation: every way to the same tokens gives the same tokens, and no other."""

import itertools
from typing import Any

import pytest
import torch
from small_models import (
    FAMILIES,
    POSITIONS,
    SIZES,
    EverythingOn,
    no_shape_checks,
    small_config,
    small_model,
    some_tokens,
    source_for,
)
from torch import Tensor

from tfcourse.generation import (
    beam_search,
    generate,
    greedy,
    keep_top_k,
    keep_top_p,
    penalise_repetition,
    sample,
    stream,
)
from tfcourse.model.attention import record_attention
from tfcourse.model.cache import KVCache, StaticKVCache
from tfcourse.model.masks import padding
from tfcourse.model.transformer import Transformer

DECODERS = ("decoder", "encoder-decoder")
STOP = 2
ONE_LAYER = {name: dict.fromkeys(FAMILIES[name], 1) for name in DECODERS}


def double(family: str = "decoder", **options: Any) -> Transformer:
    """Return a model in float64, where no two tokens are as good as equal."""
    return small_model(family, dtype=torch.float64, **options)


class Chain(Transformer):
    """A model whose next token depends on the last alone, by a table of odds."""

    def __init__(self, *rows: list[float]) -> None:
        odds = torch.tensor(rows)
        super().__init__(small_config(vocab_size=len(rows)))
        self.table = (odds / odds.sum(-1, keepdim=True)).log()

    def forward(self, tokens: Tensor, *args: Any, **options: Any) -> Tensor:
        return self.table[tokens[:, -1:]]


def counter(size: int) -> Chain:
    """Return a chain in which n is surely followed by n + 1."""
    return Chain(*torch.eye(size).roll(1, dims=1).tolist())


# ---------------------------------------------------------------- one token at a time


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("position", POSITIONS)
def test_greedy_takes_the_best_token_of_a_full_pass(family: str, position: str) -> None:
    model = double(family, position=position)
    prompt, given = some_tokens(seq=3), source_for(model)
    expected = prompt
    for _ in range(6):
        best = model(expected, **given)[:, -1].argmax(-1)
        expected = torch.cat((expected, best[:, None]), dim=1)
    for use_cache in (True, False):
        found = generate(model, prompt, max_new_tokens=6, use_cache=use_cache, **given)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("use_cache", [True, False])
def test_unequal_prompts_in_a_batch_give_what_each_gives_alone(
    position: str, use_cache: bool
) -> None:
    model = double("encoder-decoder", position=position)
    prompt, source = some_tokens(seq=5), some_tokens(seq=4)
    lengths, source_lengths = (5, 2, 1), (2, 4, 3)
    valid = torch.stack([torch.arange(5) >= 5 - length for length in lengths])
    real = torch.stack([torch.arange(4) < length for length in source_lengths])
    options: dict[str, Any] = {"max_new_tokens": 5, "use_cache": use_cache}
    together = generate(
        model,
        prompt,
        prompt_mask=valid,
        source=source,
        source_mask=padding(real),
        **options,
    )
    for row in range(3):
        alone = prompt[row : row + 1, 5 - lengths[row] :]
        own = source[row : row + 1, : source_lengths[row]]
        found = generate(model, alone, source=own, **options)
        assert torch.equal(together[row, 5 - lengths[row] :], found[0])
    assert torch.equal(together[:, :5], prompt)


def test_a_stopped_row_is_filled_and_the_rest_goes_on() -> None:
    prompt = torch.tensor([[3, 0], [4, 4], [4, 3]])
    found = generate(counter(9), prompt, max_new_tokens=9, stop_token=5, pad_token=7)
    assert found[:, 2:].tolist() == [[1, 2, 3, 4, 5], [5, 7, 7, 7, 7], [4, 5, 7, 7, 7]]
    found = generate(counter(9), prompt, max_new_tokens=3, stop_token=5)
    assert found[:, 2:].tolist() == [[1, 2, 3], [5, 5, 5], [4, 5, 5]]


def test_a_stop_token_in_the_prompt_stops_nothing() -> None:
    prompt = torch.tensor([[5, 1]])
    found = generate(counter(9), prompt, max_new_tokens=2, stop_token=5)
    assert found.tolist() == [[5, 1, 2, 3]]


def test_any_of_several_stop_tokens_ends_a_row() -> None:
    prompt = torch.tensor([[3], [0], [6]])
    found = generate(
        counter(9), prompt, max_new_tokens=9, stop_token={5, 2}, pad_token=8
    )
    assert found[:, 1:].tolist() == [
        [4, 5] + [8] * 3,
        [1, 2] + [8] * 3,
        [7, 8, 0, 1, 2],
    ]


def test_a_stream_gives_each_token_as_soon_as_it_is_chosen() -> None:
    asked = []

    def noted(logits: Tensor) -> Tensor:
        asked.append(len(asked))
        return logits.argmax(-1)

    model, prompt = double(), some_tokens(seq=3)
    tokens = stream(model, prompt, max_new_tokens=5, choose=noted)
    assert asked == []
    first = next(tokens)
    assert asked == [0]
    assert not first.requires_grad
    rest = torch.stack([first, *tokens], dim=1)
    assert torch.equal(rest, generate(model, prompt, max_new_tokens=5)[:, 3:])


def test_a_stream_ends_when_every_row_has_stopped() -> None:
    prompt = torch.tensor([[3], [0]])
    tokens = stream(counter(9), prompt, max_new_tokens=9, stop_token=4, pad_token=7)
    assert [token.tolist() for token in tokens] == [[4, 1], [7, 2], [7, 3], [7, 4]]


def test_a_wrong_request_is_refused_before_the_first_token() -> None:
    with pytest.raises(ValueError, match="more than max_seq_len"):
        stream(double(), some_tokens(), max_new_tokens=99)


@pytest.mark.parametrize("family", DECODERS)
def test_a_static_cache_gives_the_same_tokens(family: str) -> None:
    model = double(family, position="relative")
    prompt, given = some_tokens(seq=4), source_for(model)
    valid = torch.tensor([[False, True, True, True], [True] * 4, [False] * 3 + [True]])
    options: dict[str, Any] = {"max_new_tokens": 5, "prompt_mask": valid, **given}
    cache = StaticKVCache(model.config, batch=3, capacity=11, dtype=torch.float64)
    found = generate(model, prompt, cache=cache, **options)
    assert torch.equal(found, generate(model, prompt, **options))
    assert int(cache.length) == 8  # the last token was not read


def test_repeated_tokens_become_less_likely() -> None:
    logits = torch.tensor([[2.0, -2.0, 3.0, -1.0], [2.0, -2.0, 3.0, -1.0]])
    tokens = torch.tensor([[0, 1, 1], [2, 2, 3]])
    valid = torch.tensor([[True, True, True], [False, True, False]])
    found = penalise_repetition(logits, tokens, 2.0)
    assert found.tolist() == [[1.0, -4.0, 3.0, -1.0], [2.0, -2.0, 1.5, -2.0]]
    found = penalise_repetition(logits, tokens, 2.0, valid)
    assert found.tolist() == [[1.0, -4.0, 3.0, -1.0], [2.0, -2.0, 1.5, -1.0]]


def test_a_penalty_counts_the_prompt_but_not_its_padding() -> None:
    even = Chain([4, 4.1, 4.2], [4, 4.1, 4.2], [4, 4.1, 4.2])
    prompt = torch.tensor([[2, 1], [2, 1]])
    valid = torch.tensor([[True, True], [False, True]])
    found = generate(
        even, prompt, max_new_tokens=1, prompt_mask=valid, repetition_penalty=3.0
    )
    assert found[:, 2].tolist() == [0, 2]
    plain = generate(even, prompt, max_new_tokens=1, prompt_mask=valid)
    assert plain[:, 2].tolist() == [2, 2]


def test_without_a_stop_token_all_tokens_are_made() -> None:
    found = generate(counter(4), torch.tensor([[0]]), max_new_tokens=6, pad_token=3)
    assert found.tolist() == [[0, 1, 2, 3, 0, 1, 2]]


def test_no_new_tokens_is_the_prompt() -> None:
    prompt = some_tokens()
    assert torch.equal(generate(double(), prompt, max_new_tokens=0), prompt)


def test_any_choice_will_do() -> None:
    seen = []

    def worst(logits: Tensor) -> Tensor:
        seen.append(logits.shape)
        return logits.argmin(-1)

    model, prompt = double(), some_tokens(seq=2)
    found = generate(model, prompt, max_new_tokens=2, choose=worst)
    assert seen == [(3, 11), (3, 11)]
    assert torch.equal(found[:, 2], model(prompt)[:, -1].argmin(-1))


def test_what_was_generated_can_be_trained_on() -> None:
    model = small_model()
    made = generate(model, some_tokens(seq=2), max_new_tokens=3)
    beams, _ = beam_search(
        model, some_tokens(seq=2), max_new_tokens=3, num_beams=2, stop_token=STOP
    )
    for tokens in (made, beams):
        model(tokens).square().sum().backward()
    assert model.embedding.weight.grad is not None


def test_recording_changes_no_token() -> None:
    model = double("encoder-decoder")
    prompt, given = some_tokens(seq=3), source_for(model)
    expected = generate(model, prompt, max_new_tokens=4, **given)
    with record_attention(model) as weights:
        assert torch.equal(generate(model, prompt, max_new_tokens=4, **given), expected)
    own = weights["decoder.blocks.0.self_attention"]
    cross = weights["decoder.blocks.1.cross_attention"]
    assert own.shape == (3, 2, 1, 6)  # the last step: one query, six keys read
    assert cross.shape == (3, 2, 1, 5)
    for weight in weights.values():
        assert torch.allclose(weight.sum(-1), torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("family", DECODERS)
def test_tensors_are_made_where_the_prompt_is(family: str) -> None:
    model = small_model(family)
    given: dict[str, Any] = source_for(model)
    if given:
        given["source_mask"] = padding(torch.ones(3, 5, dtype=torch.bool))
    prompt, valid = some_tokens(seq=3), torch.ones(3, 3, dtype=torch.bool)
    choose = sample(top_k=5, top_p=0.9)
    # On `meta` is what is made without a device.
    with torch.device("meta"), EverythingOn("cpu"):
        generate(
            model,
            prompt,
            max_new_tokens=3,
            prompt_mask=valid,
            choose=choose,
            stop_token=STOP,
            **given,
        )
        beam_search(
            model, prompt, max_new_tokens=3, num_beams=2, stop_token=STOP, **given
        )


# -------------------------------------------------------------------------- sampling

ODDS = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])


def kept(logits: Tensor) -> list[list[int]]:
    return [row.isfinite().nonzero()[:, 0].tolist() for row in logits]


@pytest.mark.parametrize(
    ("k", "expected"), [(1, [0]), (2, [0, 1]), (5, [0, 1, 2, 3, 4]), (9, [*range(5)])]
)
def test_top_k_keeps_the_k_likeliest(k: int, expected: list[int]) -> None:
    logits = torch.stack((ODDS.log(), ODDS.flip(0).log() + 3))
    found = keep_top_k(logits, k)
    assert kept(found) == [expected, sorted(4 - token for token in expected)]
    assert torch.equal(found[found.isfinite()], logits[found.isfinite()])


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (1e-60, [0]),  # 0 in float32
        (0.39, [0]),
        (0.41, [0, 1]),
        (0.69, [0, 1]),
        (0.71, [0, 1, 2]),
        (0.96, [0, 1, 2, 3, 4]),
        (1.0, [0, 1, 2, 3, 4]),
    ],
)
def test_top_p_keeps_the_fewest_that_reach_p(p: float, expected: list[int]) -> None:
    logits = torch.stack((ODDS.log(), ODDS.flip(0).log() + 3))
    found = keep_top_p(logits, p)
    assert kept(found) == [expected, sorted(4 - token for token in expected)]
    assert torch.equal(found[found.isfinite()], logits[found.isfinite()])


def test_top_p_stops_where_it_is_reached_exactly() -> None:
    assert keep_top_p(torch.zeros(1, 2), 0.5).isfinite().tolist() == [[True, False]]
    sample(top_p=1.0)  # allowed: it keeps all


def test_top_p_of_one_keeps_all_of_a_large_vocabulary() -> None:
    assert keep_top_p(5 * torch.randn(1, 50_000), 1.0).isfinite().all()


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({}, ODDS),
        ({"temperature": 0.5}, ODDS**2),
        ({"temperature": 2.0}, ODDS**0.5),
        ({"top_k": 3}, ODDS * torch.tensor([1, 1, 1, 0, 0])),
        ({"top_p": 0.8}, ODDS * torch.tensor([1, 1, 1, 0, 0])),
        # The temperature comes first, then k, then p of what k has left.
        ({"temperature": 0.5, "top_p": 0.8}, ODDS**2 * torch.tensor([1, 1, 0, 0, 0])),
        ({"top_k": 2, "top_p": 0.5}, ODDS * torch.tensor([1, 0, 0, 0, 0])),
    ],
)
def test_samples_follow_the_distribution(
    options: dict[str, Any], weights: Tensor
) -> None:
    draws = 20_000
    choose = sample(**options, generator=torch.Generator().manual_seed(1))
    found = choose(ODDS.log().expand(draws, -1) - 2).bincount(minlength=5)
    expected = draws * weights / weights.sum()
    possible = expected > 0
    assert found[~possible].sum() == 0
    chi_square = ((found - expected)[possible].square() / expected[possible]).sum()
    assert chi_square < 23.5  # 4 degrees of freedom: 1 in 10,000


def test_a_generator_makes_samples_repeatable() -> None:
    model, prompt = double(), some_tokens(seq=2)

    def draw(seed: int) -> Tensor:
        choose = sample(generator=torch.Generator().manual_seed(seed))
        return generate(model, prompt, max_new_tokens=9, choose=choose)

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


def test_the_likeliest_token_alone_is_greedy() -> None:
    logits = torch.randn(20, 11)
    for options in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}):
        assert torch.equal(sample(**options)(logits), greedy(logits))


# ----------------------------------------------------------------------- beam search


def log_probability(
    model: Transformer, row: Tensor, start: int, **given: Any
) -> tuple[float, int]:
    """Return the sum for what follows `start`, up to the stop token, and its length."""
    new = row[start:].tolist()
    length = new.index(STOP) + 1 if STOP in new else len(new)
    row = row[: start + length]
    with torch.no_grad():
        logits = model(row[None, :-1], **given)[0, start - 1 :].log_softmax(-1)
    return logits.gather(1, row[start:, None]).sum().item(), length


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0])
def test_a_wide_beam_finds_the_best_of_all_outputs(family: str, penalty: float) -> None:
    vocab, new = 4, 3
    model = double(family, vocab_size=vocab, **ONE_LAYER[family])
    prompt, given = some_tokens(2, 2, vocab), source_for(model, batch=2)
    found, score = beam_search(
        model,
        prompt,
        max_new_tokens=new,
        num_beams=vocab**new,
        stop_token=STOP,
        length_penalty=penalty,
        **given,
    )
    others = [token for token in range(vocab) if token != STOP]
    outputs = [
        [*begin, STOP]
        for length in range(new)
        for begin in itertools.product(others, repeat=length)
    ]
    outputs += [list(output) for output in itertools.product(others, repeat=new)]
    for row in range(2):
        own = {name: part[row : row + 1] for name, part in given.items()}
        scores = []
        for output in outputs:
            tokens = torch.cat((prompt[row], torch.tensor(output)))
            total, length = log_probability(model, tokens, 2, **own)
            scores.append(total / length**penalty)
        best = max(range(len(outputs)), key=scores.__getitem__)
        new_tokens = found[row, 2:].tolist()
        assert new_tokens[: len(outputs[best])] == outputs[best]
        assert set(new_tokens[len(outputs[best]) :]) <= {STOP}
        assert score[row].item() == pytest.approx(scores[best], abs=1e-5)


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize(
    ("position", "num_beams"), [*((name, 3) for name in POSITIONS), ("rotary", 1)]
)
def test_beams_are_the_same_without_a_cache_and_one_by_one(
    family: str, position: str, num_beams: int
) -> None:
    model = double(family, position=position, **ONE_LAYER[family])
    prompt, given = some_tokens(seq=2), source_for(model)
    valid = torch.stack([torch.arange(5) < length for length in (5, 2, 3)])
    options: dict[str, Any] = {"stop_token": STOP, "pad_token": 0, "max_new_tokens": 7}
    options |= {"num_beams": num_beams}
    mask = {"source_mask": padding(valid)} if given else {}
    found, score = beam_search(model, prompt, **options, **given, **mask)
    slow, slow_score = beam_search(
        model, prompt, **options, **given, **mask, use_cache=False
    )
    assert torch.equal(found, slow)
    assert torch.allclose(score, slow_score)
    for row in range(3):
        own = {name: part[row : row + 1, valid[row]] for name, part in given.items()}
        alone, value = beam_search(model, prompt[row : row + 1], **options, **own)
        length = alone.shape[1]
        assert torch.equal(found[row, :length], alone[0])
        assert not found[row, length:].any()
        assert torch.allclose(score[row], value)
        total, count = log_probability(model, alone[0], 2, **own)
        assert score[row].item() == pytest.approx(total / count, abs=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_one_beam_without_a_length_penalty_is_greedy(seed: int) -> None:
    torch.manual_seed(seed)
    model, prompt = double(vocab_size=5), some_tokens(seq=2, vocab=5)
    options = {"max_new_tokens": 8, "stop_token": STOP, "pad_token": 0}
    found, _ = beam_search(model, prompt, num_beams=1, length_penalty=0.0, **options)
    assert torch.equal(found, generate(model, prompt, **options))


def test_one_beam_does_not_end_where_greedy_would_go_on() -> None:
    """Stopping at once is the second best step here, but the best sum."""
    model = Chain([0, 5, 4, 1], [1, 2, 2, 2.5], [1, 1, 1, 1], [0, 0.4, 0.3, 0.3])
    prompt, options = torch.tensor([[0]]), {"max_new_tokens": 4, "stop_token": STOP}
    found, _ = beam_search(model, prompt, num_beams=1, length_penalty=0.0, **options)
    assert found.tolist() == generate(model, prompt, **options).tolist()
    wider, _ = beam_search(model, prompt, num_beams=2, length_penalty=0.0, **options)
    assert wider.tolist() == [[0, STOP]]


GARDEN_PATH = Chain(  # 1 is the better first step, 3 leads to the better whole
    [0, 0.6, 0, 0.4],
    [0.3, 0.3, 0.3, 0.1],
    [0.25, 0.25, 0.25, 0.25],
    [0, 0, 1, 0],
)


def test_a_beam_finds_what_greedy_walks_past() -> None:
    options = {"max_new_tokens": 3, "stop_token": STOP}
    prompt = torch.tensor([[0]])
    assert generate(GARDEN_PATH, prompt, **options)[0, 1] == 1
    found, score = beam_search(GARDEN_PATH, prompt, num_beams=2, **options)
    assert found.tolist() == [[0, 3, STOP]]
    assert score.exp().item() == pytest.approx(0.4**0.5)


@pytest.mark.parametrize(
    ("penalty", "expected", "score"),
    [(0.0, [STOP, 0, 0], 0.5), (1.0, [1, 3, STOP], 0.4 ** (1 / 3))],
)
def test_the_length_penalty_decides_between_short_and_long(
    penalty: float, expected: list[int], score: float
) -> None:
    model = Chain([0, 0.4, 0.5, 0.1], [0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 1, 0])
    found, value = beam_search(
        model,
        torch.tensor([[0], [0]]),
        max_new_tokens=3,
        num_beams=3,
        stop_token=STOP,
        pad_token=0,
        length_penalty=penalty,
    )
    assert [[*row[1:], 0, 0][:3] for row in found.tolist()] == [expected] * 2
    assert value.exp().tolist() == pytest.approx([score] * 2)


def test_finished_and_unfinished_rows_share_a_batch() -> None:
    model = Chain([1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [1] * 5, [0, 0, 0, 1, 0], [1] * 5)
    found, score = beam_search(
        model,
        torch.tensor([[1], [3], [0]]),
        max_new_tokens=3,
        num_beams=2,
        stop_token=STOP,
        pad_token=4,
    )
    assert found.tolist() == [[1, STOP, 4, 4], [3, 3, 3, 3], [0, 0, 0, 0]]
    assert score.tolist() == [0, 0, 0]


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("position", ["rotary", "relative", "learned"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_beams_of_unequal_prompts_are_those_of_each_alone(
    family: str, position: str, use_cache: bool
) -> None:
    model = double(family, position=position)
    prompt, given = some_tokens(seq=5), source_for(model)
    lengths = (5, 2, 1)
    valid = torch.stack([torch.arange(5) >= 5 - length for length in lengths])
    options: dict[str, Any] = {
        "max_new_tokens": 5,
        "num_beams": 3,
        "stop_token": STOP,
        "use_cache": use_cache,
    }
    together, scores = beam_search(model, prompt, prompt_mask=valid, **options, **given)
    for row, length in enumerate(lengths):
        own = {name: part[row : row + 1] for name, part in given.items()}
        alone = prompt[row : row + 1, 5 - length :]
        found, score = beam_search(model, alone, **options, **own)
        new = found[0, length:]
        assert torch.equal(together[row, 5 : 5 + len(new)], new)
        assert torch.allclose(score[0], scores[row])


def test_beams_end_at_any_of_several_stop_tokens() -> None:
    model = Chain([0, 6, 3, 1], [0, 0, 1, 9], [1] * 4, [1] * 4)
    options: dict[str, Any] = {"max_new_tokens": 4, "num_beams": 2}
    prompt = torch.tensor([[0]])
    for stops, expected in (([3], [0, 1, 3]), ([2, 3], [0, 1, 3]), ([1, 2], [0, 1])):
        found, _ = beam_search(model, prompt, stop_token=stops, **options)
        assert found[0, : len(expected)].tolist() == expected


class Counted(Chain):
    """A chain that counts its passes."""

    passes = 0

    def forward(self, tokens: Tensor, *args: Any, **options: Any) -> Tensor:
        self.passes += 1
        return super().forward(tokens, *args, **options)


def test_the_search_ends_as_soon_as_nothing_better_can_come() -> None:
    model = Counted([0, 3, 7], [0, 3, 7], [1, 1, 1])
    found, _ = beam_search(
        model, torch.tensor([[0]]), max_new_tokens=9, num_beams=2, stop_token=STOP
    )
    assert found.tolist() == [[0, STOP]]
    # A sum of log 0.3 or 0.3² may still, over nine tokens, have a mean above log 0.7.
    assert model.passes == 3
    model.passes = 0
    beam_search(
        model,
        torch.tensor([[0]]),
        max_new_tokens=9,
        num_beams=2,
        stop_token=STOP,
        length_penalty=0.0,
    )
    assert model.passes == 1


def test_the_search_goes_on_while_something_better_may_come() -> None:
    model = Chain([0, 14, 86], [0, 1, 0], [1, 1, 1])
    found, score = beam_search(
        model,
        torch.tensor([[0]]),
        max_new_tokens=6,
        num_beams=2,
        stop_token=STOP,
        length_penalty=2.0,
    )
    assert found.tolist() == [[0] + [1] * 6]
    assert score.item() == pytest.approx(torch.tensor(0.14).log().item() / 36)


def test_one_new_token_is_enough_for_a_beam() -> None:
    found, _ = beam_search(
        counter(5), torch.tensor([[3]]), max_new_tokens=1, num_beams=2, stop_token=STOP
    )
    assert found.tolist() == [[3, 4]]


def test_at_the_limit_an_unfinished_beam_counts_as_finished() -> None:
    model = Chain([0, 9, 1], [0, 9, 1], [1, 1, 1])
    found, score = beam_search(
        model, torch.tensor([[0]]), max_new_tokens=3, num_beams=2, stop_token=STOP
    )
    assert found.tolist() == [[0, 1, 1, 1]]
    assert score.exp().item() == pytest.approx(0.9)


def test_a_beam_follows_any_source_mask_of_keys() -> None:
    model = double("encoder-decoder")
    prompt, source = some_tokens(seq=2), some_tokens(seq=5)

    def first_three(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return key < 3

    options: dict[str, Any] = {"max_new_tokens": 5, "num_beams": 3, "stop_token": STOP}
    found = beam_search(
        model, prompt, source=source, source_mask=first_three, **options
    )
    cut = beam_search(model, prompt, source=source[:, :3], **options)
    assert torch.equal(found[0], cut[0])


@pytest.mark.parametrize("vocab", [1, 2])
def test_beams_outnumbering_the_vocabulary_are_no_error(vocab: int) -> None:
    model = double(vocab_size=vocab)
    prompt = torch.zeros(1, 1, dtype=torch.long)
    found, score = beam_search(
        model, prompt, max_new_tokens=2, num_beams=5, stop_token=0
    )
    assert found[0, 1].item() in range(vocab)
    assert score.isfinite().all()


# -------------------------------------------------------------------------- refusals

PROMPT = torch.zeros(2, 3, dtype=torch.long)
HOLE = torch.tensor([[True, True, True], [True, True, False]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens must be at least 0, not -1"),
        ({"max_new_tokens": 14}, "3 tokens and max_new_tokens=14 .* max_seq_len=16"),
        ({"prompt_mask": HOLE[:, :2]}, r"prompt_mask \(2, 2\) .* \(2, 3\)"),
        ({"prompt_mask": HOLE}, "pad prompts on the left"),
        ({"stop_token": 11}, r"stop_token 11 is outside 0 \.\.\. 10"),
        ({"stop_token": -1}, r"stop_token -1 is outside 0 \.\.\. 10"),
        ({"stop_token": 1, "pad_token": -100}, r"pad_token -100 is outside"),
        ({"source": PROMPT}, "num_encoder_layers=0"),
        ({"stop_token": [1, 12]}, r"stop_token 12 is outside 0 \.\.\. 10"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty .* above 0, not 0\.0"),
        ({"cache": KVCache(), "use_cache": False}, "but use_cache is False"),
        ({"prompt": PROMPT[0]}, r"\[batch, seq\], not \(3,\)"),
        ({"prompt": PROMPT + 11}, "token id 11 is outside"),
    ],
)
def test_impossible_requests_are_refused(options: dict[str, Any], message: str) -> None:
    options = {"prompt": PROMPT, "max_new_tokens": 2, **options}
    with no_shape_checks(), pytest.raises(ValueError, match=message):
        generate(small_model(), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "num_beams must be at least 1, not 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, not 0"),
        ({"length_penalty": -0.5}, r"length_penalty must be at least 0, not -0\.5"),
        ({"length_penalty": float("nan")}, "length_penalty .* not nan"),
        ({"stop_token": 11}, r"stop_token 11 is outside 0 \.\.\. 10"),
        ({"pad_token": 11}, r"pad_token 11 is outside 0 \.\.\. 10"),
        ({"max_new_tokens": 14}, "max_seq_len=16"),
    ],
)
def test_impossible_beams_are_refused(options: dict[str, Any], message: str) -> None:
    options = {"num_beams": 2, "stop_token": STOP, "max_new_tokens": 2, **options}
    with pytest.raises(ValueError, match=message):
        beam_search(small_model(), PROMPT, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, not 0.0; see greedy"),
        ({"temperature": -1.0}, "temperature must be above 0, not -1.0"),
        ({"top_k": 0}, "top_k must be at least 1, not 0"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], not 0\.0"),
        ({"top_p": 1.1}, r"top_p must be in \(0, 1\], not 1\.1"),
    ],
)
def test_impossible_samples_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(**options)


def test_a_cache_that_has_read_is_refused() -> None:
    model, cache = double(), KVCache()
    model(some_tokens(seq=2), cache=cache)
    with pytest.raises(ValueError, match="has read 2 tokens: pass a new one"):
        generate(model, some_tokens(), max_new_tokens=2, cache=cache)


def test_an_encoder_generates_nothing() -> None:
    with pytest.raises(ValueError, match="num_decoder_layers=0"):
        generate(small_model("encoder"), PROMPT, max_new_tokens=1)


def test_an_encoder_decoder_needs_its_source() -> None:
    with pytest.raises(ValueError, match="either source or memory"):
        generate(small_model("encoder-decoder"), PROMPT, max_new_tokens=1)


def test_a_prompt_may_fill_the_model_to_the_last_token() -> None:
    found = generate(small_model(), PROMPT, max_new_tokens=SIZES["max_seq_len"] - 3)
    assert found.shape == (2, SIZES["max_seq_len"])
