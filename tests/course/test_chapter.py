"""A chapter starts with checked parameters, the same random numbers, one thread."""

import random
from collections.abc import Iterator

import matplotlib
import numpy as np
import pytest
import torch

from tfcourse.course import chapter


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    threads = torch.get_num_threads()
    with matplotlib.rc_context():
        yield
    torch.set_num_threads(threads)


def test_a_chapter_knows_its_parameters() -> None:
    run = chapter.start(6, size="laptop", device="cpu", seed=3)
    assert (run.number, run.size, run.seed) == (6, "laptop", 3)
    assert run.device == torch.device("cpu")


def test_two_starts_give_the_same_random_numbers() -> None:
    def draw(seed: int) -> tuple[float, float, float]:
        chapter.start(1, size="smoke", device="cpu", seed=seed)
        return random.random(), np.random.rand(), torch.rand(1).item()

    first, again, other = draw(0), draw(0), draw(1)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_a_chapter_on_the_cpu_uses_one_thread() -> None:
    torch.set_num_threads(2)
    chapter.start(1, size="laptop", device="cpu", seed=0)
    assert torch.get_num_threads() == 1


def test_a_start_sets_the_figure_style() -> None:
    matplotlib.rcdefaults()
    chapter.start(1, size="laptop", device="cpu", seed=0)
    assert matplotlib.rcParams["image.cmap"] == "tf_heat"


@pytest.mark.parametrize(
    ("size", "value", "trained"),
    [("smoke", 1, False), ("laptop", 2, True), ("gpu", 3, True)],
)
def test_values_are_picked_by_size(size: str, value: int, trained: bool) -> None:
    run = chapter.start(1, size=size, device="cpu", seed=0)
    assert run.pick(smoke=1, laptop=2, gpu=3) == value
    assert run.trained is trained


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"number": 11},
            "unknown chapter 11; known: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10b",
        ),
        ({"size": "tiny"}, "unknown size 'tiny'; known: smoke, laptop, gpu"),
        ({"device": "tpu"}, "unknown device 'tpu'; known: auto, cpu, cuda, mps"),
        ({"seed": -1}, r"from 0 to 2\*\*32 - 1, got -1"),
        ({"seed": 2**32}, "got 4294967296"),
        ({"seed": 1.0}, r"got 1\.0"),
        ({"seed": True}, "got True"),
    ],
)
def test_unknown_parameters_are_refused_with_the_known(
    change: dict[str, object], said: str
) -> None:
    given = {"number": 1, "size": "smoke", "device": "cpu", "seed": 0} | change
    with pytest.raises(ValueError, match=said):
        chapter.start(given.pop("number"), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_best_device_there_is(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert chapter.choose_device("auto").type == chosen
    absent = {"cuda": cuda, "mps": mps}
    for name in (name for name, present in absent.items() if not present):
        with pytest.raises(ValueError, match=f"'{name}' is not on this machine; known"):
            chapter.choose_device(name)
