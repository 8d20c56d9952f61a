"""The page of a sweep has each claim's measured values at each point."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from typer.testing import CliRunner

from tfcourse.batch import Outcome
from tfcourse.cli import app
from tfcourse.course.ledger import load_ledger
from tfcourse.summary import (
    GAP,
    Seen,
    axis,
    collect,
    numbers,
    page_of,
    series,
    words,
)

Write = Callable[..., Path]
CLAIMS = """\
from tfcourse.course.ledger import claim
claim("C6", fails={"it moves": seed < 3}, ran=size != "smoke",
      measured=f"the weights change by 0.{seed}1, `d` grows by a factor of 100")
claim("C10", holds={"one": seed < 9}, fails={"two": seed < 9}, measured="no number")
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,024 tokens, −0.34 nats", [1024.0, -0.34]),
        ("2.5×10⁻⁷ and 10⁻⁶ and 10²", [2.5e-7, 1e-6, 100.0]),
        ("97 % or more, 52 % or less, 100 %", [97.0, 52.0, 100.0]),
        ("under 0.1 s, (13/12, 7)", [0.1, 13.0, 12.0, 7.0]),
        ("claim C6 of GPT2, d = 3.", [3.0]),
        ("no number", []),
    ],
)
def test_numbers_are_read_as_they_are_written(text: str, found: list[float]) -> None:
    assert numbers(text) == pytest.approx(found)
    assert words(text).count(GAP) == len(found)


def seen(measured: str, state: str = "shown", **point: object) -> Seen:
    return Seen(point, state, measured)


def test_numbers_that_differ_are_named_by_the_words_around_them() -> None:
    both = [
        seen("encoder 97 % or more, decoder 100 %; chance 50 %", seed=0),
        seen("encoder 100 %, decoder 90 % or more; chance 50 %", seed=1),
    ]
    alike, named = series(both)
    assert alike == both
    assert named == {"encoder […] %": [97.0, 100.0], "decoder […] %": [100.0, 90.0]}


def test_an_ellipsis_in_the_words_is_no_number() -> None:
    both = [seen(f"a, b, … z: {value} letters", seed=value) for value in (25, 26)]
    assert series(both) == (both, {"… z: […] letters": [25.0, 26.0]})


def test_other_words_are_left_to_the_table() -> None:
    usual = [seen("right in 7 cases", seed=0), seen("right in 9 cases", seed=2)]
    alike, named = series([usual[0], seen("right nowhere", seed=1), usual[1]])
    assert alike == usual
    assert named == {"right in […] cases": [7.0, 9.0]}
    assert series([seen("", "not run", seed=0)]) == ([], {})
    assert series([seen("always 3"), seen("always 3")])[1] == {}


def test_the_number_with_the_most_values_goes_across() -> None:
    points = [
        {"size": size, "seed": seed, "rate": 0.1}
        for size in ("smoke", "laptop")
        for seed in (0, 1, 2)
    ]
    assert axis(points) == ("seed", ["size"])
    assert axis([{"size": "smoke"}, {"size": "laptop"}]) == ("", ["size"])
    assert axis([{"seed": 1}]) == ("", [])


def test_a_contradiction_is_read_from_the_error(tmp_path: Path) -> None:
    error = (
        "cell [4] `claim(` raised ClaimError: claims C36, C44: not met: fast. "
        "Measured: 3 times as fast"
    )
    one = Outcome("1", "01_a", {"seed": 1}, "failed", 1.0, "nowhere", error=error)
    expected = [Seen({"seed": 1}, "contradicted", "3 times as fast")]
    assert collect([one]) == {"C36": expected, "C44": expected}


def test_a_sweep_becomes_a_page(write_chapter: Write, tmp_path: Path) -> None:
    folder, out = write_chapter("01_a", CLAIMS).parent, tmp_path / "out"
    sweep = ["--sweep", "seed=1..3", "--sweep", "size=smoke,laptop"]
    command = ["run", *sweep, "--jobs", "2", "--out", str(out)]
    ran = CliRunner().invoke(app, [*command, "--notebooks", str(folder)])
    assert ran.exit_code == 1
    result = CliRunner().invoke(app, ["summary", str(out)])
    assert (result.exit_code, result.output) == (0, f"{out / 'sweep.html'}\n")
    text = (out / "sweep.html").read_text(encoding="utf-8")
    page = BeautifulSoup(text, "html.parser")
    assert "6 runs: 5 done, 1 failed" in page.get_text()
    first, other = page.find_all("section")
    assert (first["id"], other["id"]) == ("C6", "C10")
    assert load_ledger().row("C6").claim[:30] in first.get_text()
    assert "2 shown, 3 not run, 1 contradicted." in first.get_text()
    picture = first.find("img")
    assert base64.b64decode(picture["src"].partition(",")[2])[:4] == b"\x89PNG"
    assert "over 3 points. the weights change by […]: 0.110 to 0.310" in picture["alt"]
    rows = [[c.get_text() for c in row.find_all(["th", "td"])] for row in
            first.find("table").find("tbody").find_all("tr")]  # fmt: skip
    assert len(rows) == 6
    assert ["seed=3, size=laptop", "contradicted"] in [row[:2] for row in rows]
    assert other.find("img") is None
    assert "5 shown" in other.get_text()
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", str(page))


def test_text_that_a_crash_cut_short_does_not_break_the_page(tmp_path: Path) -> None:
    error = "raised ClaimError: claim C6: not met: x. Measured: `half and $1 <b>"
    one = Outcome("1", "01_a", {}, "failed", 1.0, "nowhere", error=error)
    assert "half and 1 &lt;b&gt;" in page_of([one], load_ledger())


def test_a_folder_without_a_report_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["summary", str(tmp_path)])
    assert result.exit_code == 2
    assert f"{tmp_path} has no report.json of a run" in result.stderr


def test_a_report_whose_notebooks_are_gone_has_no_claims(tmp_path: Path) -> None:
    one = Outcome("1", "01_a", {}, "done", 1.0, str(tmp_path / "01_a.ipynb"))
    (tmp_path / "report.json").write_text(json.dumps({"chapters": [one.__dict__]}))
    assert CliRunner().invoke(app, ["summary", str(tmp_path)]).exit_code == 0
    assert "All 0 claims" in (tmp_path / "sweep.html").read_text()
