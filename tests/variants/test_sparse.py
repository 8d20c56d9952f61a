"""Sparse rules allow what they say, and reach as far as they promise."""

import pytest
import torch
from small_models import small_model
from torch import Tensor

from tfcourse.model.masks import MaskRule, both, causal, dense, sliding_window
from tfcourse.variants.sparse import (
    big_bird,
    block_window,
    either,
    every,
    global_tokens,
    longformer,
    strided,
    window,
)


def written(rule: MaskRule, seq: int = 6) -> list[str]:
    """Return one string a row: x where attention is allowed."""
    slots = torch.arange(seq)
    mask = dense(rule, batch=1, query=slots, key=slots)[0, 0]
    return ["".join(".x"[int(cell)] for cell in row) for row in mask.expand(seq, seq)]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (window(0), "x..... .x.... ..x... ...x.. ....x. .....x"),
        (window(1), "xx.... xxx... .xxx.. ..xxx. ...xxx ....xx"),
        (window(2), "xxx... xxxx.. xxxxx. .xxxxx ..xxxx ...xxx"),
        (global_tokens(1), "xxxxxx x..... x..... x..... x..... x....."),
        (global_tokens(2), "xxxxxx xxxxxx xx.... xx.... xx.... xx...."),
        (block_window(2, 0), "xx.... xx.... ..xx.. ..xx.. ....xx ....xx"),
        (block_window(2), "xxxx.. xxxx.. xxxxxx xxxxxx ..xxxx ..xxxx"),
        (block_window(4), 6 * "xxxxxx "),
        (every(1), "x..... xx.... xxx... xxxx.. xxxxx. xxxxxx"),
        (every(2), "x..... .x.... x.x... .x.x.. x.x.x. .x.x.x"),
        (strided(3), "x..... xx.... xxx... xxxx.. .xxxx. ..xxxx"),
        (strided(2), "x..... xx.... xxx... .xxx.. x.xxx. .x.xxx"),
        (longformer(1, 1), "xxxxxx xxx... xxxx.. x.xxx. x..xxx x...xx"),
        (big_bird(2, 1, 0), "xxxxxx xxxxxx xxxx.. xxxx.. xx..xx xx..xx"),
        (big_bird(1, 1), "xxxxxx xxx... xxxx.. x.xxx. x..xxx x...xx"),
        (both(causal, longformer(1, 1)), "x..... xx.... xxx... x.xx.. x..xx. x...xx"),
        (
            either(sliding_window(1), global_tokens(1)),
            "xxxxxx xx.... x.x... x..x.. x...x. x....x",
        ),
    ],
)
def test_rules_allow_what_they_say(rule: MaskRule, expected: str) -> None:
    assert written(rule) == expected.split()


def test_both_sides_of_either_may_look_at_the_head_and_the_row() -> None:
    def own_row(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return batch == key

    def own_head(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return head == key

    slots = torch.arange(2)
    mask = dense(either(own_row, own_head), batch=2, heads=2, query=slots, key=slots)
    assert mask.shape == (2, 2, 1, 2)
    expected = [[[[1, 0]], [[1, 1]]], [[[1, 1]], [[0, 1]]]]
    assert torch.equal(mask, torch.tensor(expected).bool())


def reached(rule: MaskRule, layers: int, seq: int) -> Tensor:
    """Return which keys each query is connected with through so many layers."""
    slots = torch.arange(seq)
    step = dense(rule, batch=1, query=slots, key=slots)[0, 0].double()
    return torch.linalg.matrix_power(step, layers) > 0


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_layers_of_windows_reach_as_many_windows_back(layers: int) -> None:
    size, seq = 3, 12
    back = layers * (size - 1)
    expected = written(sliding_window(back + 1), seq)
    found = reached(sliding_window(size), layers, seq)
    assert ["".join(".x"[int(cell)] for cell in row) for row in found] == expected


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_model_of_windows_reads_exactly_so_far_back(layers: int) -> None:
    model = small_model(num_decoder_layers=layers, dtype=torch.float64).eval()
    tokens, back = torch.randint(11, (1, 12)), layers * 2
    expected = model(tokens, mask=sliding_window(3))[0, -1]
    for distance in range(1, 12):
        changed = tokens.clone()
        changed[0, -1 - distance] = (changed[0, -1 - distance] + 1) % 11
        found = model(changed, mask=sliding_window(3))[0, -1]
        assert torch.equal(found, expected) == (distance > back)


def test_two_strided_layers_reach_all_that_came_before() -> None:
    everything = torch.ones(30, 30, dtype=torch.bool).tril()
    assert torch.equal(reached(strided(5), 2, 30), everything)
    assert not torch.equal(reached(strided(5), 1, 30), everything)


def test_a_global_token_joins_all_others_in_two_layers() -> None:
    assert not bool(reached(window(1), 2, 30).all())
    assert bool(reached(longformer(1, 1), 2, 30).all())
    assert bool(reached(big_bird(3, 1), 2, 30).all())


@pytest.mark.parametrize(
    ("rule", "seen", "global_slots"),
    [(longformer(4, 2), 2 * 4 + 1, 2), (big_bird(4, 1), 3 * 4, 4)],
)
def test_the_pairs_allowed_grow_linearly_with_the_length(
    rule: MaskRule, seen: int, global_slots: int
) -> None:
    """A further slot sees its window and the global slots, which see it in turn."""
    short, long = (sum(row.count("x") for row in written(rule, n)) for n in (64, 256))
    assert long - short == (256 - 64) * (seen + 2 * global_slots)


@pytest.mark.parametrize(
    ("make", "value", "message"),
    [
        (window, -1, "radius must be at least 0, not -1"),
        (global_tokens, 0, "count must be at least 1, not 0"),
        (block_window, 0, "size must be at least 1, not 0"),
        (every, 0, "stride must be at least 1, not 0"),
        (lambda value: block_window(2, value), -1, "radius must be at least 0, not -1"),
    ],
)
def test_sizes_that_mean_nothing_are_refused(make, value: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(value)


def test_rules_work_on_scalars_as_flex_attention_calls_them() -> None:
    one, two = torch.tensor(1), torch.tensor(2)
    for rule in (strided(2), longformer(1, 1), big_bird(2, 1)):
        assert rule(one, one, two, one).item() is True
