"""A run that was stopped and goes on ends as if it had never been stopped."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from small_runs import BATCHES, STEPS, draw, left_behind, run, small_transformer
from torch import nn

from tfcourse.data.pairs import Batches
from tfcourse.training.averaging import moving_average
from tfcourse.training.checkpoint import CheckpointError, Checkpoints
from tfcourse.training.compute import Compute
from tfcourse.training.generators import generator_states
from tfcourse.training.history import Best, History, Log
from tfcourse.training.loop import DivergenceError, batch_loss, fit
from tfcourse.training.optimizer import sgd

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 60 steps that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


def test_a_run_killed_at_random_moments_ends_bit_for_bit_as_the_uninterrupted(
    whole: Path, tmp_path: Path
) -> None:
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(HERE.parent),
    }
    killed = subprocess.run(
        [sys.executable, HERE / "killed_runs.py", tmp_path],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        timeout=300,
    )
    assert killed.stdout == "4\n"
    ends = [folder / "step-00000060" for folder in (whole, tmp_path)]
    first, second = ((end / "model.safetensors").read_bytes() for end in ends)
    assert first == second
    assert left_behind(tmp_path) == left_behind(whole)


@pytest.mark.parametrize("first", [1, 20, 28])
def test_what_is_left_behind_is_that_of_one_run(
    first: int, whole: Path, tmp_path: Path
) -> None:
    run(tmp_path, steps=first, evaluate=draw_at_fours(first))
    history = run(tmp_path, resume=True)
    assert left_behind(tmp_path) == left_behind(whole)
    assert history.steps == list(range(1, STEPS + 1))
    assert [step for step, _ in history.evaluations] == list(range(4, STEPS + 1, 4))


def draw_at_fours(last: int) -> Any:
    """A run's last step is evaluated too, which the longer run would not do."""
    return draw if last % 4 == 0 else None


def test_the_run_depends_on_every_generator(whole: Path, tmp_path: Path) -> None:
    states = json.loads((whole / "step-00000060/state.json").read_text())
    generators = states["facts"]["generators"]
    assert len(generators) == 1
    assert set(generators[0]) == {"python", "numpy", "torch"}
    run(tmp_path, steps=28)
    for name in generators[0]:
        folder = shutil.copytree(tmp_path, tmp_path.with_name(f"other-{name}"))
        path = folder / "step-00000028/state.json"
        state = json.loads(path.read_text())
        random.seed(9)
        np.random.seed(9)
        torch.manual_seed(9)
        other = generator_states(torch.device("cpu"))[name]
        state["facts"]["generators"][0][name] = other
        path.write_text(json.dumps(state))
        run(folder, resume=True, steps=32)
        changed = [left_behind(folder), left_behind(whole)]
        kept = [
            found["log.jsonl"][28:32] if name == "torch" else evaluations(path)
            for found, path in zip(changed, (folder, whole), strict=True)
        ]
        assert kept[0] != kept[1]


def evaluations(folder: Path) -> list[list[float]]:
    newest = sorted(folder.glob("step-*"))[-1]
    state = json.loads((newest / "state.json").read_text())
    return state["facts"]["history"]["evaluations"][:8]


