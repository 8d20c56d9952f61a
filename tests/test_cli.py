"""The `tfcourse` command: what it prints, what it refuses, how it exits."""

import csv
import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tfcourse
from tfcourse.cli import app
from tfcourse.data.datasets import DATASETS

Write = Callable[..., Path]
KEPT = (".lock", "report.json", "report.md")  # what every run leaves beside its results
FAILS = 'raise ValueError("not today")'


def call(*arguments: object) -> tuple[int, str, str]:
    """Return exit code, output and error output of `tfcourse` with the arguments."""
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_the_version_is_the_package_s() -> None:
    assert call("--version") == (0, f"{tfcourse.__version__}\n", "")


def test_list_shows_number_name_and_question(write_chapter: Write) -> None:
    folder = write_chapter("03_attention").parent
    code, printed, _ = call("list", "--notebooks", folder)
    assert code == 0
    assert printed.split(maxsplit=2) == ["3", "attention", "What is attention?\n"]


def test_chosen_chapters_run_and_the_others_do_not(
    write_chapter: Write, tmp_path: Path
) -> None:
    folder = write_chapter("01_a", "print(size)").parent
    write_chapter("02_b", FAILS)
    out = tmp_path / "out"
    code, printed, errors = call(
        "run", "01", "1", "--size", "smoke", "--out", out, "--notebooks", folder
    )
    assert (code, errors) == (0, "")
    assert printed.split()[:3] == ["1", "size=smoke", "done"]
    assert printed.split()[-1] == str(out / "01_a.ipynb")
    assert {path.name for path in out.iterdir()} == {"01_a.ipynb", *KEPT}


def test_a_sweep_runs_every_combination_in_a_folder_of_its_own(
    write_chapter: Write, tmp_path: Path
) -> None:
    folder, out = write_chapter("01_a", "print(size, seed)").parent, tmp_path / "out"
    arguments = ["--sweep", "seed=1..2", "--sweep", "size=smoke", "--jobs", "2"]
    common = ["run", *arguments, "--out", out, "--notebooks", folder]
    code, printed, errors = call(*common)
    assert (code, errors) == (0, "")
    assert len(printed.splitlines()) == 2
    written = {str(path.relative_to(out)) for path in out.rglob("*.ipynb")}
    assert written == {f"seed={n},size=smoke/01_a.ipynb" for n in (1, 2)}
    assert "| 1 seed=2 size=smoke | done |" in (out / "report.md").read_text()
    code, printed, _ = call(*common, "--resume")
    assert code == 0
    assert printed.count("  kept  ") == 2


def test_a_failing_chapter_does_not_stop_the_others(
    write_chapter: Write, tmp_path: Path
) -> None:
    folder = write_chapter("01_a", FAILS).parent
    write_chapter("02_b")
    out = tmp_path / "out"
    code, printed, errors = call("run", "--out", out, "--notebooks", folder)
    assert code == 1
    assert [line.split()[:2] for line in printed.splitlines()] == [
        ["1", "failed"],
        ["2", "done"],
    ]
    assert errors == (
        f"tfcourse: 01_a.ipynb: cell [2] `{FAILS}` raised ValueError: not today\n"
    )
    assert {path.name for path in out.iterdir()} == {
        "01_a.failed.ipynb",
        "02_b.ipynb",
        *KEPT,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["11"], "unknown chapter 11; known: 1 (a), 2 (b)"),
        (["0", "1", "x"], "unknown chapter 0, x; known: 1 (a), 2 (b)"),
        (["--size", "huge"], "unknown size 'huge'; known: smoke, laptop, gpu"),
        (["--device", "tpu"], "unknown device 'tpu'; known: auto, cpu, cuda, mps"),
        (["--seed", "first"], "seed must be of type int, not 'first'"),
        (["-p", "steps=3"], "unknown parameter steps for 01_a.ipynb; known: size, "),
        (["-p", "seed"], "-p takes name=value, not 'seed'"),
        (["--sweep", "seed=1,x"], "seed must be of type int, not 'x'"),
        (["--sweep", "size=smoke,"], "--sweep size=smoke, has no values, or an empty"),
        (["--sweep", "seed=3..1"], "--sweep seed=3..1 has no values"),
        (["--sweep", "seed"], "--sweep takes name=value, not 'seed'"),
        (["--seed", "1", "--sweep", "seed=1,2"], "seed is given a value and swept"),
        (["1", "2", "-p", "seed=x"], "seed must be of type int, not 'x'"),
    ],
)
def test_what_is_not_known_is_refused_before_anything_runs(
    write_chapter: Write, tmp_path: Path, arguments: list[str], message: str
) -> None:
    folder = write_chapter("01_a").parent
    write_chapter("02_b")
    out = tmp_path / "out"
    code, printed, errors = call("run", *arguments, "--out", out, "--notebooks", folder)
    assert (code, printed) == (2, "")
    assert errors.startswith(f"tfcourse: {message}")
    assert not out.exists()


