"""Run a command whose kernels take the path of size `gpu` on a CPU, in few steps.

    python tests/without_gpu.py tfcourse run --size gpu --device cpu

Widths, lengths and the cells that only this size has are the size's own. Whole numbers
from 50 up that are at most 12 at `smoke`, which are steps and repetitions, are as they
are there, no training takes more steps, and no claim about training is judged. The film
reviews that chapter 4 downloads are made ones.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

CAP, MANY = 12, 50
# A file in this place of IPYTHONDIR is run by every kernel before its first cell.
STARTUP = Path("profile_default", "startup", "few_steps.py")


def few_steps() -> None:
    """Take small numbers of `pick` from smoke, and cut training and downloads short."""
    from functools import wraps
    from typing import Any

    from tfcourse.course.chapter import Chapter
    from tfcourse.data import datasets
    from tfcourse.data.sentiment import opinions
    from tfcourse.training import loop

    def pick(_: Chapter, *, smoke: Any, laptop: Any, gpu: Any) -> Any:
        whole = isinstance(smoke, int) and isinstance(gpu, int)
        return smoke if whole and smoke <= CAP and gpu >= MANY else gpu

    fit = loop.fit

    @wraps(fit)
    def short_fit(model: Any, batches: Any, **options: Any) -> Any:
        steps = options.pop("steps", None) or len(batches)
        return fit(model, batches, steps=min(steps, CAP), **options)

    def made_reviews() -> dict[str, list[tuple[str, str]]]:
        made = opinions(count=1000, test=100)
        return {"train": made.train, "val": made.test}

    Chapter.pick = pick
    Chapter.trained = property(lambda _: False)
    loop.fit = short_fit
    datasets.sst2 = made_reviews


def main(command: list[str]) -> int:
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        startup = Path(folder) / STARTUP
        startup.parent.mkdir(parents=True)
        here = str(Path(__file__).parent)
        startup.write_text(
            f"import sys\nsys.path.insert(0, {here!r})\n"
            "import without_gpu\nwithout_gpu.few_steps()\n"
        )
        environment = os.environ | {"IPYTHONDIR": folder}
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