def test_a_finished_run_is_not_trained_on(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    model = small_transformer()
    history = run(folder, resume=True, model=model)
    assert history.steps[-1] == STEPS
    assert left_behind(folder) == left_behind(whole)
    for name, weight in load_file(whole / "step-00000060/model.safetensors").items():
        assert torch.equal(model.state_dict()[name], weight)


def test_a_resumable_run_without_a_checkpoint_begins(tmp_path: Path) -> None:
    assert run(tmp_path, resume=True, steps=3).steps == [1, 2, 3]


def test_checkpoints_of_another_run_are_not_overwritten(
    whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="has step-00000060: resume=True goes on"):
        run(whole)


def test_more_steps_than_the_run_is_to_have_are_refused(whole: Path) -> None:
    with pytest.raises(ValueError, match="step-00000060 is beyond the 59 steps"):
        run(whole, resume=True, steps=59)


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    whole: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    file = folder / "step-00000060/optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.warns(UserWarning, match="step-00000060: optimizer.safetensors is not"):
        run(folder, resume=True)
    assert left_behind(folder) == left_behind(whole)


def other_model() -> nn.Module:
    model = small_transformer()
    model.head_bias = nn.Parameter(torch.zeros(11))
    return model


def wider_model() -> nn.Module:
    model = small_transformer()
    model.embedding.weight = nn.Parameter(torch.zeros(12, 8))
    return model


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model": other_model}, "model has head_bias: missing, where the run has"),
        ({"model": wider_model}, r"\(11, 8\), where the run has torch.float32 \(12, 8"),
        ({"model": lambda: small_transformer().double()}, "has torch.float64"),
        ({"average": None}, r"holds \['average', 'model', 'optimizer'\], the run"),
        ({"optimizer": True}, "is of AdamW, the run of SGD"),
        ({"compute": Compute("fp16")}, "differ in precision"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    options: dict[str, Any], reason: str, whole: Path
) -> None:
    if "model" in options:
        options = {"model": options["model"](), "average": None}
        options["average"] = moving_average(options["model"], 0.9)
    if "optimizer" in options:
        model = small_transformer()
        options = {"model": model, "optimizer": sgd(model, lr=0.1), "lr": None}
    before = left_behind(whole)
    with (
        pytest.warns(UserWarning, match="refused"),
        pytest.raises(CheckpointError, match=reason),
    ):
        run(whole, resume=True, **options)
    assert left_behind(whole) == before


def test_an_optimizers_state_must_fit_its_parameters(tmp_path: Path) -> None:
    class Narrow(torch.optim.SGD):
        def state_dict(self) -> dict[str, Any]:
            found = super().state_dict()
            found["state"] = {0: {"momentum_buffer": torch.zeros(5)}}
            return found

    Narrow.__name__ = "SGD"
    model = small_transformer()
    wrong = Narrow(model.parameters(), lr=0.1, momentum=0.9)
    run(tmp_path, model=model, optimizer=wrong, lr=None, steps=1)
    model = small_transformer()
    right = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with (
        pytest.warns(UserWarning, match="refused"),
        pytest.raises(
            CheckpointError, match=r"no parameter for .*/momentum_buffer .*\(5,\)"
        ),
    ):
        run(tmp_path, model=model, optimizer=right, lr=None, steps=2, resume=True)


def test_other_data_are_noticed(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    other = Batches(**(vars(BATCHES) | {"seed": 1, "epochs": 20}))
    model = small_transformer()
    with pytest.raises(CheckpointError, match="step-00000060 was trained on other dat"):
        fit(
            model,
            other,
            lr=1e-2,
            average=moving_average(model),
            checkpoints=Checkpoints(folder, resume=True),
        )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("part", ["all", "decoder"])
def test_other_optimizers_go_on_as_well(
    momentum: float, part: str, tmp_path: Path
) -> None:
    ends = []
    for stops in ([8], [5, 8]):
        folder = tmp_path / str(len(stops))
        for steps in stops:
            model = small_transformer()
            trained = model if part == "all" else model.decoder
            optimizer = sgd(trained, lr=0.1, momentum=momentum, weight_decay=0.1)
            options = {"optimizer": optimizer, "lr": None, "evaluate": None}
            run(folder, resume=True, model=model, steps=steps, every=4, **options)
        ends.append(left_behind(folder))
    kept = [name for name in ends[0] if name.startswith("step-00000008")]
    assert kept
    assert all(ends[0][name] == ends[1][name] for name in kept)


def test_the_best_weights_are_kept(tmp_path: Path) -> None:
    values = iter([3.0, 5.0, 5.0, 4.0])
    seen = []

    def evaluate(model: nn.Module) -> float:
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return next(values)

    run(tmp_path, steps=16, evaluate=evaluate, best=Best())
    saved = load_file(tmp_path / "best.safetensors")
    assert all(torch.equal(saved[name], seen[1][name]) for name in saved)
    with safe_open(tmp_path / "best.safetensors", "pt") as file:
        assert file.metadata() == {"about": "step 8, evaluation 5.0"}


@pytest.mark.parametrize(
    ("best", "values", "end"),
    [
        (Best(patience=2), [1, 2, 1, 1, 9], 16),
        (Best(patience=2), [1, 2, 2, 3, 0, 0, 9], 24),
        (Best(patience=1), [1, 1, 9], 8),
        (Best(lowest=True, patience=2), [3, 2, 3, 3, 0], 16),
        (Best(lowest=True), [3, 4, 4, 4, 4], 20),
    ],
)
def test_training_stops_when_evaluations_no_longer_improve(
    best: Best, values: list[float], end: int, tmp_path: Path
) -> None:
    left = iter(values)
    options = {"evaluate": lambda model: float(next(left)), "best": best}
    history = run(tmp_path, steps=20 if end == 20 else STEPS, **options)
    assert history.steps[-1] == end
    assert (tmp_path / f"step-{end:08d}").is_dir()
    before = left_behind(tmp_path)
    again = run(tmp_path, resume=True, steps=20 if end == 20 else STEPS, **options)
    assert again.steps[-1] == end
    assert left_behind(tmp_path) == before


def fails_at(step: int) -> Any:
    def loss(model: nn.Module, batch: Any, calls: Iterator[int]) -> Any:
        total, count = batch_loss(model, batch)
        return total * (float("nan") if next(calls) == step else 1.0), count

    return partial(loss, calls=iter(range(1, 1000)))


def test_divergence_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    good = tmp_path / "step-00000007"
    with pytest.raises(DivergenceError, match=f"step 10: .* checkpoint is {good}$"):
        run(tmp_path, loss=fails_at(10))
    with pytest.raises(DivergenceError, match=f"step 9: .* checkpoint is {good}$"):
        run(tmp_path, loss=fails_at(2), resume=True)
    with pytest.raises(DivergenceError, match=r"was not taken$"):
        run(tmp_path / "none", loss=fails_at(3))


def test_seconds_go_on_from_those_saved(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    path = folder / "step-00000056/state.json"
    shutil.rmtree(folder / "step-00000060")
    state = json.loads(path.read_text())
    state["facts"]["history"]["seconds"] = 1000.0
    path.write_text(json.dumps(state))
    history = run(folder, resume=True)
    assert 1000 < history.seconds < 1100


def test_a_log_alone_needs_no_checkpoints(tmp_path: Path) -> None:
    file = tmp_path / "new" / "log.jsonl"
    run(None, steps=7, log=Log(file, every=3))
    steps = [json.loads(line)["step"] for line in file.read_text().splitlines()]
    assert steps == [3, 6]
    history: History = run(None, steps=3, log=Log(file))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert [line["loss"] for line in lines] == history.losses
    assert [line["gradient_norm"] for line in lines] == history.gradient_norms
    assert [line["learning_rate"] for line in lines] == history.learning_rates
    assert [line["tokens"] for line in lines] == history.tokens
    assert lines[-1]["seconds"] == history.seconds
    new = history.tokens[2] - history.tokens[1]
    passed = lines[2]["seconds"] - lines[1]["seconds"]
    assert lines[2]["tokens_per_second"] == pytest.approx(new / passed)
