"""The verdicts of every chapter do not depend on the seed: `make seeds`, some minutes.

A chapter raises an error as soon as a claim is not what the ledger says.
"""

from pathlib import Path

import pytest

from tfcourse.headless import chapters, check_parameters, run_chapter

FOUND = chapters(Path(__file__).parents[2] / "notebooks")


@pytest.mark.seeds
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("key", FOUND)
def test_all_claims_hold_with_this_seed(key: str, seed: int, tmp_path: Path) -> None:
    chapter = FOUND[key]
    parameters = check_parameters(chapter.path, {"seed": seed, "device": "cpu"})
    assert run_chapter(chapter, tmp_path, parameters).error is None
