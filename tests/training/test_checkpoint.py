"""Checkpoint files: written whole or not at all, refused when they are not."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tfcourse.training.checkpoint import (
    CheckpointError,
    Checkpoints,
    Saved,
    checkpoint_folders,
    newest_checkpoint,
    read_checkpoint,
    tidy,
    write_checkpoint,
    write_weights,
)


def save(folder: Path, step: int, keep: int = 2) -> Path:
    tensors = {
        "model": {"weight": torch.full((2, 3), float(step)).t()},
        "optimizer": {"weight/step": torch.tensor(step)},
    }
    return write_checkpoint(folder, step, tensors, {"number": step / 3}, keep=keep)


def accept(saved: Saved) -> None:
    pass


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    path = save(tmp_path / "new" / "folder", 7)
    assert path.name == "step-00000007"
    saved = read_checkpoint(path)
    assert torch.equal(saved.tensors["model"]["weight"], torch.full((3, 2), 7.0))
    assert saved.tensors["optimizer"]["weight/step"] == 7
    assert set(saved.tensors) == {"model", "optimizer"}
    assert saved.facts == {"number": 7 / 3}


def test_nothing_in_it_is_a_pickle(tmp_path: Path) -> None:
    path = save(tmp_path, 7)
    names = sorted(file.name for file in path.iterdir())
    assert names == ["model.safetensors", "optimizer.safetensors", "state.json"]
    json.loads((path / "state.json").read_text())
    load_file(path / "model.safetensors")


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    for step in (2, 4, 10, 100):
        save(tmp_path, step, keep)
    kept = [int(path.name[5:]) for path in checkpoint_folders(tmp_path)]
    assert kept == [2, 4, 10, 100][-keep:]
    assert len(list(tmp_path.iterdir())) == keep


CHANGES = ("fsync", "mkdir", "rename", "replace", "rmdir", "unlink")


class KilledError(BaseException):
    """Stands for the end of the process."""


def stop_at(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let the n-th change of the disk be the last that is tried."""
    calls = []

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            calls.append(original)
            if len(calls) >= count:
                raise KilledError
            return original(*args, **options)

        return call

    for name in CHANGES:
        monkeypatch.setattr(os, name, counted(getattr(os, name)))


@pytest.mark.parametrize("damaged", [False, True])
def test_wherever_writing_stops_a_whole_checkpoint_is_left(
    tmp_path: Path, damaged: bool
) -> None:
    before = tmp_path / "before"
    for step in (1, 2) if damaged else (0, 1):
        save(before, step)
    if damaged:  # refused, so that step 2 is written again
        (before / "step-00000002" / "model.safetensors").write_bytes(b"")
    for count in range(1, 100):
        folder = shutil.copytree(before, tmp_path / str(count))
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, count)
            try:
                save(folder, 2)
                break
            except KilledError:
                pass
        whole = [int(p.name[5:]) for p in checkpoint_folders(folder) if is_whole(p)]
        assert whole[-1] in (1, 2)
        assert set(whole) >= {1}
        save(folder, 2)  # as the run that goes on does
        assert sorted(path.name for path in folder.iterdir()) == [
            "step-00000001",
            "step-00000002",
        ]
        assert all(map(is_whole, folder.iterdir()))
    assert 10 < count < 100


def is_whole(path: Path) -> bool:
    try:
        read_checkpoint(path)
    except CheckpointError:
        return False
    return True


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def other_format(file: Path) -> None:
    file.write_text(file.read_text().replace("checkpoint 1", "checkpoint 9"))


def a_list(file: Path) -> None:
    file.write_text("[1, 2]")


def without_files(file: Path) -> None:
    state = json.loads(file.read_text())
    del state["files"]
    file.write_text(json.dumps(state))


def not_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("model.safetensors", truncate, "model.safetensors is not the file that was"),
        ("optimizer.safetensors", flip, "optimizer.safetensors is not the file that"),
        ("model.safetensors", Path.unlink, "not whole: FileNotFoundError.*model"),
        ("state.json", truncate, "not whole: JSONDecodeError"),
        ("state.json", Path.unlink, "not whole: FileNotFoundError.*state.json"),
        ("state.json", other_format, "state.json is not a tfcourse checkpoint 1"),
        ("state.json", a_list, "state.json is not a tfcourse checkpoint 1"),
        ("state.json", without_files, "not whole: KeyError: 'files'"),
        ("state.json", not_text, "not whole: UnicodeDecodeError"),
    ],
)
def test_a_damaged_one_is_refused_and_the_one_before_used(
    tmp_path: Path, name: str, damage: Callable[[Path], None], reason: str
) -> None:
    first, second = save(tmp_path, 1), save(tmp_path, 2)
    damage(second / name)
    with pytest.raises(CheckpointError, match=reason):
        read_checkpoint(second)
    with pytest.warns(UserWarning, match=rf"refused: \S*step-00000002.*{reason}"):
        saved = newest_checkpoint(tmp_path, accept)
    assert saved is not None
    assert saved.path == first


def test_a_file_that_holds_no_tensors_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / "model.safetensors").write_bytes(b"not tensors")
    state = json.loads((path / "state.json").read_text())
    digest = hashlib.sha256(b"not tensors").hexdigest()
    state["files"]["model.safetensors"] = digest
    (path / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="a file without tensors"):
        read_checkpoint(path)


def test_if_none_can_be_used_the_run_does_not_begin_again(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)

    def refuse(saved: Saved) -> None:
        raise CheckpointError(f"{saved.path.name} is of somebody else")

    with (
        pytest.warns(UserWarning, match="refused"),
        pytest.raises(
            CheckpointError, match=r"no checkpoint in .*-00000001 is of some"
        ),
    ):
        newest_checkpoint(tmp_path, refuse)


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path, accept) is None
    assert newest_checkpoint(tmp_path / "missing", accept) is None


def test_tidying_spares_what_is_not_a_checkpoint(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path, step)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".step-00000003.part").mkdir()
    tidy(tmp_path, 2, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "notes.txt",
        "step-00000002",
    ]


def test_refused_ones_do_not_push_out_the_one_before_them(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step, keep=3)
    tidy(tmp_path, 1, keep=1)
    assert len(checkpoint_folders(tmp_path)) == 3
    tidy(tmp_path, 2, keep=1)
    assert [path.name[-1] for path in checkpoint_folders(tmp_path)] == ["2", "3"]


def test_weights_are_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "new" / "best.safetensors"
    for value in (1.0, 2.0):
        write_weights(file, {"w": torch.full((3, 2), value).t()}, f"value {value}")
        assert torch.equal(load_file(file)["w"], torch.full((2, 3), value))
        assert f"value {value}".encode() in file.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 1)
        with pytest.raises(KilledError):
            write_weights(file, {"w": torch.zeros(2, 3)}, "half")
    assert torch.equal(load_file(file)["w"], torch.full((2, 3), 2.0))


@pytest.mark.parametrize("name", ["every", "keep"])
def test_impossible_values_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        Checkpoints("folder", **{name: 0})


def test_equal_tensors_give_equal_files(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "ab"]
    for file in files:
        save_file({"x": torch.arange(3), "a": torch.ones(2)}, file)
    assert files[0].read_bytes() == files[1].read_bytes()
