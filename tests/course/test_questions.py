"""Questions are read from the chapters' own sections, with ids that stay."""

import json
import re
from pathlib import Path

import pytest

from tfcourse.course.ledger import load_ledger
from tfcourse.course.questions import (
    KINDS,
    Question,
    drill_block,
    load_questions,
    read_questions,
)

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LEDGER = load_ledger()
CELLS = [
    "# 1 · What is it?",
    "## Say this instead\n\n**30 seconds.** Blocks\nof parts.\n\n"
    "<details><summary>2 minutes</summary>\n\nFirst.\n\nThen.\n\n</details>",
    "## Put to the test\n\n### Where do values enter?\n\nText.\n\nWith $n$ keys,\n\n"
    "$$w = 1/n$$\n\nwhich is small.",
    "And once more:\n\n$$w = 1$$",
    "### What else?",
    "## Follow-ups\n\n### Why `True`?\n\nSee [C5](../book/ledger.md#C5).\n\nMore.\n\n"
    "### And now?\n\nRead [on](06_encoder_decoder.ipynb#quiz) or "
    "[up](#say-this-instead).",
    '## When they push back\n\n<details class="tf-push"><summary>“Is a &lt; b?”'
    "</summary>\n\nNo.\n\n</details>\n\n## What to remember\n\n### Not one?\n\nx",
]


def write(folder: Path, cells: list[str], name: str = "01_components") -> Path:
    made = [{"cell_type": "markdown", "source": [cell]} for cell in cells]
    made.insert(3, {"cell_type": "code", "source": "### No heading\n$$x$$"})
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps({"cells": made}), encoding="utf-8")
    return path


@pytest.fixture
def asked(tmp_path: Path) -> dict[str, Question]:
    path = write(tmp_path, CELLS)
    return {one.id: one for one in read_questions(path, 1, "What is it?")}


def test_each_section_gives_its_questions(asked: dict[str, Question]) -> None:
    told = {id_: (one.text, one.answer) for id_, one in asked.items()}
    assert told == {
        "1-short": ("What is it?", "Blocks\nof parts."),
        "1-long": ("What is it?", "First.\n\nThen."),
        "1-follow-up-why-true": (
            "Why `True`?",
            "See [C5](../book/ledger.md#C5).\n\nMore.",
        ),
        "1-follow-up-and-now": (
            "And now?",
            "Read [on](../notebooks/06_encoder_decoder.ipynb#quiz) or "
            "[up](../notebooks/01_components.ipynb#say-this-instead).",
        ),
        "1-whiteboard-where-do-values-enter": (
            "Where do values enter?",
            "$$w = 1/n$$\n\nwhich is small.",
        ),
        "1-whiteboard-where-do-values-enter-2": ("Where do values enter?", "$$w = 1$$"),
        "1-push-back-is-a-b": ("“Is a < b?”", "No."),
    }


def test_a_whiteboard_says_what_comes_before_the_formula(
    asked: dict[str, Question],
) -> None:
    first = asked["1-whiteboard-where-do-values-enter"]
    assert first.setting == "With $n$ keys,"
    assert asked["1-whiteboard-where-do-values-enter-2"].setting == "And once more:"
    assert first.link == "../notebooks/01_components.ipynb#where-do-values-enter"


def test_follow_ups_in_bold_are_read_as_well(tmp_path: Path) -> None:
    bold = "## Follow-ups\n\n**Where?** Here.\n\n**Not a question.** x\n\n**Why?** So."
    path = write(tmp_path, [*CELLS[:5], bold, CELLS[6]])
    found = read_questions(path, 1, "What is it?")
    follow_ups = [(one.text, one.answer) for one in found if one.kind == "follow-up"]
    assert follow_ups == [("Where?", "Here.\n\n**Not a question.** x"), ("Why?", "So.")]


@pytest.mark.parametrize(
    ("cell", "missing"),
    [(1, "30 seconds, 2 minutes"), (5, "Follow-up"), (6, "Pushing back")],
)
def test_a_chapter_without_a_kind_is_refused(
    tmp_path: Path, cell: int, missing: str
) -> None:
    path = write(tmp_path, CELLS[:cell] + CELLS[cell + 1 :])
    with pytest.raises(ValueError, match=f"01_components.ipynb has no .*: {missing}$"):
        read_questions(path, 1, "What is it?")


def test_a_question_asked_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [*CELLS[:6], CELLS[6].split("\n\n## ")[0] * 2])
    with pytest.raises(ValueError, match=r"chapter 1 asks twice: “Is a < b\?”"):
        read_questions(path, 1, "What is it?")


def test_a_folder_without_chapters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no chapter"):
        load_questions(LEDGER, tmp_path)


# ---- the chapters as they are -------------------------------------------------------


def test_no_question_of_the_chapters_is_left_out() -> None:
    questions = load_questions(LEDGER, NOTEBOOKS)
    assert {one.chapter for one in questions} == set(LEDGER.chapters)
    assert {one.kind for one in questions} == set(KINDS)
    assert len({one.id for one in questions}) == len(questions)
    for number, chapter in LEDGER.chapters.items():
        cells = json.loads((NOTEBOOKS / f"{chapter.notebook}.ipynb").read_text())[
            "cells"
        ]
        texts = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
        mine = [one.kind for one in questions if one.chapter == number]
        assert mine.count("push-back") == "".join(texts).count('class="tf-push"')
        assert mine.count("whiteboard") == sum("$$" in text for text in texts)
        (section,) = [text for text in texts if text.startswith("## Follow-ups")]
        asked = re.findall(r"^(?:###|\*\*).*\?", section, re.MULTILINE)
        assert mine.count("follow-up") == len(asked) > 0, number


def test_the_page_folds_every_answer_once(tmp_path: Path) -> None:
    questions = read_questions(write(tmp_path, CELLS), 1, "What is it?")
    page = drill_block(questions, LEDGER)
    assert page.startswith("## 1 · Core components\n\n<details ")
    assert re.findall(r'id="q-([^"]+)"', page) == [one.id for one in questions]
    whiteboards = sum(one.kind == "whiteboard" for one in questions)
    assert page.count("<details") == len(questions) + whiteboards
    assert page.count("<details") == page.count("\n\n</details>")
    before, after = page.split("With $n$ keys,")
    assert "$$w = 1/n$$" not in before
    assert after.startswith(
        "\n\n<details><summary>The formula</summary>\n\n$$w = 1/n$$"
    )
    assert "“Is a &lt; b?”" in page
    assert "<span>Why True?</span>" in page
