"""The notebooks in plain JupyterLab: the start page, a chapter, its cells, a quiz."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from built_book import ROOT

NOTEBOOK = "notebooks/01_components.ipynb"
# As `make lab` starts it.
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
OPTIONS = re.findall(r"--LabApp\.\w+=\S+", MAKEFILE)
PATIENCE = 240  # seconds; a busy machine is slow, and nothing is timed here
# Nobody answers a question about news, and cells out of sight are drawn as well.
SETTINGS = {
    "notebook-extension/tracker": '{"windowingMode": "none"}',
    "apputils-extension/notification": (
        '{"fetchNews": "false", "checkForUpdates": false}'
    ),
}
RAW_MYST = re.compile(
    r"\{[a-zA-Z][\w:.-]*\}`|(?:`{3,}|~{3,}|:{3,})\{|^\([\w-]+\)=$", re.M
)
# Each code cell of the notebook in front: has it run, and with which error.
CELLS = """() => {
  const cells = [...window.jupyterapp.shell.currentWidget.content.model.cells];
  return cells.map(one => one.toJSON())
    .filter(one => one.cell_type === 'code' && [one.source].flat().join('').trim())
    .map(one => [one.execution_count, one.outputs
      .filter(out => out.output_type === 'error').map(out => out.evalue)]);
}"""


def write_settings(folder: Path) -> None:
    """Write the settings of JupyterLab's user."""
    for name, text in SETTINGS.items():
        path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def copy_course(folder: Path) -> None:
    """Copy the notebooks; chapter 1 without outputs, and with its smallest size."""
    shutil.copytree(
        ROOT / "notebooks",
        folder / "notebooks",
        ignore=shutil.ignore_patterns(".ipynb_checkpoints"),
    )
    notebook = nbformat.read(folder / NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "parameters" in cell.metadata.get("tags", []):
            assert 'size: str = "laptop"' in cell.source
            cell.source = cell.source.replace('"laptop"', '"smoke"', 1)
    nbformat.write(notebook, folder / NOTEBOOK)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start JupyterLab on a copy, with folders of its own; return its address."""
    folder, own = tmp_path_factory.mktemp("course"), tmp_path_factory.mktemp("lab")
    copy_course(folder)
    write_settings(own / "settings")
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    places = {name: str(own / name.lower()) for name in (*names, "IPYTHONDIR")}
    places["JUPYTERLAB_SETTINGS_DIR"] = str(own / "settings")
    places["JUPYTERLAB_WORKSPACES_DIR"] = str(own / "workspaces")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    port = free_port()
    options = [
        *OPTIONS,
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.extension_manager=readonly",
        f"--ServerApp.port={port}",
        "--ServerApp.open_browser=False",
        "--ServerApp.allow_root=True",
        "--IdentityProvider.token=",
    ]
    with (own / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            cwd=folder,
            env={**os.environ, **places, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/api/status", server, own / "log")
        yield address
    finally:
        server.send_signal(signal.SIGTERM)  # the server ends its kernels itself
        server.wait(PATIENCE)


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    """Wait until the server answers."""
    for _ in range(PATIENCE * 4):
        assert server.poll() is None, log.read_text("utf-8")
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.25)
    raise TimeoutError(log.read_text("utf-8"))


def test_lab_opens_at_the_start_page_and_runs_a_chapter(lab: str, browser: Any) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    elsewhere: list[str] = []
    page.on("request", lambda one: elsewhere.append(one.url))
    page.goto(f"{lab}/")

    start = page.locator(".jp-MarkdownViewer")
    start.get_by_role("heading", name="The stock answer").wait_for()
    assert not RAW_MYST.search(start.inner_text())
    start.get_by_role("link", name="1 · Core components").click()

    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.wait_for_function(
        "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status"
        " === 'idle'"
    )
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(f"({CELLS})().every(([count]) => count)")
    cells = page.evaluate(CELLS)
    assert len(cells) > 10
    assert [errors for _, errors in cells if errors] == []

    text = page.locator(".jp-Notebook .jp-RenderedMarkdown").all_inner_texts()
    assert len(text) > 10
    assert not RAW_MYST.search("\n".join(text))
    quiz = page.locator(".jp-OutputArea-output details", has_text="Answer").first
    assert not quiz.locator("p").first.is_visible()
    quiz.locator("summary").click()
    assert quiz.locator("p").first.is_visible()
    assert [url for url in elsewhere if not is_local(url, lab)] == []
    context.close()


def is_local(url: str, lab: str) -> bool:
    """Tell whether a request stays with the server or in the page."""
    own = (lab, lab.replace("http", "ws", 1), "data:", "blob:")
    return url.startswith(own)


@pytest.mark.parametrize("text", ["see {cite}`x`", "```{note}", "a\n(here)=\nb"])
def test_raw_myst_would_be_found(text: str) -> None:
    assert RAW_MYST.search(text)
