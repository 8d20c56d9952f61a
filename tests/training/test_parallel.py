"""Two processes train as one does, and read each other's checkpoints."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from parallel_runs import exact
from safetensors.torch import load_file
from small_runs import BATCHES, small_transformer

from tfcourse.training.loop import fit
from tfcourse.training.optimizer import adamw

HERE = Path(__file__).parent
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process, and then of two; the latter go on from some of the first."""
    folder = tmp_path_factory.mktemp("parallel")
    exact(folder / "one", steps=12)
    exact(folder / "one-adam", steps=12, make=adamw)
    for name in ("from-one", "from-one-sharded"):
        exact(folder / name, steps=8)
    launch(TORCHRUN, "parallel_runs.py", folder)
    return folder


def launch(launcher: list[str], script: str, folder: Path) -> str:
    here = f"{HERE}{os.pathsep}{HERE.parent}"
    environment = {
        "PYTHONPATH": here,
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "1",
    }
    started = subprocess.run(
        [sys.executable, *launcher, HERE / script, folder],
        capture_output=True,
        text=True,
        env=os.environ | environment | {"CUDA_VISIBLE_DEVICES": ""},
        timeout=300,
    )
    assert started.returncode == 0, started.stderr[-4000:]
    return started.stdout


def weights(folder: Path, step: int = 12) -> dict[str, Any]:
    return load_file(folder / f"step-{step:08d}" / "model.safetensors")


def history(folder: Path, step: int = 12) -> dict[str, Any]:
    state = json.loads((folder / f"step-{step:08d}" / "state.json").read_text())
    return state["facts"]["history"]


@pytest.mark.parametrize(
    "name",
    [
        "ddp",
        "from-one",
        "chunks",
        "parts",
        "again",
        "sharded",
        "from-one-sharded",
        "parts-sharded",
    ],
)
def test_two_processes_end_with_the_weights_of_one(folder: Path, name: str) -> None:
    torch.testing.assert_close(
        weights(folder / name), weights(folder / "one"), rtol=1e-12, atol=1e-13
    )
    ours, expected = history(folder / name), history(folder / "one")
    for series in ("losses", "gradient_norms"):
        assert ours[series] == pytest.approx(expected[series], rel=1e-12)
    for series in ("steps", "tokens", "learning_rates", "evaluations"):
        assert ours[series] == expected[series]


def test_adam_on_divided_weights_ends_near_that_of_one(folder: Path) -> None:
    torch.testing.assert_close(
        weights(folder / "adam"), weights(folder / "one-adam"), rtol=1e-7, atol=1e-9
    )


@pytest.mark.parametrize("name", ["ddp", "sharded"])
def test_one_process_goes_on_with_what_two_wrote(
    folder: Path, name: str, tmp_path: Path
) -> None:
    copy = shutil.copytree(folder / name, tmp_path / "copy")
    shutil.rmtree(copy / "step-00000012")
    model = exact(copy, steps=12, resume=True)
    expected = weights(folder / "one")
    ours = {key: tensor.detach() for key, tensor in model.state_dict().items()}
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-13)


def test_a_checkpoint_holds_the_generators_of_each_process(folder: Path) -> None:
    path = folder / "ddp/step-00000012/state.json"
    generators = json.loads(path.read_text())["facts"]["generators"]
    assert len(generators) == 2
    assert generators[0]["torch"] != generators[1]["torch"]


@pytest.mark.parametrize("name", ["worst", "worst_of_one_row"])
def test_a_step_is_the_one_by_hand_with_all_reduce(folder: Path, name: str) -> None:
    assert json.loads((folder / "found.json").read_text())[name] < 1e-15


def test_the_first_process_evaluates_for_all(folder: Path) -> None:
    found = json.loads((folder / "found.json").read_text())
    assert found["evaluations"] == [[[4, 0.0]], [[4, 0.0]]]


def test_a_compiled_model_trains_and_keeps_its_names(folder: Path) -> None:
    found = json.loads((folder / "found.json").read_text())["compiled"]
    plain = fit(small_transformer(dropout=0.0), [BATCHES[0]] * 3, lr=1e-2)
    assert found["losses"] == pytest.approx(plain.losses, rel=1e-5)
    assert found["same_names"]


def test_fp16_with_divided_weights_is_refused(folder: Path) -> None:
    found = json.loads((folder / "found.json").read_text())
    assert found["fp16"] == "fp16 does not go with divided weights: use bf16"


def test_chunks_of_a_divided_head_are_refused(folder: Path) -> None:
    found = json.loads((folder / "found.json").read_text())
    message = "chunk=5: a sharded head is whole within a call only"
    assert found["chunks"] == message


def test_each_process_drops_other_units(folder: Path) -> None:
    assert json.loads((folder / "found.json").read_text())["seeds"]


def test_only_one_process_writes_the_log(folder: Path) -> None:
    lines = (folder / "ddp/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 13))
