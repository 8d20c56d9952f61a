"""Plain papermill works too: help with types for every chapter, from any folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from papermill.cli import papermill

NOTEBOOKS = sorted(
    (Path(__file__).parents[1] / "notebooks").glob("[0-9][0-9]*_*.ipynb")
)
HELP = {
    "size": 'str (default "laptop") smoke | laptop | gpu',
    "device": 'str (default "auto") auto | cpu | cuda | mps',
    "seed": "int (default 0)",
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_help_of_a_notebook_shows_types_defaults_and_values(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(papermill, ["--help-notebook", str(path)])
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    for name, said in HELP.items():
        assert f"{name}: {said}" in text


def test_a_notebook_runs_from_a_folder_that_is_not_the_course_s(tmp_path: Path) -> None:
    path = next(path for path in NOTEBOOKS if path.stem.startswith("09"))
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(path)]
    subprocess.run(
        [*command, "out.ipynb", "-p", "size", "smoke", "-p", "seed", "2"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(path.parents[1])},
        check=True,
    )
    cells = json.loads((tmp_path / "out.ipynb").read_text(encoding="utf-8"))["cells"]
    (injected,) = (
        cell for cell in cells if "injected-parameters" in cell["metadata"]["tags"]
    )
    assert 'size = "smoke"' in "".join(injected["source"])
    assert {path.name for path in tmp_path.iterdir()} == {"out.ipynb"}
