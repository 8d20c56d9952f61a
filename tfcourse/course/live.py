"""Exports the date translator that runs in the book, from a run of `live-dates`.

    tfcourse train live-dates --out runs/live-dates
    python -m tfcourse.course.live runs/live-dates book/_static/live

What is measured is what is shipped: weights rounded to float16, computed in float32.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch
from babel import Locale
from safetensors.torch import save
from torch import Tensor

from tfcourse.course.pages import write_pages
from tfcourse.data.dates import FIRST, LAST
from tfcourse.data.files import replacing
from tfcourse.data.many_dates import (
    DATE_STYLES,
    date_pair,
    names,
    own_name,
    split_days,
    template,
)
from tfcourse.data.pairs import translation_batch
from tfcourse.recipes import translation
from tfcourse.recipes.run import Run, load_run
from tfcourse.training.evaluation import translate

FORMAT = "tfcourse live 1"
LIMIT = 1_500_000  # bytes; with the scripts, the page is to stay under 2 MB
GOLDEN = 12  # inputs whose logits go with the model
DAYS, BEAM_DAYS, BEAMS = 200, 4, 4  # days measured for each pair of languages


def export_live(folder: Path, out: Path, days: int = DAYS) -> list[Path]:
    """Write weights, vocabulary, measurements and golden logits; return the files.

    A folder without a finished run of `live-dates`, and files that are too large for a
    page, raise `ValueError`. Twice from the same run gives the same bytes.
    """
    run = load_run(folder, "cpu")
    if run.name != "live-dates":
        raise ValueError(f"{folder} has a run of {run.name}, not of live-dates")
    if not 1 <= days <= translation.TESTED_ON:
        raise ValueError(f"days must be from 1 to {translation.TESTED_ON}, not {days}")
    weights = save({n: w.half() for n, w in run.model.state_dict().items()})
    run.model.load_state_dict({n: w.half() for n, w in run.model.state_dict().items()})
    unseen = unseen_days(run)
    about = {
        **describe(run),
        "crc32": zlib.crc32(weights),
        "scores": measure(run, unseen[:days]),
        "unseen": [day.isoformat() for day in unseen[:days]],
    }
    asked, logits = golden(run, unseen)
    files = {
        "model.safetensors": weights,
        "model.json": _json(about),
        "golden.safetensors": save(logits),
        "golden.json": _json(asked),
    }
    if (size := sum(map(len, files.values()))) > LIMIT:
        raise ValueError(f"{size} bytes are more than the page's {LIMIT}")
    for name, content in files.items():
        with replacing(out / name) as beside:
            beside.write_bytes(content)
    return [out / name for name in files]


def unseen_days(run: Run) -> list[date]:
    """Return the test days of a run: neither trained on nor looked at in between."""
    looked_at, tested_on = translation.LOOKED_AT, translation.TESTED_ON
    _, days = split_days(looked_at + tested_on, run.settings.training.seed)
    return days[looked_at:]


def languages(run: Run) -> list[str]:
    """Return the languages of a run."""
    return str(run.settings.data.languages).split(",")


def describe(run: Run) -> dict[str, Any]:
    """Return what a page must know: config, vocabulary, languages, training."""
    training = run.settings.training
    return {
        "format": FORMAT,
        "config": asdict(run.model.config),
        "symbols": list(run.tokenizer.symbols),  # type: ignore[attr-defined]
        "languages": {name: _language(name) for name in languages(run)},
        "training": {
            "pairs": run.settings.data.count,
            "steps": training.steps,
            "batch": training.batch,
            "seed": training.seed,
            "first": FIRST.isoformat(),
            "last": LAST.isoformat(),
            "weights": sum(w.numel() for w in run.model.parameters()),
        },
        "beams": BEAMS,
    }


def _language(name: str) -> dict[str, Any]:
    """Return how a language is called and written, and how it writes a date."""
    locale = Locale.parse(name)
    return {
        "name": own_name(name),
        "english": locale.get_display_name("en"),
        "direction": locale.text_direction,
        **names(name),
        **{style: template(name, style) for style in DATE_STYLES},
    }


def measure(run: Run, days: Sequence[date]) -> dict[str, Any]:
    """Return the share of dates translated exactly: of all, by source and by target.

    Every day is asked for in every pair of languages, in a style and the other by
    turns. Beams are slower and see the first few days alone.
    """
    found = _outcomes(run, days, 1)
    right = [outcome for *_, outcome in found]
    by_beam = [outcome for *_, outcome in _outcomes(run, days[:BEAM_DAYS], BEAMS)]
    share = {
        place: {
            name: _mean([r for *pair, r in found if pair[index] == name])
            for name in languages(run)
        }
        for index, place in enumerate(("source", "target"))
    }
    return {
        "days": len(days),
        "asked": len(right),
        "greedy": _mean(right),
        "beam": _mean(by_beam),
        "beam_asked": len(by_beam),
        "by_source": share["source"],
        "by_target": share["target"],
    }


def _outcomes(
    run: Run, days: Sequence[date], beams: int
) -> list[tuple[str, str, bool]]:
    """Return (source, target, right or not) for every day in every pair."""
    asked = [
        (source, target, *date_pair(day, source, target, DATE_STYLES[n % 2]))
        for source in languages(run)
        for target in languages(run)
        for n, day in enumerate(days)
    ]
    texts = [text for *_, text, _ in asked]
    outputs = translate(run.model, texts, run.tokenizer, num_beams=beams)
    return [
        (source, target, output == answer)
        for (source, target, _, answer), output in zip(asked, outputs, strict=True)
    ]


@torch.no_grad()
def golden(
    run: Run, days: Sequence[date]
) -> tuple[list[dict[str, str]], dict[str, Tensor]]:
    """Return inputs, and the logits that torch computes for them by the equation.

    The days go round the languages, so that each is a source and a target.
    """
    known = languages(run)
    asked, logits = [], {}
    for n, day in enumerate(days[:GOLDEN]):
        source, target = (
            known[(n * step + shift) % len(known)] for step, shift in ((1, 0), (3, 1))
        )
        text, answer = date_pair(day, source, target, DATE_STYLES[n % 2])
        batch = translation_batch([(text, answer)], run.tokenizer)
        logits[str(n)] = run.model(batch.tokens, batch.source)[0].contiguous()
        asked.append({"source": text, "target": answer})
    return asked, logits


def _mean(outcomes: Sequence[bool]) -> float:
    return sum(outcomes) / len(outcomes)


def _json(content: Any) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a run of live-dates")
    parser.add_argument("out", type=Path, help="folder for the files")
    given = parser.parse_args(arguments)
    try:
        files = export_live(given.run, given.out)
    except ValueError as error:
        parser.error(str(error))
    for path in files:
        print(f"written: {path}, {path.stat().st_size} bytes")
    if (Path.cwd() / "book").is_dir():
        write_pages(Path.cwd())
    return 0


if __name__ == "__main__":
    sys.exit(main())