def test_the_notebooks_folder_is_refused_as_output(write_chapter: Write) -> None:
    folder = write_chapter("01_a").parent
    code, _, errors = call("run", "--out", folder, "--notebooks", folder)
    assert code == 2
    assert "choose another folder" in errors


@pytest.mark.parametrize("command", ["list", "run"])
def test_a_folder_without_chapters_is_refused(tmp_path: Path, command: str) -> None:
    code, _, errors = call(command, "--notebooks", tmp_path)
    assert code == 2
    assert str(tmp_path) in errors


def test_listing_is_quick_because_it_loads_neither_torch_nor_papermill() -> None:
    program = "import sys, tfcourse.cli; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not {"torch", "papermill", "matplotlib"} & set(run.stdout.split())


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that is the mirror, with an empty cache beside it."""
    monkeypatch.setenv("TFCOURSE_MIRROR", (tmp_path / "mirror").as_uri())
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "mirror"


def put_text(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Put a short text, known by its checksum, in the place of Tiny Shakespeare."""
    content = b"First Citizen:\nBefore we proceed any further, hear me speak.\n"
    known = DATASETS["tinyshakespeare"]
    sha256 = hashlib.sha256(content).hexdigest()
    file = replace(known.files[0], sha256=sha256, size=len(content))
    monkeypatch.setitem(DATASETS, "tinyshakespeare", replace(known, files=(file,)))
    (mirror / "tinyshakespeare").mkdir(parents=True)
    (mirror / "tinyshakespeare" / "input.txt").write_bytes(content)
    return content


