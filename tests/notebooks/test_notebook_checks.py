"""The checks of chapters accept a good notebook and find every planted fault."""

import copy
from collections.abc import Callable
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_checks import (
    CHECKS,
    HEADINGS,
    Committed,
    computed_names,
    solutions,
    words,
)

from tfcourse.course.ledger import ChapterTitle, Claim, Ledger

Edit = Callable[[Committed], None]


def row(number: int, verdict: str) -> Claim:
    return Claim(
        id=f"C{number}",
        chapter=1,
        section="main",
        claim="A sentence.",
        verdict=verdict,
        reason="A reason.",
        source={"vaswani2017attention": "section 3"},
        evidence="citation" if number == 2 else "experiment",
        when="asked" if verdict == "depends" else None,
    )


LEDGER = Ledger(
    claims={
        f"C{n}": row(n, v) for n, v in ((1, "holds"), (2, "depends"), (6, "fails"))
    },
    chapters={1: ChapterTitle("01_components", "Parts", "What are the parts?")},
    sources={"vaswani2017attention": "Vaswani 2017"},
)
TITLE = """# 1 · What are the parts?

*Chapter 1 of 10 · 30 minutes to read · 3 claims: 1 holds, 1 depends, 1 fails*"""
SAY = """1. **✓ Holds** “A sentence.” [C1](../book/ledger.md#C1)
2. **◐ Depends** “A sentence.” [C2](../book/ledger.md#C2)"""
SPOKEN = """**30 seconds.** Attention compares $q^T k$ and averages values.

<details><summary>2 minutes</summary>

Then a longer answer.

</details>"""
EXERCISE = """### Exercise 1.{} · the mask

*10 minutes · easy.*

<details><summary>Solution</summary>

```python
def causal_mask(length):
    return length
```
</details>"""
PARAMETERS = 'size: str = "laptop"  # smoke\ndevice: str = "auto"\nseed: int = 0'
CLAIMS = """claim(
    "C1", holds={"equal": same, "small": error < 0.1}, measured="0"
)
cited("C2")
other = evidence("C6", fails={"x": (a != b).any()}, measured="1")
claim_table(other)"""
FOLDED = {"tags": ["hide-input"], "jupyter": {"source_hidden": True}}


def recorded(*pairs: tuple[str, str]) -> Any:
    claims = [{"id": i, "verdict": v, "ran": True, "measured": ""} for i, v in pairs]
    metadata = {"tfcourse": {"claims": claims}}
    return new_output("display_data", {"text/html": "<p>box</p>"}, metadata=metadata)


def parts() -> dict[str, list[Any]]:
    """Return the cells below each heading of a good chapter."""
    text, code = new_markdown_cell, new_code_cell
    picture = [
        new_output("display_data", {"image/png": "iVBOR"}),
        new_output("display_data", {"text/html": '<div data-alt="A line">'}),
    ]
    records = [
        recorded(("C1", "holds"), ("C2", "depends")),
        recorded(("C6", "fails")),
    ]
    stub, check = "def causal_mask(length):\n    ...", "exercises.check(causal_mask)"
    quiz = 'show.quiz("1.{}", "Which?", [("a", a > b), ("b", a < b)], "x")'
    return {
        "What people say": [text(SAY)],
        "Say this instead": [text(SPOKEN)],
        "Put to the test": [
            text("### Is it so?\n\nAn equation: $a_b$ and `x = {1}`."),
            code("a, b = torch.rand(2)\nerror = abs(a - b)\nsame = error == a - b"),
            code(CLAIMS, outputs=records),
            code("show.experiment(figure)", outputs=picture, metadata=FOLDED),
            code("", outputs=[]),
        ],
        "Exercises": [
            cell
            for n in (1, 2, 3)
            for cell in (text(EXERCISE.format(n)), code(stub), code(check))
        ],
        "Quiz": [code(quiz.format(n)) for n in range(1, 6)],
    }


def good_chapter() -> Committed:
    text, code = new_markdown_cell, new_code_cell
    below = parts()
    cells = [text(TITLE), code(PARAMETERS, metadata={"tags": ["parameters"]})]
    cells.append(code("run = chapter.start(1, size=size, device=device, seed=seed)"))
    for heading in HEADINGS:
        cells += [text(f"## {heading}"), *below.get(heading, [])]
    counted = [c for c in cells if c.cell_type == "code" and c.source]
    for place, cell in enumerate(counted, start=1):
        cell.execution_count = place
    kernel = {"name": "python3", "display_name": "Python 3"}
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.validate(notebook)
    return Committed(1, notebook, copy.deepcopy(LEDGER))


