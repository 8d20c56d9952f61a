"""What was measured is written down, and the page says what the rows say."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_shapes import MACHINE, SMALL
from typer.testing import CliRunner

import benchmarks.__main__ as command
from benchmarks import gpt2, report
from benchmarks.training import Setting

SECONDS = {"median": 2.0, "q1": 1.0, "q3": 4.0}


def row(contender: str, **more: Any) -> dict[str, Any]:
    return {
        "kind": "train",
        "title": "decoder",
        "precision": "fp32",
        "mode": "eager",
        "contender": contender,
        "style": "biased",
        "seconds": SECONDS,
        "rounds": 7,
        "tokens_per_second": 1000.0,
        "machine": MACHINE,
        **more,
    }


OURS = row("tfcourse")
SLOW = row("slow", ratio=1.5, cpu_ratio=1.4, parts_ratio=1.8)
FAST = row("fast", ratio=1.2, cpu_ratio=1.1)
SKIPPED = {
    **{name: OURS[name] for name in ("kind", "title", "mode", "machine")},
    "precision": "bf16",
    "skipped": "there is no bf16",
}


def test_a_table_has_speed_spread_and_both_ratios() -> None:
    assert report.table([OURS, SLOW]).splitlines()[2:] == [
        "| tfcourse | biased | 1,000\xa0tokens/s | 500 to 2,000 |  |",
        "| slow | biased | 1,000\xa0tokens/s | 500 to 2,000 | 1.50 (1.40) |",
    ]


def test_the_summary_names_the_fastest_peer() -> None:
    explicit = row("tfcourse, explicit attention", ratio=0.9, cpu_ratio=0.9)
    lines = report.summary([OURS, explicit, SLOW, FAST, SKIPPED]).splitlines()
    assert lines[2:] == [
        "| Training step | decoder, fp32, eager | fast | 1.20 (1.10) |  | 1.80 |"
    ]
    peers = [SLOW | {"packed_ratio": 1.6}, FAST | {"packed_ratio": 1.7}]
    lines = report.summary([OURS, *peers]).splitlines()
    assert lines[2:] == [
        "| Training step | decoder, fp32, eager | fast | 1.20 (1.10) | 1.60 | 1.80 |"
    ]


def test_a_comparison_made_again_replaces_the_first() -> None:
    again = [row("tfcourse"), row("slow", ratio=1.7, cpu_ratio=1.6)]
    [(_, group)] = report.groups([OURS, SLOW, FAST, *again])
    assert group == again


def test_a_comparison_replaces_one_that_was_left_out() -> None:
    measured = row("tfcourse", precision="bf16")
    [(_, group)] = report.groups([SKIPPED, measured])
    assert group == [measured]
    [(_, group)] = report.groups([measured, SKIPPED])
    assert group == [SKIPPED]


def test_the_page_says_on_which_machine_and_what_is_missing() -> None:
    text = report.page([OURS, SLOW, SKIPPED], gpt2.plan())
    assert "A processor, 2 cores, 2 threads (OMP_WAIT_POLICY passive), AVX2" in text
    assert "torch 2.13" in text
    assert "\n7 rounds.\n" in text
    assert "Not measured: there is no bf16." in text
    assert gpt2.plan() in text
    assert "Other programs ran" not in text
    busy = [row("tfcourse", machine=MACHINE | {"load": 3.5}), OURS]
    assert "0.5 to 3.5 processes" in report.page(busy, "")


def test_the_page_shows_what_was_measured_on_a_gpu() -> None:
    mfu = row("tfcourse", kind="mfu", model_flops_utilisation=0.512)
    token = row("tfcourse", kind="bandwidth", how="eager", bandwidth_utilisation=0.25)
    text = report.page([OURS, mfu, token], "")
    assert "| training step | 1,000 | 51% |" in text
    assert "| writing, eager | 1,000 | 25% |" in text
    assert report.NO_GPU not in text


def test_rows_are_added_to_a_file_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "results" / "x.jsonl"
    report.append(path, [OURS])
    report.append(path, [SLOW, SKIPPED])
    assert report.read(path) == [OURS, SLOW, SKIPPED]
    assert [file.name for file in path.parent.iterdir()] == ["x.jsonl"]


@pytest.mark.parametrize("line", ["no json", "{}", "[]", '{"kind": "train"}'])
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(OURS) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"x\.jsonl:2 is no row"):
        report.read(path)


def test_the_committed_page_is_made_from_the_committed_results() -> None:
    files = sorted(report.RESULTS.glob("*.jsonl"))
    rows = [row for path in files for row in report.read(path)]
    assert rows
    written = report.PAGE.read_text(encoding="utf-8")
    assert written == report.page(rows, gpt2.plan())


def run(*arguments: str) -> Any:
    return CliRunner().invoke(command.app, arguments)


@pytest.mark.parametrize(
    ("option", "known"),
    [
        ("--kinds", "train, decode, memory"),
        ("--shapes", "decoder-384"),
        ("--precisions", "fp32, bf16"),
        ("--modes", "eager, compiled"),
        ("--device", "cpu, cuda"),
    ],
)
def test_an_unknown_name_ends_with_2_and_says_what_is_known(
    option: str, known: str
) -> None:
    result = run("run", option, "ibm")
    assert result.exit_code == 2
    shown = " ".join(result.output.replace("│", " ").split())
    assert f"{option} 'ibm'" in shown
    assert known in shown


def test_bf16_is_left_out_where_it_is_emulated(monkeypatch) -> None:
    monkeypatch.setattr(command, "bf16_is_native", lambda device: False)
    shape = SMALL["decoder"]
    [[found]] = command.compare("train", shape, Setting("bf16", rounds=3))
    assert found["skipped"] == command.EMULATED
    assert (found["kind"], found["precision"]) == ("train", "bf16")


def test_decoding_is_of_one_shape_and_memory_is_eager() -> None:
    decoder = SMALL["decoder"]
    assert list(command.compare("decode", decoder, Setting())) == []
    assert list(command.compare("memory", decoder, Setting(compiled=True))) == []


def test_a_run_writes_its_rows_and_shows_them(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("x_transformers")
    monkeypatch.setattr(command, "SHAPES", {"small": SMALL["decoder"]})
    out = tmp_path / "x.jsonl"
    options = "--kinds memory --precisions fp32 --threads 1 --out"
    result = run("run", *options.split(), str(out))
    assert result.exit_code == 0, result.output
    rows = report.read(out)
    assert {row["kind"] for row in rows} == {"memory"}
    assert all(row["contender"] in result.output for row in rows)


def test_without_a_gpu_the_command_says_what_would_run(monkeypatch) -> None:
    monkeypatch.setattr(command.torch.cuda, "is_available", lambda: False)
    result = run("gpt2")
    assert result.exit_code == 0
    assert gpt2.plan() in result.output
