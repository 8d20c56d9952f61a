"""A recipe's run: what it leaves in its folder, resumed, read back, and refused."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tfcourse.data.tokenizers import Tokenizer
from tfcourse.model.transformer import Transformer
from tfcourse.recipes import run as runs
from tfcourse.recipes.catalogue import RECIPES, recipe
from tfcourse.recipes.run import (
    config_of,
    device_of,
    evaluate_run,
    load_run,
    schedule_of,
    train,
)
from tfcourse.training.averaging import average_weights
from tfcourse.training.checkpoint import checkpoint_folders
from tfcourse.training.schedules import cosine, inverse_sqrt, linear

# Some seconds of a date translator of one layer each.
SMALL: dict[str, Any] = {
    "count": 60,
    "steps": 6,
    "batch": 8,
    "warmup": 2,
    "d_model": 16,
    "d_ff": 16,
    "num_heads": 2,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
    "max_seq_len": 16,
    "evaluate_every": 3,
    "checkpoint_every": 2,
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def _few_dates_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations are not what most of these tests are about."""
    monkeypatch.setattr("tfcourse.recipes.translation.LOOKED_AT", 8)
    monkeypatch.setattr("tfcourse.recipes.translation.TESTED_ON", 8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    train("dates", tmp_path / "run", SMALL)
    return tmp_path / "run"


def test_a_run_leaves_all_that_a_reader_needs(folder: Path) -> None:
    written = {path.name for path in folder.iterdir()}
    assert written == {
        "settings.json",
        "tokenizer.json",
        "log.jsonl",
        "checkpoints",
        "model.safetensors",
    }
    saved = json.loads((folder / "settings.json").read_text())
    assert saved["recipe"] == "dates"
    assert saved["settings"] == recipe("dates").settings.changed(SMALL).to_dict()
    lines = [json.loads(n) for n in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "evaluation" in line] == [3, 6]


def test_a_run_read_back_is_the_model_that_was_trained(folder: Path) -> None:
    found = load_run(folder, "cpu")
    assert (found.name, found.model.training) == ("dates", False)
    last = load_file(checkpoint_folders(folder / "checkpoints")[-1] / runs.WEIGHTS)
    for name, tensor in found.model.state_dict().items():
        assert torch.equal(tensor, last[name])
    assert found.model.config == config_of(found.settings, found.tokenizer)


def test_the_result_is_the_mean_of_the_last_checkpoints(tmp_path: Path) -> None:
    train("dates", tmp_path, {**SMALL, "average": 3})
    files = [f / runs.WEIGHTS for f in checkpoint_folders(tmp_path / "checkpoints")]
    assert [file.parent.name[-1] for file in files] == ["2", "4", "6"]
    mean, result = average_weights(files), load_file(tmp_path / runs.WEIGHTS)
    assert all(torch.equal(result[name], mean[name]) for name in mean)
    assert not torch.equal(
        load_file(files[-1])["embedding.weight"], mean["embedding.weight"]
    )


def test_the_result_can_be_the_best_weights(tmp_path: Path) -> None:
    looked = iter([0.9, 0.1])
    original = RECIPES["dates"].task

    def task(*arguments: Any) -> Any:
        return replace(original(*arguments), validate=lambda _: next(looked))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "dates", replace(RECIPES["dates"], task=task))
        train("dates", tmp_path, {**SMALL, "result": "best"})
    best = load_file(tmp_path / "checkpoints" / "best.safetensors")
    result = load_file(tmp_path / runs.WEIGHTS)
    assert all(torch.equal(result[name], best[name]) for name in best)
    last = load_file(checkpoint_folders(tmp_path / "checkpoints")[-1] / runs.WEIGHTS)
    assert not torch.equal(last["embedding.weight"], best["embedding.weight"])