def faults(chapter: Committed) -> dict[str, list[str]]:
    found = {check.__name__: list(check(chapter)) for check in CHECKS}
    return {name: said for name, said in found.items() if said}


def test_a_good_chapter_has_no_fault() -> None:
    assert faults(good_chapter()) == {}


# ---- planted faults -----------------------------------------------------------------


def swap(old: str, new: str) -> Edit:
    """Replace text in the first cell that has it."""

    def edit(chapter: Committed) -> None:
        cell = next(c for c in chapter.notebook.cells if old in c.source)
        cell.source = cell.source.replace(old, new, 1)

    return edit


def drop(text: str) -> Edit:
    """Remove the first cell that has a text."""

    def edit(chapter: Committed) -> None:
        cells = chapter.notebook.cells
        cells.remove(next(c for c in cells if text in c.source))

    return edit


def output(**content: Any) -> Edit:
    def edit(chapter: Committed) -> None:
        chapter.code[-1].outputs.append(new_output(**content))

    return edit


def retag(chapter: Committed) -> None:
    chapter.code[0].metadata.tags = []


def other_kernel(chapter: Committed) -> None:
    chapter.notebook.metadata.kernelspec.name = "my-env"


def not_run(chapter: Committed) -> None:
    chapter.code[-1].execution_count = None


def ran_at_smoke(chapter: Committed) -> None:
    outputs = (o for o in chapter.outputs if "tfcourse" in o.metadata)
    next(outputs).metadata.tfcourse.claims[0]["ran"] = False


def ledger_changed(chapter: Committed) -> None:
    chapter.ledger.claims["C6"] = row(6, "holds")  # type: ignore[index]


def ledger_grew(chapter: Committed) -> None:
    chapter.ledger.claims["C7"] = row(7, "holds")  # type: ignore[index]


def undescribed(chapter: Committed) -> None:
    next(c for c in chapter.code if "experiment" in c.source).outputs.pop()


def shown_in_lab(chapter: Committed) -> None:
    cell = next(c for c in chapter.code if "experiment" in c.source)
    cell.metadata.jupyter.source_hidden = False


def too_large(chapter: Committed) -> None:
    chapter.code[-1].source += "\n#" + "\n# many lines" * 130_000


LONG = "word " * 81

PLANTED: list[tuple[str, Edit, str]] = [
    ("parameters", retag, "0 cells"),
    ("parameters", swap("seed: int = 0", "seed: int = 1"), "the parameters are"),
    ("parameters", swap("size: str = ", "size = "), "not an annotated parameter"),
    ("parameters", swap("seed: int = 0", "seed: int = 0\nx: int = 1"), "'x'"),
    ("kernel", other_kernel, "'my-env'"),
    ("paths", swap("An equation", "See /home/me/x.py"), "/home/"),
    ("executed", not_run, "the counts are"),
    ("executed", output(output_type="error", ename="E", evalue="v"), "an error: E"),
    ("executed", output(output_type="stream", name="stderr", text="W"), "stderr: 'W'"),
    ("size", too_large, "not under 1,500,000"),
    ("headings", swap("## Follow-ups", "## Follow ups"), "second-level"),
    ("headings", drop("## Quiz"), "second-level"),
    ("headings", swap("# 1 · What", "# 1 · Which"), "first-level"),
    ("columns", swap("a, b = ", f"{'a' * 70} = "), "columns"),
    ("plumbing", shown_in_lab, "JupyterLab"),
    ("plain_markdown", swap("An equation", "See {eq}`one`"), "a role"),
    ("plain_markdown", swap("An equation", "\n:::{note}\nx\n:::\n"), "a directive"),
    ("plain_markdown", swap("An equation", "\n```{math}\nx\n```\n"), "a directive"),
    ("plain_markdown", swap("An equation", "\n(eq-one)=\n"), "a target"),
    ("plain_markdown", swap("An eq", '<p style="color: red">'), "an inline style"),
    ("figures", undescribed, "1 pictures, 0 described"),
    ("spoken", swap("Attention compares", LONG), "30 seconds: "),
    ("spoken", swap("Then a", LONG * 4), "2 minutes: 32"),
    ("spoken", swap("**30 seconds.**", "**Short.**"), "found 0 times"),
    ("facts", swap("1 holds", "2 hold"), "1 holds, 1 depends"),
    ("facts", swap("30 minutes", "Half an hour"), "minutes to read"),
    ("facts", swap("*Chapter", "Chapter"), "no line of facts"),
    ("verdict_words", swap("**✓ Holds**", "**✗ Fails**"), "C1 is said to be 'fails'"),
    ("verdict_words", swap("**✓ Holds**", "**✓ Hold**"), "unknown verdict"),
    ("verdict_words", swap(" [C1](../book/ledger.md#C1)", ""), "without a linked"),
    ("verdict_words", swap("ledger.md#C1", "ledger.md#C2"), "C1 links to"),
    ("verdict_words", swap("[C1](../book/ledger.md#C1)", "[C9](#C9)"), "C9 is not in"),
    ("practice", drop("Exercise 1.3"), "2 exercises"),
    ("practice", drop("exercises.check"), "2 checks"),
    ("practice", drop("show.quiz"), "4 quizzes"),
    ("rows", swap('cited("C2")', ""), "C2 has 0"),
    ("rows", swap('cited("C2")', 'cited("C2", "C1")'), "C1 has 2"),
    ("rows", swap('cited("C2")', 'cited("C3")'), "C3 is not a row"),
    ("rows", swap('cited("C2")', "cited(name)"), "write the id out: name"),
    ("rows", ledger_grew, "C7 has 0"),
    ("recorded", ran_at_smoke, "C1 was not decided"),
    ("recorded", ledger_changed, "C6: outputs say fails, ledger holds"),
    ("recorded", ledger_grew, "C7 is not in the outputs"),
    ("conditions", swap("error < 0.1", "True"), "True is not computed"),
    ("conditions", swap("error < 0.1", "1 < 2"), "1 < 2 is not computed"),
    ("conditions", swap("error < 0.1", "error == error"), "error == error is not"),
    ("conditions", swap("error < 0.1", "len('ab') == 2"), "is not computed"),
    ("conditions", swap("error < 0.1", "seed == 0"), "seed == 0 is not computed"),
    ("conditions", swap("error < 0.1", "run.trained"), "run.trained is not computed"),
    ("conditions", swap("error < 0.1", "undefined > 0"), "undefined > 0 is not"),
    ("conditions", swap('{"equal": same, "small": error < 0.1}', "same"), "in a dict"),
    ("conditions", swap("same = error == a - b", "same = True"), "same is not"),
    ("conditions", swap('("a", a > b), ("b", a < b)', '("a", True)'), "quiz"),
]


