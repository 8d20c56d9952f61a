"""Made signals beyond text: dialled numbers as sound, sessions of items, DNA."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

RATE = 4000  # samples of a sound in a second
LOW = (697.0, 770.0, 852.0, 941.0)  # Hz: the rows of a telephone's keys
HIGH = (1209.0, 1336.0, 1477.0)  # and the columns
KEYS = "123456789*0#"
BASES = "ACGT"


def key_tones(digit: int) -> tuple[float, float]:
    """Return the two frequencies, in Hz, of a telephone's digit."""
    row, column = divmod(KEYS.index(str(digit)), 3)
    return LOW[row], HIGH[column]


def dialled(
    digits: Int[Tensor, "count dialled"],
    *,
    noise: float,
    generator: torch.Generator,
    tone: int = 256,
    length: int = 1920,
) -> Float[Tensor, "count length"]:
    """Return the sound of dialling digits one after the other, at random times.

    A digit is two tones at once of random phase and loudness, `tone` samples long; no
    two digits overlap. White noise of that standard deviation is over all. Tones that
    do not fit into `length` samples and noise below 0 raise `ValueError`.
    """
    count, places = digits.shape
    spare = length - places * tone
    if noise < 0 or tone < 1 or spare < 0:
        raise ValueError(
            "dialled needs noise of at least 0 and room for all tones, not "
            f"noise={noise}, tone={tone}, length={length} for {places} digits"
        )
    pitches = torch.tensor([key_tones(digit) for digit in range(10)])[digits]
    time = torch.arange(tone) / RATE
    phase = torch.rand(count, places, 2, 1, generator=generator)
    loud = 0.5 + torch.rand(count, places, 2, 1, generator=generator)
    turns = pitches[..., None] * time + phase
    beeps = (loud * torch.sin(2 * torch.pi * turns)).sum(2)  # [count places tone]
    pauses = torch.randint(spare + 1, (count, places), generator=generator)
    starts = pauses.sort(1).values + tone * torch.arange(places)
    waves = torch.randn(count, length, generator=generator) * noise
    at = starts[..., None] + torch.arange(tone)
    return waves.scatter_add(1, at.flatten(1), beeps.flatten(1))


def spectrogram(
    waves: Float[Tensor, "count samples"], *, window: int = 128, hop: int = 128
) -> Float[Tensor, "count frames bins"]:
    """Return how loud each frequency is in each frame, as a logarithm.

    Bin k is RATE / window * k Hz; a frame begins every `hop` samples.
    """
    shape = torch.hann_window(window, device=waves.device)
    found = torch.stft(
        waves, window, hop, window=shape, return_complex=True, center=False
    )
    return torch.log1p(found.abs()).transpose(1, 2)


def next_episode(items: Tensor, *, episodes: int) -> Tensor:
    """Return the items that follow: after the last episode comes the first again."""
    series, episode = items // episodes, items % episodes
    return series * episodes + (episode + 1) % episodes


def sessions(
    count: int,
    *,
    length: int,
    series: int,
    episodes: int,
    switch: float,
    generator: torch.Generator,
) -> Int[Tensor, "count length"]:
    """Return what viewers saw: each follows two series at once, by turns.

    Items are numbers, series * episodes + episode. With probability `switch` the next
    item continues the other series, otherwise the same one, always where the viewer
    left it. So with 0 the last item tells the next. Fewer than 2 series, sizes below 1
    and a probability outside 0 to 1 raise `ValueError`.
    """
    if series < 2 or min(count, length, episodes) < 1 or not 0 <= switch <= 1:
        raise ValueError(
            "sessions need 2 series, sizes of at least 1 and a switch from 0 to 1, not "
            f"series={series}, count={count}, length={length}, episodes={episodes} and "
            f"switch={switch}"
        )
    two = torch.rand(count, series, generator=generator).argsort(1)[:, :2]
    seen = torch.randint(episodes, (count, 2), generator=generator)
    at = two * episodes + seen  # [count 2]: what comes next in each series
    turns = torch.rand(count, length, generator=generator) < switch
    which = turns.cumsum(1) % 2
    row, items = torch.arange(count), torch.empty(count, length, dtype=torch.long)
    for place in range(length):
        mine = which[:, place]
        items[:, place] = at[row, mine]
        at[row, mine] = next_episode(at[row, mine], episodes=episodes)
    return items


def two_motifs(
    count: int,
    *,
    length: int,
    by_order: bool,
    generator: torch.Generator,
    motifs: tuple[str, str] = ("TTGACA", "TATAAT"),
) -> tuple[Int[Tensor, "count length"], Int[Tensor, " count"]]:
    """Return random DNA with two motifs in it, and what is to be told of each row.

    Rows are numbers into BASES; the motifs, of equal length, stand at random places, so
    far from each other and from the ends that no piece as long as a motif tells their
    order. `by_order`: the label is 1 where the first motif stands first, and 0 where
    it stands second. Otherwise it is 1 where both are there and 0 where the second is
    missing. A `length` without room for both raises `ValueError`.
    """
    first, second = (torch.tensor([*map(BASES.index, motif)]) for motif in motifs)
    size = len(first)
    apart = size - 1
    spare = length - 2 * size - 3 * apart
    if spare < 0 or len(second) != size or count < 1:
        raise ValueError(
            "two_motifs needs a count and room for two motifs of equal length, not "
            f"count={count}, length={length} and motifs={motifs}"
        )
    labels = torch.randint(2, (count,), generator=generator)
    bases = torch.randint(len(BASES), (count, length), generator=generator)
    starts = torch.randint(spare + 1, (count, 2), generator=generator).sort(1).values
    places = starts + torch.tensor([apart, 2 * apart + size])
    if by_order:
        places = torch.where(labels[:, None] == 1, places, places.flip(1))
    for place, motif in zip(places.unbind(1), (first, second), strict=True):
        here = torch.ones_like(labels, dtype=torch.bool)
        if motif is second and not by_order:
            here = labels == 1
        at = place[here][:, None] + torch.arange(size)
        bases[here] = bases[here].scatter(1, at, motif.expand(len(at), -1))
    return bases, labels