def test_resuming_a_finished_run_changes_nothing(folder: Path) -> None:
    before = (folder / runs.WEIGHTS).read_bytes()
    history = train("dates", folder, SMALL, resume=True)
    assert history.steps == [1, 2, 3, 4, 5, 6]
    assert (folder / runs.WEIGHTS).read_bytes() == before


def test_resume_begins_where_there_is_nothing_yet(tmp_path: Path) -> None:
    assert len(train("dates", tmp_path / "new", SMALL, resume=True).steps) == 6


def test_a_folder_with_a_run_is_not_overwritten(folder: Path) -> None:
    before = (folder / runs.WEIGHTS).read_bytes()
    with pytest.raises(ValueError, match=f"{folder} has a run: --resume"):
        train("dates", folder, SMALL)
    assert (folder / runs.WEIGHTS).read_bytes() == before


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("dates", {"lr": 0.5}, "begun with lr=0.002, not 0.5"),
        ("summaries", {}, "begun with recipe=dates, not summaries"),
    ],
)
def test_a_run_goes_on_with_the_settings_it_began_with(
    folder: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    known = SMALL if name == "dates" else {}
    with pytest.raises(ValueError, match=message):
        train(name, folder, {**known, **changes}, resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nose": 1}, "unknown setting nose; known: source, target"),
        ({"steps": "many"}, "steps must be int, not 'many'"),
        ({"warmup": 6}, "total=6 steps must be more than warmup=6"),
        (
            {"schedule": "warmup_stable_decay", "decay": 5},
            "decay must be between 0 and the 4 steps after the warm-up, not 5",
        ),
        ({"num_heads": 3}, "num_heads=3"),
        ({"source": "xx"}, "no locale 'xx'"),
        ({"average": 0}, "average must be at least 1, not 0"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train("dates", tmp_path / "run", {**SMALL, **changes})
    assert not (tmp_path / "run").exists()


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"'nap'; known: captions, dates, .*multi30k.*sst2"
    ):
        recipe("nap")


def test_only_a_finished_run_is_read(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no run"):
        load_run(tmp_path)
    (folder / runs.WEIGHTS).unlink()
    with pytest.raises(ValueError, match="an unfinished run: --resume goes on"):
        load_run(folder)


@pytest.mark.parametrize("damage", ["cut off", "of another model"])
def test_weights_that_are_not_the_run_s_are_refused(folder: Path, damage: str) -> None:
    path = folder / runs.WEIGHTS
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:99])
    else:
        save_file({"embedding.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(ValueError, match=r"model\.safetensors is not of this run"):
        load_run(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "of another"}'])
def test_a_foreign_settings_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ValueError, match=r"settings\.json is not of a run"):
        load_run(tmp_path)


def test_evaluation_is_printed_and_kept(folder: Path) -> None:
    scores = evaluate_run(folder, "cpu")
    assert [score.name for score in scores] == ["accuracy", "BLEU", "chrF"]
    kept = json.loads((folder / "evaluation.json").read_text())
    assert [entry["value"] for entry in kept] == [score.value for score in scores]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", 1.0),
        ("inverse_sqrt", inverse_sqrt(5, 2)),
        ("linear", linear(5, 6, 2)),
        ("cosine", cosine(5, 6, 2)),
        ("warmup_stable_decay", 0.5),
    ],
)
def test_the_schedule_is_the_one_that_is_set(name: str, expected: float) -> None:
    changes = {**SMALL, "schedule": name, "decay": 2}
    training = recipe("dates").settings.changed(changes).training
    assert schedule_of(training)(5) == expected
    assert schedule_of(training)(1) == 0.5


def test_the_device_is_the_one_that_is_set() -> None:
    def of(name: str) -> torch.device:
        return device_of(recipe("dates").settings.changed({"device": name}).training)

    assert of("meta") == torch.device("meta")
    found = torch.accelerator.current_accelerator()
    assert of("auto") == (torch.device("cpu") if found is None else found)