@pytest.mark.parametrize(
    ("check", "edit", "said"), PLANTED, ids=[f"{p[0]}: {p[2]}" for p in PLANTED]
)
def test_a_planted_fault_is_found(check: str, edit: Edit, said: str) -> None:
    chapter = good_chapter()
    edit(chapter)
    found = faults(chapter)
    assert said in "\n".join(found.get(check, [])), found


def test_every_check_has_a_planted_fault() -> None:
    assert {check.__name__ for check in CHECKS} == {name for name, _, _ in PLANTED}


def test_a_path_in_an_output_is_found() -> None:
    chapter = good_chapter()
    output(output_type="stream", name="stdout", text='File "/usr/lib/x.py"')(chapter)
    assert "/usr/" in faults(chapter)["paths"][0]


@pytest.mark.parametrize(
    "text",
    ["attention/values", "see https://example.org/home/x", "ratio: 3 /tmp", "a:b"],
)
def test_text_with_slashes_is_no_path(text: str) -> None:
    chapter = good_chapter()
    swap("An equation", text)(chapter)
    assert "paths" not in faults(chapter)


def test_words_are_counted_as_spoken() -> None:
    assert words("The **mask** hides $x_{i} + 1$: that's a well-known `fact`.") == 8


def test_names_of_constants_are_no_data() -> None:
    chapter = good_chapter()
    lines = """limit = 3
x = limit
for y in a:
    z = y
runs, kept = {1: []}, []
runs[1].append(a)
kept.append(3)
(a, b) = """
    swap("a, b = ", lines)(chapter)
    known = computed_names(chapter)
    assert {"a", "b", "error", "same", "y", "z", "runs"} <= known
    assert not {"limit", "x", "run", "seed", "kept"} & known


def test_solutions_are_found_with_their_stubs() -> None:
    found = list(solutions(good_chapter()))
    assert [name for name, _, _ in found] == ["causal_mask"] * 3
    assert found[0][1].strip() == "def causal_mask(length):\n    ..."
    assert found[0][2] == "def causal_mask(length):\n    return length\n"


@pytest.mark.parametrize("old", ["def causal_mask(length):\n    ...", "Solution<"])
def test_an_exercise_without_stub_or_solution_is_refused(old: str) -> None:
    chapter = good_chapter()
    swap(old, "x<" if "<" in old else "x = 1")(chapter)
    with pytest.raises(ValueError, match=r"Exercise 1\.1 .*lacks"):
        list(solutions(chapter))
