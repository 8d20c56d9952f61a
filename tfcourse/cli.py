"""The `tfcourse` command: chapters, data for them, and models trained by recipes."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

import tfcourse
from tfcourse import batch, headless
from tfcourse.data.datasets import DATASETS, cache_folder, fetch_dataset, is_here
from tfcourse.data.download import DownloadError
from tfcourse.progress import Live, expected_times

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
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUES", help="As seed=0..9, or size=smoke,laptop."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("runs"),
    jobs: Annotated[int, typer.Option(min=1, help="Chapters at once.")] = 1,
    timeout: Annotated[
        float | None, typer.Option(min=1, help="Seconds for a chapter.")
    ] = None,
    retry: Annotated[int, typer.Option(min=0, help="More tries after a failure.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave what is done and has not changed.")
    ] = False,
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of a Dask scheduler.")
    ] = None,
    notebooks: Folder = None,
) -> None:
    """Execute chapters; what is not given stays as the notebook has it.

    report.json and report.md in the folder say what became of each. Exit code 0: all
    ran; 1: some failed; 2: refused before anything ran; 130: stopped.
    """
    common = {"size": size, "device": device, "seed": seed}
    try:
        given = {k: v for k, v in common.items() if v is not None}
        given |= _pairs(parameter or [])
        chosen = _choose(headless.chapters(notebooks), keys or [])
        planned = _plan(chosen, given, _sweeps(sweep or []), out.resolve())
        on_terminal = sys.stderr.isatty()
        expected = expected_times(out) if on_terminal else {}
        with Live(expected, _say, on_terminal) as live:
            outcomes = batch.run_all(
                planned,
                out,
                at_once=jobs,
                timeout=timeout,
                retry=retry,
                resume=resume,
                dask=dask,
                progress=live.move,
                finished=live.end,
            )
    except ValueError as error:
        _refuse(error)
    except KeyboardInterrupt:
        typer.echo(
            f"tfcourse: stopped; {out / batch.REPORT} has what is done", err=True
        )
        raise typer.Exit(130) from None
    raise typer.Exit(any(one.state != "done" for one in outcomes))


@app.command()
def summary(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where `tfcourse run --out` wrote.")
    ],
) -> None:
    """Write a page, DIR/sweep.html, of each claim's measured values over a sweep."""
    from tfcourse.summary import write_summary

    try:
        typer.echo(write_summary(folder))
    except ValueError as error:
        _refuse(error)


def _plan(
    chosen: list[headless.Notebook],
    given: dict[str, str],
    sweeps: dict[str, list[str]],
    out: Path,
) -> list[batch.Job]:
    """Return the jobs, in folders of their own where there is a sweep."""
    if twice := sorted(set(given) & set(sweeps)):
        raise ValueError(f"{', '.join(twice)} is given a value and swept: choose one")
    for one in chosen:
        headless.check_notebook(one.path)
    planned = []
    for point in batch.grid(sweeps):
        folder = out / ",".join(f"{name}={value}" for name, value in point.items())
        for one in chosen:
            checked = headless.check_parameters(one.path, given | point)
            planned.append(batch.Job(one, checked, folder))
    return planned


def _sweeps(texts: list[str]) -> dict[str, list[str]]:
    """Read `seed=0..9` and `size=smoke,laptop`."""
    sweeps = {}
    for name, values in _pairs(texts, "--sweep").items():
        ends = re.fullmatch(r"(\d+)\.\.(\d+)", values)
        found = (
            [str(n) for n in range(int(ends[1]), int(ends[2]) + 1)]
            if ends
            else list(dict.fromkeys(values.split(",")))
        )
        if not found or "" in found:
            raise ValueError(f"--sweep {name}={values} has no values, or an empty one")
        sweeps[name] = found
    return sweeps


def _pairs(texts: list[str], option: str = "-p") -> dict[str, str]:
    """Take `name=value` apart; raises ValueError where there is no `=`."""
    for text in texts:
        if "=" not in text:
            raise ValueError(f"{option} takes name=value, not {text!r}")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


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


def _say(text: str, as_error: bool) -> None:
    typer.echo(text, err=as_error)


Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="As `tfcourse recipes`.")]
RunFolder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Where `tfcourse train --out` wrote.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Texts = Annotated[list[str], typer.Argument(metavar="TEXT...")]


