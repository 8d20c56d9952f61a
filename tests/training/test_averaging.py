"""Averages of weights: the moving one is the recurrence, that of files the mean."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_models import small_model
from small_runs import run, small_transformer
from torch import nn

from tfcourse.training.averaging import average_weights, moving_average


@pytest.mark.parametrize("decay", [0.0, 0.75, 1.0])
def test_the_moving_average_is_its_recurrence(decay: float) -> None:
    layer = nn.Linear(3, 2)
    average = moving_average(layer, decay)
    expected = None
    for _ in range(4):
        with torch.no_grad():
            layer.weight.normal_()
        average.update_parameters(layer)
        now = layer.weight.detach().clone()
        expected = now if expected is None else decay * expected + (1 - decay) * now
        torch.testing.assert_close(average.module.weight.detach(), expected)


def test_fit_follows_the_weights_without_changing_them() -> None:
    plain, averaged = small_transformer(), small_transformer()
    average = moving_average(averaged, 0.0)
    history = run(None, steps=5, model=plain, average=None)
    assert run(None, steps=5, model=averaged, average=average).losses == history.losses
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, average.module.state_dict()[name])
    assert average.n_averaged == 5


@pytest.mark.parametrize("decay", [-0.1, 1.1, float("nan")])
def test_an_impossible_decay_is_named(decay: float) -> None:
    with pytest.raises(ValueError, match=rf"decay must be in \[0, 1\], not {decay}"):
        moving_average(nn.Linear(2, 2), decay)


def test_the_average_of_files_is_the_mean_and_a_model_loads_it(tmp_path: Path) -> None:
    model = small_model()
    files, seen = [], []
    for index in range(3):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_()
        seen.append({n: t.clone() for n, t in model.state_dict().items()})
        files.append(tmp_path / f"{index}.safetensors")
        save_file(seen[-1], files[-1])
    mean = average_weights(files)
    for name in mean:
        stacked = torch.stack([weights[name].double() for weights in seen])
        assert torch.equal(mean[name], stacked.mean(0).float())
    model.load_state_dict(mean)
    one = average_weights(files[:1])
    assert all(torch.equal(one[name], seen[0][name]) for name in one)


def test_sums_are_exact_where_16_bits_would_not_be(tmp_path: Path) -> None:
    files = []
    for index, value in enumerate([256.0] + [1.0] * 15):
        files.append(tmp_path / f"{index}.safetensors")
        weights = {"w": torch.tensor([value], dtype=torch.bfloat16)}
        save_file(weights | {"steps": torch.tensor(7)}, files[-1])
    mean = average_weights(files)
    assert mean["w"].dtype == torch.bfloat16
    assert mean["w"].item() == torch.tensor(271 / 16).bfloat16().item()
    assert torch.equal(mean["steps"], torch.tensor(7))


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"w": torch.ones(2)}, "only one of them has n"),
        ({"w": torch.ones(3), "n": torch.tensor(1)}, r"w is torch.float32 \(2,\) and"),
        (
            {"w": torch.ones(2).double(), "n": torch.tensor(1)},
            r"w is torch.float32 \(2,\) and torch.float64 \(2,\)",
        ),
        ({"w": torch.ones(2), "n": torch.tensor(2)}, "n is not floating, and differs"),
    ],
)
def test_files_of_different_models_are_refused(
    other: dict[str, torch.Tensor], reason: str, tmp_path: Path
) -> None:
    save_file({"w": torch.ones(2), "n": torch.tensor(1)}, tmp_path / "a")
    save_file(other, tmp_path / "b")
    with pytest.raises(ValueError, match=f"b does not go with .*a: {reason}"):
        average_weights([tmp_path / "a", tmp_path / "b"])


def test_no_files_are_refused() -> None:
    with pytest.raises(ValueError, match="no files to average"):
        average_weights([])