def test_settings_reach_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def fit(model: Transformer, batches: Any, **options: Any) -> Any:
        seen.update(options, model=model, batch=batches[0], compiled=model.__class__)
        raise RuntimeError("seen")

    monkeypatch.setattr(runs, "fit", fit)
    compiled: list[Any] = []
    monkeypatch.setattr(Transformer, "compile", lambda model: compiled.append(model))
    changes = {
        "lr": 0.25,
        "beta2": 0.5,
        "weight_decay": 0.75,
        "clip": None,
        "precision": "bf16",
        "parts": 2,
        "packed": True,
        "patience": 4,
        "seed": 3,
        "average": 5,
        "compile": True,
        "recompute": True,
        "label_smoothing": 0.25,
        "chunk": 7,
        "dropout": 0.125,
    }
    with pytest.raises(RuntimeError, match="seen"):
        train("dates", tmp_path / "run", {**SMALL, **changes})
    group = seen["optimizer"].param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (
        0.25,
        (0.9, 0.5),
        0.75,
    )
    assert (seen["clip"], seen["every"], seen["seed"], seen["steps"]) == (None, 3, 3, 6)
    compute = seen["compute"]
    assert (compute.precision, compute.parts, compute.packed) == ("bf16", 2, True)
    assert seen["best"].patience == 4
    assert (seen["checkpoints"].every, seen["checkpoints"].keep) == (2, 5)
    assert seen["loss"].keywords == {
        "label_smoothing": 0.25,
        "z_loss": 0.0,
        "chunk": 7,
    }
    assert compiled == [seen["model"]]
    assert seen["model"].config.dropout == 0.125
    assert len(seen["batch"].tokens) == 8


ENVIRONMENT = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
DATES = ["dates", "--set", "steps=60", "--set", "checkpoint_every=10"]
DATES += ["--set", "evaluate_every=60", "--set", "device=cpu", "--out"]


def test_a_run_killed_three_times_ends_byte_for_byte_as_one_that_was_not(
    tmp_path: Path,
) -> None:
    start = [sys.executable, "-m", "tfcourse.cli", "train", *DATES]
    whole = subprocess.Popen([*start, tmp_path / "whole"], env=ENVIRONMENT)
    folder, killed = tmp_path / "killed", 0
    for part in range(3):
        child = subprocess.Popen([*start, folder, "--resume"], env=ENVIRONMENT)
        goal = random.randint(15 * part + 1, 15 * part + 14)
        log = folder / "log.jsonl"
        while child.poll() is None:
            if log.exists() and log.read_bytes().count(b"\n") >= goal:
                time.sleep(random.random() * 0.05)
                child.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        killed += child.wait() == -signal.SIGKILL
    assert killed == 3
    subprocess.run([*start, folder, "--resume"], env=ENVIRONMENT, check=True)
    assert whole.wait() == 0
    ours, expected = (
        (f / runs.WEIGHTS).read_bytes() for f in (folder, tmp_path / "whole")
    )
    assert ours == expected


def test_two_processes_train_the_model_of_one(tmp_path: Path) -> None:
    # A key's bias has no gradient but rounding errors, which Adam makes steps of.
    small = {**SMALL, "bias": False}
    sets = [f"--set={name}={value}" for name, value in small.items()]
    arguments = ["train", "dates", *sets, "--out"]
    one, two = tmp_path / "one", tmp_path / "two"
    module = ["-m", "tfcourse.cli"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = ENVIRONMENT | {"ACCELERATE_USE_CPU": "1"}
    for launcher, out in (module, one), ([*torchrun, *module], two):
        done = subprocess.run(
            [sys.executable, *launcher, *arguments, out],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert done.stdout.count("6 steps") == 1  # one process reports
    for name, tensor in load_file(two / runs.WEIGHTS).items():
        torch.testing.assert_close(
            tensor, load_file(one / runs.WEIGHTS)[name], rtol=1e-3, atol=1e-4
        )
    assert isinstance(load_run(two).tokenizer, Tokenizer)
