"""The cache keeps what it was given, in order, and follows a reordering."""

import pytest
import torch
from small_models import EverythingOn, no_shape_checks, small_config

from tfcourse.model.cache import KVCache, LayerCache, StaticKVCache

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


def filled(cache: KVCache, count: int = 3) -> KVCache:
    """Let two rows read `count` tokens, whose keys and values are 1, 2, 3 ..."""
    for token in range(1, count + 1):
        cache.slots(torch.zeros(2, 1, 8))
        cache.place(torch.tensor([[token], [token + 10]]))
        for index in range(2):
            new = torch.full((2, 2, 1, 4), float(token))
            new[1] += 10
            cache.layer(index).append(new, -new)
        cache.advance(1)
    return cache


def static(capacity: int = 5) -> StaticKVCache:
    return StaticKVCache(small_config(), batch=2, capacity=capacity)


@pytest.mark.parametrize("make", [KVCache, static])
def test_slots_go_on_where_the_last_tokens_ended(make) -> None:
    cache = filled(make(), 2)
    query, key = cache.slots(torch.zeros(2, 3, 8))
    assert query.tolist() == [2, 3, 4]
    assert key.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("make", [KVCache, static])
def test_positions_are_kept_for_later_keys(make) -> None:
    cache = filled(make(), 2)
    cache.slots(torch.zeros(2, 1, 8))
    kept = cache.place(torch.tensor([[7]]))  # one row for both
    assert kept[:, :3].tolist() == [[1, 2, 7], [11, 12, 7]]


@pytest.mark.parametrize("make", [KVCache, static])
def test_what_is_cropped_is_forgotten_and_written_over(make) -> None:
    cache = filled(make(), 3)
    cache.crop(1)
    assert int(cache.length) == 1
    again = filled(cache, 2)
    assert int(again.length) == 3
    key, value = again.layer(1).own
    assert key[:, 0, :3, 0].tolist() == [[1, 1, 2], [11, 11, 12]]
    assert torch.equal(key, -value)
    again.slots(torch.zeros(2, 1, 8))
    assert again.place(torch.tensor([[9]]))[:, :4].tolist() == [
        [1, 1, 2, 9],
        [11, 11, 12, 9],
    ]


@pytest.mark.parametrize("make", [KVCache, static])
def test_positions_are_reordered_with_their_rows(make) -> None:
    cache = filled(make(), 2)
    cache.reorder(torch.tensor([1, 1]))
    cache.slots(torch.zeros(2, 1, 8))
    assert cache.place(torch.tensor([[7]]))[:, :3].tolist() == [[11, 12, 7]] * 2
    assert cache.layer(0).own[0][:, 0, :2, 0].tolist() == [[11, 12]] * 2


def test_one_row_of_positions_is_every_rows() -> None:
    cache = KVCache()
    assert cache.place(torch.tensor([[0, 1]])).shape == (1, 2)
    cache.reorder(torch.tensor([1, 0]))
    assert cache.place(torch.tensor([[2], [5]])).tolist() == [[0, 1, 2], [0, 1, 5]]


def test_a_static_cache_is_written_in_place() -> None:
    cache = static()
    before = [part.data_ptr() for layer in cache.layers for part in layer.own]
    filled(cache, 5)
    assert before == [part.data_ptr() for layer in cache.layers for part in layer.own]
    assert len(set(before)) == 4
    assert cache.layer(0).own[0].shape == (2, 2, 5, 4)


def test_a_static_cache_has_a_number_format_and_no_gradient() -> None:
    cache = StaticKVCache(small_config(), batch=2, capacity=3, dtype=torch.bfloat16)
    cache.slots(torch.zeros(2, 1, 8))
    new = torch.ones(2, 2, 1, 4, requires_grad=True)
    with pytest.raises(
        ValueError, match=r"of torch\.bfloat16 cannot keep torch\.float32"
    ):
        cache.layer(0).append(new, new)
    key, value = cache.layer(0).append(new.bfloat16(), new.bfloat16())
    assert key.dtype == value.dtype == torch.bfloat16
    assert not key.requires_grad


def test_a_full_static_cache_says_so_and_keeps_what_it_has() -> None:
    cache = filled(static(4), 3)
    with pytest.raises(ValueError, match=r"3 tokens read and 2 more .* capacity of 4"):
        cache.slots(torch.zeros(2, 2, 8))
    assert int(cache.length) == 3
    cache.slots(torch.zeros(2, 1, 8))  # the last one fits


@pytest.mark.parametrize("capacity", [1, 16])
def test_a_possible_capacity_is_taken(capacity: int) -> None:
    assert static(capacity).layer(0).own[0].shape[2] == capacity


def test_a_static_cache_is_made_and_filled_on_its_device() -> None:
    with EverythingOn("meta"):
        cache = StaticKVCache(small_config(), batch=2, capacity=4, device="meta")
        query, key = cache.slots(torch.zeros(2, 3, 8, device="meta"))
        cache.place(torch.zeros(1, 3, dtype=torch.long, device="meta"))
        new = torch.zeros(2, 2, 3, 4, device="meta")
        cache.layer(0).append(new, new)
        cache.advance(3)
    assert (query.shape, key.shape) == ((3,), (4,))


@pytest.mark.parametrize("capacity", [0, 17])
def test_an_impossible_capacity_is_refused(capacity: int) -> None:
    with (
        no_shape_checks(),
        pytest.raises(ValueError, match=rf"1 \.\.\. max_seq_len=16, not {capacity}"),
    ):
        static(capacity)


def test_other_rows_than_a_static_cache_has_are_refused() -> None:
    with pytest.raises(ValueError, match="3 rows, but a cache for 2"):
        static().slots(torch.zeros(3, 1, 8))
