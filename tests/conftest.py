"""Shared by all tests: shapes checked at run time, seeds, one thread, no window."""

import os
import random
from collections.abc import Callable
from pathlib import Path

# Before torch and matplotlib are imported, which read them once.
os.environ["MPLBACKEND"] = "Agg"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import nbformat
import numpy as np
import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

# Before the first import of these rooms, so not from here: their annotated shapes are
# then checked by beartype at each call. Users do not pay for it.
install_import_hook(
    [
        "tfcourse.model",
        "tfcourse.generation",
        "tfcourse.speculative",
        "tfcourse.training",
        "tfcourse.recipes",
        "tfcourse.variants",
    ],
    "beartype.beartype",
)

settings.register_profile("course", deadline=None, derandomize=True)
settings.load_profile("course")
torch.set_num_threads(1)

PARAMETERS = """\
size: str = "laptop"  # smoke | laptop | gpu
device: str = "auto"  # auto | cpu | cuda | mps
seed: int = 0
"""


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """Start every test from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def write_chapter(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a small chapter into `tmp_path/notebooks`."""

    def write(name: str, *cells: str, parameters: str | None = PARAMETERS) -> Path:
        v4 = nbformat.v4
        book = [v4.new_markdown_cell(f"# {int(name[:2])} · What is {name[3:]}?")]
        if parameters is not None:
            tagged = {"tags": ["parameters"]}
            book.append(v4.new_code_cell(parameters, metadata=tagged))
        book += [v4.new_code_cell(source) for source in cells]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        notebook = v4.new_notebook(cells=book, metadata={"kernelspec": kernel})
        nbformat.write(notebook, path)
        return path

    return write
