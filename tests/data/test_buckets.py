"""Buckets: every pair once, within the budget, with little padding."""

import random
from collections import Counter

import pytest
import torch

from tfcourse.data.buckets import BucketedBatches, padding_share
from tfcourse.data.pairs import Batch, Batches, prefix_batch, translation_batch
from tfcourse.data.tokenizers import Tokenizer

TOKENIZER = Tokenizer.from_texts(["0123456789"])


def pairs(count: int = 400) -> list[tuple[str, str]]:
    """Number pairs, unlike each other, of 3 to 40 digits, both sides about equal."""
    drawn = random.Random(0)
    lengths = [min(40, 3 + int(drawn.expovariate(0.1))) for _ in range(count)]
    return [
        (f"{n:03}" + "1" * (length - 3), f"{n:03}" + "2" * drawn.randint(0, length - 3))
        for n, length in enumerate(lengths)
    ]


PAIRS = pairs()
BATCHES = BucketedBatches(PAIRS, TOKENIZER, max_tokens=200, epochs=3)


def sources(batch: Batch) -> list[str]:
    assert batch.source is not None
    return [TOKENIZER.decode(row) for row in batch.source]


def test_every_pair_is_there_once_an_epoch() -> None:
    found = list(map(sources, BATCHES))
    assert len(found) == len(BATCHES) == 3 * BATCHES.per_epoch
    for epoch in range(3):
        part = found[epoch * BATCHES.per_epoch : (epoch + 1) * BATCHES.per_epoch]
        assert sorted(text for row in part for text in row) == [s for s, _ in PAIRS]


def test_no_batch_is_over_the_budget_and_none_could_take_more() -> None:
    for batch in BATCHES:
        assert max(batch.tokens.numel(), batch.source.numel()) <= 200
    full = [max(b.tokens.numel(), b.source.numel()) for b in BATCHES]
    assert sum(full) / len(full) > 0.85 * 200


def test_a_batch_has_at_most_size_rows() -> None:
    batches = BucketedBatches(PAIRS, TOKENIZER, max_tokens=200, size=6)
    rows = [len(batch.tokens) for batch in batches]
    assert max(rows) == 6
    assert sum(rows) == len(PAIRS)


def test_padding_is_far_less_than_without_buckets() -> None:
    mixed = Batches(PAIRS, TOKENIZER, size=len(PAIRS) // BATCHES.per_epoch)
    assert len(mixed) >= BATCHES.per_epoch
    assert padding_share(BATCHES) < 0.5 * padding_share(mixed)


def test_the_padding_share_is_that_of_all_places() -> None:
    batch = translation_batch([("123", "4"), ("1", "12")], TOKENIZER)
    assert padding_share([batch]) == 3 / 12
    assert padding_share([Batch(batch.tokens, batch.target)]) == 1 / 6


def test_a_batch_depends_on_its_number_and_the_seed_alone() -> None:
    found = list(map(sources, BATCHES))
    torch.manual_seed(5)
    again = BucketedBatches(PAIRS, TOKENIZER, max_tokens=200, epochs=3)
    for k in (len(again) - 1, 0, again.per_epoch):
        assert sources(again[k]) == found[k]
    other = BucketedBatches(PAIRS, TOKENIZER, max_tokens=200, epochs=3, seed=1)
    assert list(map(sources, other)) != found


def test_short_and_long_batches_are_mixed_anew_each_epoch() -> None:
    widths = [batch.source.shape[1] for batch in BATCHES]
    cut = BATCHES.per_epoch
    assert Counter(widths[:cut]) == Counter(widths[cut : 2 * cut])
    assert widths[:cut] != widths[cut : 2 * cut]
    for epoch in (widths[:cut], widths[cut : 2 * cut]):
        assert epoch not in (sorted(epoch), sorted(epoch, reverse=True))


def test_pairs_of_one_length_change_their_company() -> None:
    same = [(f"{n:03}", f"{n:03}") for n in range(40)]
    batches = BucketedBatches(same, TOKENIZER, max_tokens=20, epochs=2)
    rows = [frozenset(sources(batch)) for batch in batches]
    assert set(rows[: batches.per_epoch]) != set(rows[batches.per_epoch :])


def test_the_budget_is_of_what_the_batch_is_made_to_be() -> None:
    batches = BucketedBatches(PAIRS, TOKENIZER, prefix_batch, max_tokens=200)
    assert max(batch.tokens.numel() for batch in batches) <= 200
    assert sum(len(batch.tokens) for batch in batches) == len(PAIRS)


@pytest.mark.parametrize("pair", [("1" * 21, "2"), ("1", "2" * 20)])
def test_a_pair_longer_than_the_budget_is_named(pair: tuple[str, str]) -> None:
    fits = (pair[0][:20], pair[1][:19])
    assert len(BucketedBatches([fits], TOKENIZER, max_tokens=20)) == 1
    with pytest.raises(ValueError, match=f"max_tokens=20, but .*{pair[0]}.* takes 21"):
        BucketedBatches([fits, pair], TOKENIZER, max_tokens=20)


def test_what_batches_refuse_is_refused() -> None:
    with pytest.raises(ValueError, match="size must be at least 1, not 0"):
        BucketedBatches(PAIRS, TOKENIZER, size=0)
    with pytest.raises(ValueError, match="no items"):
        BucketedBatches([], TOKENIZER)
    with pytest.raises(IndexError, match="batch"):
        BATCHES[len(BATCHES)]
