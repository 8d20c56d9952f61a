"""The cache keeps what it was given, in order, and follows a reordering."""

import pytest
import torch

from tfcourse.model.cache import KVCache, LayerCache

# Keys and values of one token each: [2, batch, heads, 1, width].
FIRST, SECOND = torch.arange(96.0).view(2, 2, 3, 2, 1, 4)


def test_new_tokens_are_appended_in_order() -> None:
    cache = LayerCache()
    assert torch.equal(cache.append(*FIRST)[0], FIRST[0])
    key, value = cache.append(*SECOND)
    assert torch.equal(key, torch.cat((FIRST[0], SECOND[0]), dim=2))
    assert torch.equal(value, torch.cat((FIRST[1], SECOND[1]), dim=2))


def test_the_memory_is_projected_once() -> None:
    cache, calls = LayerCache(), []

    def project() -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(1)
        return FIRST[0], FIRST[1]

    assert torch.equal(cache.remember(project)[1], FIRST[1])
    assert torch.equal(cache.remember(project)[0], FIRST[0])
    assert len(calls) == 1


@pytest.mark.parametrize("rows", [[2, 0, 1], [0, 0, 0], [1]])
def test_reordering_takes_own_and_memory_along_in_all_layers(rows: list[int]) -> None:
    cache = KVCache()
    cache.layer(0).append(*FIRST)
    cache.layer(2).append(*SECOND)
    cache.layer(2).remember(lambda: (FIRST[1], SECOND[1]))
    cache.advance(1)
    cache.reorder(torch.tensor(rows))
    assert (cache.layer(1).own, cache.layer(0).memory) == (None, None)
    for kept, given in (
        (cache.layer(0).own, FIRST),
        (cache.layer(2).own, SECOND),
        (cache.layer(2).memory, (FIRST[1], SECOND[1])),
    ):
        assert kept is not None
        assert all(torch.equal(a, b[rows]) for a, b in zip(kept, given, strict=True))
    assert cache.length == 1


def test_layers_are_made_on_first_use_and_stay() -> None:
    cache = KVCache()
    assert cache.layer(3) is cache.layer(3)
    assert len(cache.layers) == 4
