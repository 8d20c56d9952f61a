"""Made signals: the frequencies, the next item and the motifs are what they say."""

import pytest
import torch

from tfcourse.data.signals import (
    BASES,
    RATE,
    dialled,
    key_tones,
    next_episode,
    sessions,
    spectrogram,
    two_motifs,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def text(row: torch.Tensor) -> str:
    return "".join(BASES[base] for base in row.tolist())


def test_a_digit_has_its_row_s_and_its_column_s_tone() -> None:
    assert key_tones(1) == (697.0, 1209.0)
    assert key_tones(6) == (770.0, 1477.0)
    assert key_tones(0) == (941.0, 1336.0)


def test_the_loudest_frequencies_are_the_digit_s_tones() -> None:
    digits = torch.arange(10)[:, None]
    waves = dialled(digits, noise=0.0, generator=generator(), length=256)
    bins = spectrogram(waves, window=256)[:, 0]  # [10 bins]
    for digit, loud in enumerate(bins):
        low, high = key_tones(digit)
        split = round(1075 * 256 / RATE)  # between rows and columns
        found = loud[:split].argmax(), split + loud[split:].argmax()
        for bin_, pitch in zip(found, (low, high), strict=True):
            assert abs(int(bin_) * RATE / 256 - pitch) <= RATE / 256


def test_digits_sound_in_order_and_do_not_overlap() -> None:
    digits = torch.tensor([[3, 7]]).expand(200, -1)
    waves = dialled(digits, noise=0.0, generator=generator(), tone=50, length=200)
    assert ((waves != 0).sum(1) <= 100).all()
    assert ((waves != 0).sum(1) >= 95).all()  # a sine may pass through zero
    alone = dialled(digits, noise=0.0, generator=generator(), tone=100, length=200)
    assert (alone[:, :100] != 0).float().mean() > 0.98


def test_noise_covers_the_whole_sound() -> None:
    waves = dialled(torch.zeros(50, 1, dtype=torch.long), noise=0.5,
                    generator=generator(), tone=1, length=400)  # fmt: skip
    assert waves.std().item() == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("wrong", [{"noise": -1.0}, {"length": 100}, {"tone": 0}])
def test_sounds_that_cannot_be_are_refused(wrong: dict) -> None:
    digits = torch.zeros(1, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="room for all tones"):
        dialled(digits, **{"noise": 0.0, "generator": generator(), **wrong})


def test_after_the_last_episode_comes_the_first() -> None:
    items = torch.tensor([0, 3, 4, 7])
    assert next_episode(items, episodes=4).tolist() == [1, 0, 5, 4]


def test_without_switching_each_item_follows_the_last() -> None:
    rows = sessions(50, length=9, series=3, episodes=4, switch=0.0,
                    generator=generator())  # fmt: skip
    assert torch.equal(next_episode(rows[:, :-1], episodes=4), rows[:, 1:])


def test_a_viewer_follows_two_series_and_continues_each_where_it_was_left() -> None:
    rows = sessions(200, length=12, series=6, episodes=5, switch=0.8,
                    generator=generator())  # fmt: skip
    other = 0
    for row in rows.tolist():
        assert len({item // 5 for item in row}) <= 2
        last: dict[int, int] = {}
        for before, item in zip([None, *row], row, strict=False):
            name = item // 5
            if name in last:
                assert item == name * 5 + (last[name] % 5 + 1) % 5
            last[name] = item
            other += before is not None and before // 5 != name
    assert other / (200 * 11) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("wrong", [{"series": 1}, {"switch": 1.5}, {"length": 0}])
def test_sessions_that_cannot_be_are_refused(wrong: dict) -> None:
    sizes = {"length": 4, "series": 2, "episodes": 3, "switch": 0.5}
    with pytest.raises(ValueError, match="sessions need"):
        sessions(2, **{**sizes, **wrong}, generator=generator())


def test_the_label_says_which_motif_stands_first() -> None:
    rows, labels = two_motifs(300, length=30, by_order=True, generator=generator())
    assert 100 < labels.sum() < 200
    for row, label in zip(rows, labels.tolist(), strict=True):
        # chance may write a motif once more, so look for one pair in that order
        pair = ("TTGACA", "TATAAT") if label else ("TATAAT", "TTGACA")
        assert pair[1] in text(row)[text(row).index(pair[0]) + 6 :]


def test_the_label_says_whether_both_motifs_are_there() -> None:
    rows, labels = two_motifs(300, length=32, by_order=False, generator=generator())
    found = [("TTGACA" in text(row), "TATAAT" in text(row)) for row in rows]
    assert all(first for first, _ in found)
    agree = [
        second == bool(label) for (_, second), label in zip(found, labels, strict=True)
    ]
    assert sum(agree) / len(agree) > 0.98


def test_motifs_need_room() -> None:
    with pytest.raises(ValueError, match="room for two motifs"):
        two_motifs(3, length=26, by_order=True, generator=generator())