@app.command("recipes")
def list_recipes(
    name: Annotated[str | None, typer.Argument(metavar="[RECIPE]")] = None,
) -> None:
    """List what can be trained, or the settings of one recipe."""
    from tfcourse.recipes.catalogue import RECIPES, recipe

    if name is None:
        for key, one in RECIPES.items():
            typer.echo(f"{key:<16} {one.about}")
        return
    with _refusing():
        settings = recipe(name).settings
    for key, value in settings.to_dict().items():
        typer.echo(f"{key}={'none' if value is None else value}")


@app.command()
def train(
    name: Recipe,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="As `recipes RECIPE`."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/RECIPE if none.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder.")
    ] = False,
) -> None:
    """Train a model by a recipe into a folder.

    By torchrun or `accelerate launch`, on many processes. Exit code 0: trained; 1: it
    diverged, or its data cannot be had; 2: refused before anything ran.
    """
    from tfcourse.recipes import run as runs
    from tfcourse.recipes.catalogue import recipe
    from tfcourse.recipes.settings import read_settings

    folder = Path("runs") / name if out is None else out
    with _refusing():
        given = read_settings(changes or [], recipe(name).settings)
        history = runs.train(name, folder, given, resume=resume)
    if runs.is_main_process():
        typer.echo(
            f"{folder}: {history.steps[-1]} steps, {history.seconds:.0f} s, "
            f"loss {history.losses[-1]:.4g}"
        )


@app.command()
def translate(folder: RunFolder, texts: Texts, device: Device = "auto") -> None:
    """Print what a trained model answers to texts, a line for each."""
    from tfcourse.recipes.run import load_run

    with _refusing():
        run = load_run(folder, device)
        if run.recipe.answer is None:
            raise ValueError(f"{folder}: a model of {run.name} does not answer texts")
        answers = run.recipe.answer(run.model, run.tokenizer, run.settings, texts)
    for answer in answers:
        typer.echo(answer)


@app.command()
def complete(
    folder: RunFolder,
    text: Annotated[str, typer.Argument(metavar="TEXT")],
    tokens: Annotated[int, typer.Option(min=1, help="How many at most.")] = 200,
    temperature: Annotated[float, typer.Option(help="0: the likeliest.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Of the k likeliest.")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    device: Device = "auto",
) -> None:
    """Print a text and how a trained language model goes on with it."""
    import torch

    from tfcourse.generation import greedy, sample
    from tfcourse.recipes.run import load_run

    with _refusing():
        run = load_run(folder, device)
        if run.recipe.complete is None:
            raise ValueError(f"{folder}: a model of {run.name} does not complete texts")
        where = next(run.model.parameters()).device
        generator = torch.Generator(where).manual_seed(seed)
        choose = (
            greedy if temperature == 0 else sample(temperature, top_k, None, generator)
        )
        typer.echo(text, nl=False)
        for piece in run.recipe.complete(
            run.model, run.tokenizer, text, tokens, choose
        ):
            typer.echo(piece, nl=False)
    typer.echo()


@app.command()
def evaluate(folder: RunFolder, device: Device = "auto") -> None:
    """Measure a trained model on its test data, with 95 % intervals.

    The figures are printed, and written to DIR/evaluation.json.
    """
    from tfcourse.recipes.run import evaluate_run

    with _refusing():
        scores = evaluate_run(folder, device)
    for score in scores:
        typer.echo(score)


@app.command()
def cards(
    out: Annotated[Path, typer.Option(help="A file: .apkg for Anki, or .csv.")],
    notebooks: Folder = None,
) -> None:
    """Write cards to learn from: every claim with its verdict, every question.

    Anki finds the cards of an earlier export again, so an update keeps its history.
    """
    from tfcourse.course.cards import write_cards

    try:
        number = write_cards(out, notebooks or headless.notebook_folder())
    except ValueError as error:
        _refuse(error)
    typer.echo(f"{number} cards: {out}")


@contextmanager
def _refusing() -> Iterator[None]:
    """End with exit code 2 for what was refused, 1 for what failed."""
    try:
        yield
    except DownloadError as error:
        _fail(error)
    except ValueError as error:
        from tfcourse.training.step import DivergenceError

        if isinstance(error, DivergenceError):
            _fail(error)
        _refuse(error)


def _fail(error: Exception) -> NoReturn:
    typer.echo(f"tfcourse: {error}", err=True)
    raise typer.Exit(1) from error


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
    with _refusing():
        typer.echo(fetch_dataset(name))


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
