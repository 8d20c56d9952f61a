"""The `tfcourse` command: list the chapters, run them, fetch data for them."""

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

import tfcourse
from tfcourse import headless
from tfcourse.data.datasets import DATASETS, cache_folder, fetch_dataset, is_here
from tfcourse.data.download import DownloadError

app = typer.Typer(
    name="tfcourse",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(
    no_args_is_help=True, help="Public data sets, for the larger sizes of a chapter."
)
app.add_typer(data_app, name="data")

Folder = Annotated[
    Path | None, typer.Option("--notebooks", help="Folder of the chapters.")
]


def _refuse(error: ValueError) -> NoReturn:
    """End with exit code 2: what was asked for cannot be run, and nothing was."""
    typer.echo(f"tfcourse: {error}", err=True)
    raise typer.Exit(2)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(tfcourse.__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Transformers, put to the test: the course's chapters without a browser."""


@app.command("list")
def list_chapters(notebooks: Folder = None) -> None:
    """List the chapters with the question that each answers."""
    try:
        found = headless.chapters(notebooks)
    except ValueError as error:
        _refuse(error)
    for key, notebook in found.items():
        typer.echo(f"{key:>3}  {notebook.name:<24}  {headless.title(notebook)}")


@app.command()
def run(
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="[CHAPTER]...", help="All if none.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="smoke, laptop or gpu.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    seed: Annotated[str | None, typer.Option(help="A whole number.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="NAME=VALUE")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("runs"),
    notebooks: Folder = None,
) -> None:
    """Execute chapters; what is not given stays as the notebook has it.

    Exit code 0: all ran; 1: some failed; 2: refused before anything ran.
    """
    common = {"size": size, "device": device, "seed": seed}
    try:
        given = {k: v for k, v in common.items() if v is not None}
        given |= _pairs(parameter or [])
        chosen = _choose(headless.chapters(notebooks), keys or [])
        checked = [headless.check_parameters(one.path, given) for one in chosen]
        failed = [not _run(*job, out) for job in zip(chosen, checked, strict=True)]
    except ValueError as error:
        _refuse(error)
    raise typer.Exit(any(failed))


def _pairs(parameters: list[str]) -> dict[str, str]:
    """Take `name=value` apart; raises ValueError where there is no `=`."""
    for text in parameters:
        if "=" not in text:
            raise ValueError(f"-p takes name=value, not {text!r}")
    return {name: value for name, _, value in (p.partition("=") for p in parameters)}


def _choose(
    found: dict[str, headless.Notebook], keys: list[str]
) -> list[headless.Notebook]:
    """Return the chapters asked for, each once; raises ValueError for an unknown one.

    A chapter may be asked for by its number, with or without a leading zero.
    """
    wanted = dict.fromkeys(key.lstrip("0") or key for key in keys) or dict.fromkeys(
        found
    )
    if unknown := [key for key in wanted if key not in found]:
        known = ", ".join(f"{key} ({one.name})" for key, one in found.items())
        raise ValueError(f"unknown chapter {', '.join(unknown)}; known: {known}")
    return [found[key] for key in wanted]


def _run(notebook: headless.Notebook, parameters: dict[str, Any], out: Path) -> bool:
    """Execute one chapter, print a line about it; return whether it succeeded."""
    progress = sys.stderr.isatty()
    result = headless.run_chapter(notebook, out, parameters, progress=progress)
    word = "failed" if result.error else "done"
    line = f"{notebook.key:>3}  {notebook.name}  {word}  {result.seconds:.1f} s"
    typer.echo(f"{line}  {result.output}")
    if result.error:
        typer.echo(f"tfcourse: {notebook.path.name}: {result.error}", err=True)
    return result.error is None


Name = Annotated[str, typer.Argument(metavar="NAME", help="As `tfcourse data list`.")]


@data_app.command("list")
def list_data() -> None:
    """List the data sets: size, whether they are here, what they are, their terms."""
    for name, one in DATASETS.items():
        size = sum(file.size for file in one.files) / 1e6
        here = "here" if is_here(name) else "-"
        typer.echo(f"{name:<16} {size:4.1f} MB  {here:<4}  {one.about}; {one.terms}")


@data_app.command("fetch")
def fetch_data(name: Name) -> None:
    """Download a data set, if it is not here, and print its folder.

    TFCOURSE_CACHE names the folder of all data sets, TFCOURSE_MIRROR another place to
    download from. Exit code 0: it is here; 1: it cannot be had; 2: refused.
    """
    try:
        typer.echo(fetch_dataset(name))
    except ValueError as error:
        _refuse(error)
    except DownloadError as error:
        typer.echo(f"tfcourse: {error}", err=True)
        raise typer.Exit(1) from error


@data_app.command("path")
def path_of_data(name: Name) -> None:
    """Print the folder of a data set that is here; exit code 1 if it is not."""
    try:
        folder = cache_folder(name)
    except ValueError as error:
        _refuse(error)
    if not is_here(name):
        typer.echo(f"tfcourse: not here; tfcourse data fetch {name}", err=True)
        raise typer.Exit(1)
    typer.echo(folder)


if __name__ == "__main__":
    app()
