"""Compiled models: few graphs, none broken off, and the same numbers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("compiled_models.py")


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    """Return what each compiled model did, by name."""
    run = subprocess.run(
        [sys.executable, str(PROGRAM)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(PROGRAM.parents[1]), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    return {line.pop("name"): line for line in lines}


def test_a_static_cache_decodes_twenty_tokens_in_two_graphs(
    cases: dict[str, Any],
) -> None:
    found = {name: case for name, case in cases.items() if name.startswith("decode")}
    assert len(found) == 10
    wrong = {
        name: case
        for name, case in found.items()
        if case["graphs"] > 2 or not case["equal"]
    }
    assert wrong == {}


def test_training_is_one_graph(cases: dict[str, Any]) -> None:
    found = {name: case for name, case in cases.items() if name.startswith("train")}
    assert len(found) == 9
    wrong = {
        name: case for name, case in found.items() if case != {"graphs": 1, "equal": 1}
    }
    assert wrong == {}


def test_recording_leaves_the_fast_graph_as_it_was(cases: dict[str, Any]) -> None:
    before, recorded, after = cases["record"]["graphs"]
    assert cases["record"]["equal"]
    assert before == 1
    assert after == recorded > before