def test_data_is_fetched_and_then_listed_and_found(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = put_text(mirror, monkeypatch)
    folder = tmp_path / "cache" / "tinyshakespeare"
    missing = "tfcourse: not here; tfcourse data fetch tinyshakespeare\n"
    assert call("data", "path", "tinyshakespeare") == (1, "", missing)
    assert call("data", "fetch", "tinyshakespeare") == (0, f"{folder}\n", "")
    assert (folder / "input.txt").read_bytes() == content
    assert call("data", "path", "tinyshakespeare") == (0, f"{folder}\n", "")
    code, printed, _ = call("data", "list")
    state = {line.split()[0]: line.split()[3] for line in printed.splitlines()}
    assert code == 0
    assert state == dict.fromkeys(DATASETS, "-") | {"tinyshakespeare": "here"}


def test_data_that_cannot_be_had_is_a_failure_and_not_a_refusal(mirror: Path) -> None:
    (mirror / "tinyshakespeare").mkdir(parents=True)
    (mirror / "tinyshakespeare" / "input.txt").write_bytes(b"x" * 1115394)
    code, printed, errors = call("data", "fetch", "tinyshakespeare")
    assert (code, printed) == (1, "")
    assert "tinyshakespeare/input.txt: SHA-256 is" in errors


@pytest.mark.parametrize("command", ["fetch", "path"])
def test_unknown_data_is_refused_with_the_known(command: str, mirror: Path) -> None:
    code, printed, errors = call("data", command, "mnist")
    assert (code, printed) == (2, "")
    assert errors.startswith("tfcourse: unknown data set 'mnist'; known: multi30k, ")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a date translator was trained for two steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    sets = "steps=2 warmup=1 d_model=16 d_ff=16 num_heads=2 count=50 device=cpu"
    sets += " num_encoder_layers=1 num_decoder_layers=1 evaluate_every=2"
    arguments = [part for text in sets.split() for part in ("--set", text)]
    code, printed, errors = call("train", "dates", *arguments, "--out", folder)
    assert (code, errors) == (0, "")
    assert printed.startswith(f"{folder}: 2 steps, ")
    return folder


def test_recipes_are_listed_and_so_are_the_settings_of_one() -> None:
    code, printed, _ = call("recipes")
    assert code == 0
    names = {line.split()[0] for line in printed.splitlines()}
    assert names == {
        "captions",
        "dates",
        "digits",
        "language-model",
        "live-dates",
        "multi30k",
        "sst2",
        "summaries",
    }
    code, printed, _ = call("recipes", "multi30k")
    assert code == 0
    assert {"merges=10000", "clip=none", "norm_order=post", "lr=0.005"} <= set(
        printed.splitlines()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recipes", "nap"], "unknown recipe 'nap'; known: captions"),
        (["train", "nap"], "unknown recipe 'nap'; known: captions"),
        (["train", "dates", "--set", "steps"], "--set takes name=value, not 'steps'"),
        (["train", "dates", "--set", "stps=2"], "unknown setting stps; known: source"),
        (["train", "dates", "--set", "steps=two"], "steps must be int, not 'two'"),
        (["train", "dates", "--set", "norm=no"], "norm must be layer or rms, not 'no'"),
        (["translate", "nowhere", "a"], "nowhere has no run"),
        (["complete", "nowhere", "a"], "nowhere has no run"),
        (["evaluate", "nowhere"], "nowhere has no run"),
    ],
)
def test_training_refuses_what_it_does_not_know(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, errors = call(*arguments)
    assert (code, printed) == (2, "")
    assert errors.startswith(f"tfcourse: {message}")
    assert list(tmp_path.iterdir()) == []


def test_a_trained_model_translates_and_is_evaluated(trained: Path) -> None:
    code, printed, errors = call("translate", trained, "Montag, 1. Mai 2000", "x")
    assert (code, errors) == (0, "")
    assert printed.count("\n") == 2
    code, printed, errors = call("evaluate", trained)
    assert (code, errors) == (0, "")
    assert [line.split()[0] for line in printed.splitlines()] == [
        "accuracy",
        "BLEU",
        "chrF",
    ]
    assert (trained / "evaluation.json").exists()


def test_a_model_is_not_asked_for_what_it_cannot(trained: Path, tmp_path: Path) -> None:
    code, _, errors = call("complete", trained, "Montag")
    assert (code, errors) == (
        2,
        f"tfcourse: {trained}: a model of dates does not complete texts\n",
    )


def test_a_language_model_goes_on_as_the_seed_says(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("abcdefg" * 60)
    sets = "steps=2 warmup=1 d_model=16 d_ff=16 num_heads=2 max_seq_len=8 device=cpu"
    arguments = [part for item in sets.split() for part in ("--set", item)]
    arguments += ["--set", f"text={text}", "--out", tmp_path / "run"]
    assert call("train", "language-model", *arguments)[0] == 0

    def go_on(*options: object) -> str:
        code, printed, errors = call("complete", tmp_path / "run", "abc", *options)
        assert (code, errors) == (0, "")
        return printed

    assert go_on().startswith("abc")
    assert go_on("--seed", 1) == go_on("--seed", 1) != go_on("--seed", 2)
    likeliest = go_on("--temperature", 0, "--tokens", 5)
    assert likeliest == go_on("--temperature", 0, "--tokens", 5, "--seed", 4)
    assert len(likeliest) <= len("abc" + 5 * "x" + "\n")
    assert go_on("--top-k", 1, "--tokens", 5) == likeliest
    code, _, errors = call("translate", tmp_path / "run", "abc")
    assert (code, errors) == (
        2,
        f"tfcourse: {tmp_path / 'run'}: a model of language-model does not answer "
        "texts\n",
    )


def test_a_run_that_diverges_exits_with_1(tmp_path: Path) -> None:
    sets = "steps=9 warmup=1 d_model=16 d_ff=16 num_heads=2 count=50 device=cpu"
    sets += " num_encoder_layers=1 num_decoder_layers=1 lr=1e30 clip=none"
    arguments = [part for text in sets.split() for part in ("--set", text)]
    code, _, errors = call("train", "dates", *arguments, "--out", tmp_path / "run")
    assert code == 1
    assert errors.startswith("tfcourse: training diverged at step ")


def test_data_that_cannot_be_had_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFCOURSE_MIRROR", (tmp_path / "nothing").as_uri())
    code, _, errors = call("train", "sst2", "--out", tmp_path / "run")
    assert code == 1
    assert "train.tsv" in errors
    assert not (tmp_path / "run").exists()


def test_cards_are_written_and_counted(tmp_path: Path) -> None:
    out = tmp_path / "transformers.csv"
    code, printed, errors = call("cards", "--out", out)
    assert (code, errors) == (0, "")
    with out.open(encoding="utf-8", newline="") as file:
        written = len(list(csv.DictReader(file)))
    assert written > 300
    assert printed == f"{written} cards: {out}\n"


@pytest.mark.parametrize("name", ["cards.pdf", "nowhere/cards.apkg"])
def test_cards_refuse_what_they_cannot_write(tmp_path: Path, name: str) -> None:
    code, printed, errors = call("cards", "--out", tmp_path / name)
    assert (code, printed) == (2, "")
    assert name in errors
    assert not list(tmp_path.iterdir())


def test_cards_refuse_a_folder_without_chapters(tmp_path: Path) -> None:
    out = tmp_path / "cards.csv"
    code, _, errors = call("cards", "--out", out, "--notebooks", tmp_path)
    assert (code, errors) == (
        2,
        f"tfcourse: no chapter (NN_name.ipynb) in {tmp_path}\n",
    )
