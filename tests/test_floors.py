"""A file of the package imports only from lower floors, and `model` only itself."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tfcourse"

# Lowest first. `course` and the command have an order among themselves as well.
FLOORS = (
    "model.config data.files data.download data.unpack",
    "model.masks model.positions data.tokenizers data.datasets variants.recurrent "
    "variants.scan",
    "model.cache data.pairs data.bpe families variants.flex variants.sparse "
    "variants.tiles variants.translator data.signals",
    "model.attention data.dates data.tasks data.fast_bpe data.buckets data.packed "
    "data.sentiment data.digits variants.linear_attention data.reports",
    "model.layers data.saved data.bundled data.many_dates",
    "model.init training.losses training.schedules training.mode training.generators "
    "training.history training.checkpoint training.averaging training.recompute "
    "training.compute training.scores variants.experts",
    "model.transformer training.state training.step recipes.settings",
    "generation pretrained training.optimizer training.keeper variants.pictures "
    "variants.reader",
    "probes speculative training.loop training.evaluation recipes.task",
    "recipes.classification recipes.language_model recipes.pictures "
    "recipes.translation course.show course.plots course.exercise course.broken "
    "course.broken_decoder course.reference course.broken_recurrent course.costs "
    "course.broken_spans course.broken_variants course.broken_reader "
    "course.broken_training",
    "recipes.catalogue course.ledger course.status course.exercise_attention "
    "course.exercise_decoder course.exercise_masks course.battery "
    "course.exercise_parallel course.exercise_selection course.exercise_positions "
    "course.exercise_text course.exercise_reach course.exercise_scaling "
    "course.exercise_variants course.exercise_beyond course.exercise_optimization",
    "course.exercises course.chapter course.pages course.zoo course.fresh "
    "course.questions recipes.run",
    "headless course.cards course.live course.paper",
    "course.refresh",
    "batch",
    "progress summary",
    "cli",
)
FLOOR = {
    f"tfcourse.{module}": floor
    for floor, modules in enumerate(FLOORS)
    for module in modules.split()
}
# The book is rendered without torch, and `tfcourse list` does not wait for it.
LIGHT = (
    "tfcourse",
    "tfcourse.course.ledger",
    "tfcourse.course.pages",
    "tfcourse.course.fresh",
    "tfcourse.course.cards",
    "tfcourse.cli",
)


def imported(source: str, package: str) -> Iterator[tuple[str, int]]:
    """Yield (dotted name, line) of every import, inside functions too.

    `package` is what a relative import starts from. `from a import b` yields `a.b`,
    since b may be a module; `import_module("a.b")` and `__import__` count as well.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                up = parents[: len(parents) - node.level + 1]
                base = ".".join([*up, *([base] if base else [])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in ("import_module", "__import__"):
                yield str(getattr(node.args[0], "value", "?")), node.lineno


def module_of(name: str, modules: set[str]) -> str:
    """Return the module that an imported name is, or belongs to."""
    while name not in modules and "." in name:
        name = name.rpartition(".")[0]
    return name


def faults(sources: dict[str, str]) -> list[str]:
    """Say what in {module: source} breaks the order; a package ends in `.__init__`."""
    names = {name.removesuffix(".__init__"): name for name in sources}
    found = []
    for module, full_name in names.items():
        is_package = full_name.endswith(".__init__")
        if not is_package and module not in FLOOR:
            found.append(f"{module} has no floor: give it one in {Path(__file__).name}")
            continue
        package = module if is_package else module.rpartition(".")[0]
        for name, line in imported(sources[full_name], package):
            target = module_of(name, set(names))
            if target.split(".")[0] != "tfcourse" or target == "tfcourse":
                continue
            where = f"{module}:{line} imports {target}"
            if is_package:
                found.append(f"{where}: a package's __init__ imports none of ours")
            elif FLOOR.get(target, len(FLOORS)) >= FLOOR[module]:
                found.append(f"{where}, which is not on a lower floor")
            elif ".model." in module and ".model." not in target:
                found.append(f"{where}: model knows nothing of other rooms")
    return list(dict.fromkeys(found))  # `from a import b, c` is one fault


def package_sources() -> dict[str, str]:
    """Return {module: source} of the package as it stands."""
    return {
        ".".join(
            path.relative_to(PACKAGE.parent).with_suffix("").parts
        ): path.read_text(encoding="utf-8")
        for path in PACKAGE.rglob("*.py")
    }


def test_every_module_has_a_floor_and_imports_only_from_lower_ones() -> None:
    sources = package_sources()
    assert len(sources) > 10
    assert faults(sources) == []


def test_no_floor_is_kept_for_a_module_that_is_gone() -> None:
    assert set(FLOOR) <= set(package_sources())


def test_the_contributors_page_shows_the_same_floors() -> None:
    page = PACKAGE.parent / "book" / "contributing.md"
    text = page.read_text(encoding="utf-8")
    shown = {
        f"tfcourse.{module}": int(floor)
        for floor, row in re.findall(r"^\| (\d+) \| (.*) \|$", text, re.MULTILINE)
        for module in re.findall(r"`([\w.]+)`", row)
    }
    assert shown == FLOOR


EMPTY = {
    "tfcourse.__init__": "",
    "tfcourse.model.__init__": "",
    "tfcourse.model.config": "",
    "tfcourse.model.masks": "",
    "tfcourse.model.layers": "",
    "tfcourse.data.tokenizers": "",
    "tfcourse.probes": "",
}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tfcourse.model.layers", "from tfcourse.model.masks import causal"),
        ("tfcourse.model.layers", "import tfcourse\nfrom tfcourse import __version__"),
        ("tfcourse.model.layers", "from . import config\nimport torch.nn as nn"),
        ("tfcourse.probes", "import tfcourse.data.tokenizers as t"),
        ("tfcourse.model.__init__", "import os"),
    ],
)
def test_imports_from_lower_floors_are_allowed(module: str, source: str) -> None:
    assert faults(EMPTY | {module: source}) == []


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("tfcourse.model.masks", "import tfcourse.model.layers", "lower floor"),
        ("tfcourse.model.masks", "from tfcourse.model import layers", "lower floor"),
        ("tfcourse.model.masks", "from tfcourse import probes", "lower floor"),
        ("tfcourse.model.masks", "from . import layers", "lower floor"),
        ("tfcourse.model.masks", "from .layers import Block", "lower floor"),
        ("tfcourse.model.masks", "from ..probes import x", "lower floor"),
        ("tfcourse.model.masks", "def f():\n import tfcourse.probes", "lower floor"),
        ("tfcourse.model.masks", "if T:\n from tfcourse import probes", "lower floor"),
        ("tfcourse.model.masks", "from tfcourse.model.masks import x", "lower floor"),
        (
            "tfcourse.model.masks",
            'importlib.import_module("tfcourse.probes")',
            "lower floor",
        ),
        (
            "tfcourse.model.layers",
            "from tfcourse.data.tokenizers import Tokenizer",
            "other rooms",
        ),
        ("tfcourse.model.__init__", "from .config import X", "__init__"),
        ("tfcourse.model.extra", "", "has no floor"),
        ("tfcourse.probes", "import tfcourse.model", "lower floor"),
    ],
)
def test_every_way_to_import_from_above_is_found(
    module: str, source: str, fault: str
) -> None:
    found = faults(EMPTY | {module: source})
    assert len(found) == 1
    assert found[0].startswith(module.removesuffix(".__init__"))
    assert fault in found[0]


@pytest.mark.parametrize("module", LIGHT)
def test_what_renders_the_book_loads_no_heavy_library(module: str) -> None:
    program = f"import sys, {module}; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    heavy = {"torch", "numpy", "matplotlib", "IPython", "papermill"}
    assert not heavy & set(run.stdout.split())
