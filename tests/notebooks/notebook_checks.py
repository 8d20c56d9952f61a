"""What every chapter must keep: each check yields the faults it finds, in words."""

import ast
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tfcourse.course.ledger import Key, Ledger
from tfcourse.course.pages import counted
from tfcourse.course.show import VERDICTS

HEADINGS = [
    "What people say",
    "Say this instead",
    "Put to the test",
    "Follow-ups",
    "Broken on purpose",
    "Exercises",
    "Quiz",
    "When they push back",
    "What to remember",
]
PARAMETERS = {"size": ("str", "laptop"), "device": ("str", "auto"), "seed": ("int", 0)}
MOST_BYTES = 1_500_000
MOST_COLUMNS = 72
PLUMBING = {"hide-input", "remove-input"}
DECIDING = ("claim", "evidence", "cited", "claim_table")
FILLING = ("append", "extend", "insert", "add", "update")  # of a list, set or dict
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/])/(?:home|root|tmp|Users|usr|opt|var|mnt|private)/|\b[A-Z]:\\\w"
)
MYST = {
    "a role": re.compile(r"\{[a-zA-Z][\w:.-]*\}`"),
    "a directive": re.compile(r"^\s*(?:`{3,}|~{3,}|:{3,})\{", re.MULTILINE),
    "a target": re.compile(r"^\([\w-]+\)=\s*$", re.MULTILINE),
    "an inline style": re.compile(r"<[^>]+\sstyle="),
}
VERDICT_WORD = re.compile(r"\*\*([✓◐✗]) (\w+)\*\*")
CLAIM_LINK = re.compile(r"\[(C\d+)\]\(([^)]*)\)")


@dataclass(frozen=True)
class Committed:
    """A notebook as it lies in the repository, with the ledger it is held against."""

    number: Key
    notebook: NotebookNode
    ledger: Ledger

    @classmethod
    def read(cls, path: Path, ledger: Ledger) -> "Committed":
        titles = ledger.chapters.items()
        number = next(n for n, title in titles if title.notebook == path.stem)
        return cls(number, nbformat.read(path, as_version=4), ledger)

    @property
    def code(self) -> list[NotebookNode]:
        return [c for c in self.notebook.cells if c.cell_type == "code"]

    @property
    def markdown(self) -> str:
        """All Markdown cells in order, without their fenced code."""
        cells = (c.source for c in self.notebook.cells if c.cell_type == "markdown")
        return re.sub(r"^```.*?^```", "", "\n\n".join(cells), flags=re.M | re.S)

    @property
    def outputs(self) -> list[NotebookNode]:
        return [output for cell in self.code for output in cell.outputs]

    def calls(self, *names: str) -> list[ast.Call]:
        """All calls of functions of these names, also as attributes of a module."""
        return [
            node
            for cell in self.code
            for node in ast.walk(ast.parse(cell.source))
            if isinstance(node, ast.Call) and called(node) in names
        ]


def called(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


# ---- form ---------------------------------------------------------------------------


def parameters(chapter: Committed) -> Iterator[str]:
    cells = [cell for cell in chapter.code if "parameters" in tags(cell)]
    if len(cells) != 1:
        yield f"{len(cells)} cells are tagged `parameters`, not one"
        return
    found = {}
    for node in ast.parse(cells[0].source).body:
        if not isinstance(node, ast.AnnAssign) or node.value is None:
            yield f"`{ast.unparse(node)}` is not an annotated parameter"
            continue
        name = ast.unparse(node.target)
        found[name] = (ast.unparse(node.annotation), ast.literal_eval(node.value))
    if list(found.items()) != list(PARAMETERS.items()):
        yield f"the parameters are {found}, not {PARAMETERS}"


def kernel(chapter: Committed) -> Iterator[str]:
    name = chapter.notebook.metadata.get("kernelspec", {}).get("name")
    if name != "python3":
        yield f"the kernel is {name!r}, not 'python3'"


def paths(chapter: Committed) -> Iterator[str]:
    for place, cell in enumerate(chapter.notebook.cells):
        texts = [cell.source]
        for output in cell.get("outputs", []):
            data = output.get("data", {"": output.get("text", "")})
            texts += [text for kind, text in data.items() if "image/" not in kind]
        for text in texts:
            if found := ABSOLUTE_PATH.search(str(text)):
                yield f"cell {place} has an absolute path: …{found[0]}…"


def executed(chapter: Committed) -> Iterator[str]:
    written = [cell for cell in chapter.code if cell.source.strip()]
    counts = [cell.execution_count for cell in written]
    if counts != list(range(1, len(written) + 1)):
        yield f"not executed once from top to bottom: the counts are {counts}"
    for output in chapter.outputs:
        if output.output_type == "error":
            yield f"an output is an error: {output.ename}: {output.evalue}"
        if output.output_type == "stream" and output.name == "stderr":
            yield f"a cell wrote to stderr: {output.text[:80]!r}"


def size(chapter: Committed) -> Iterator[str]:
    count = len(nbformat.writes(chapter.notebook).encode())
    if count >= MOST_BYTES:
        yield f"{count:,} bytes, not under {MOST_BYTES:,}"


def headings(chapter: Committed) -> Iterator[str]:
    lines = re.findall(r"^(#{1,2}) +(.+?)\s*$", chapter.markdown, flags=re.M)
    top = [text for marks, text in lines if marks == "#"]
    question = chapter.ledger.chapters[chapter.number].question
    if top != [f"{chapter.number} · {question}"]:
        yield f"the first-level headings are {top}, not '{chapter.number} · {question}'"
    second = [text for marks, text in lines if marks == "##"]
    if second != HEADINGS:
        yield f"the second-level headings are {second}, not {HEADINGS}"


def columns(chapter: Committed) -> Iterator[str]:
    for cell in chapter.code:
        for line in cell.source.splitlines():
            if len(line) > MOST_COLUMNS:
                yield f"a code line has {len(line)} columns: {line.strip()!r}"


def plumbing(chapter: Committed) -> Iterator[str]:
    for cell in chapter.code:
        hidden = cell.metadata.get("jupyter", {}).get("source_hidden")
        if PLUMBING & set(tags(cell)) and hidden is not True:
            yield f"hidden in the book but not in JupyterLab: {cell.source[:60]!r}"


def plain_markdown(chapter: Committed) -> Iterator[str]:
    cells = (c.source for c in chapter.notebook.cells if c.cell_type == "markdown")
    for source, (what, pattern) in itertools.product(cells, MYST.items()):
        if found := pattern.search(source):
            yield f"{what}, which JupyterLab and GitHub show raw: {found[0].strip()!r}"


def figures(chapter: Committed) -> Iterator[str]:
    """Every picture comes from show.experiment, which asks for a text beside it."""
    for cell in chapter.code:
        pictures = sum("image/png" in o.get("data", {}) for o in cell.outputs)
        described = sum(
            "data-alt=" in o.get("data", {}).get("text/html", "") for o in cell.outputs
        )
        if pictures != described:
            yield f"{pictures} pictures, {described} described: {cell.source[:60]!r}"


# ---- text ---------------------------------------------------------------------------


def spoken(chapter: Committed) -> Iterator[str]:
    found = {
        "30 seconds": (r"\*\*30 seconds\.\*\*(.*?)(?=<details|^#)", 80),
        "2 minutes": (r"<summary>2 minutes</summary>(.*?)</details>", 300),
    }
    for name, (pattern, most) in found.items():
        texts = re.findall(pattern, chapter.markdown, flags=re.M | re.S)
        if len(texts) != 1:
            yield f"{name}: found {len(texts)} times, not once"
        elif (count := words(texts[0])) > most or not count:
            yield f"{name}: {count} words, not 1 to {most}"


def words(text: str) -> int:
    """Count words as spoken: a formula is one, marks are none."""
    text = re.sub(r"\$[^$]+\$", "formula", text)
    return len(re.findall(r"[^\W_]+(?:[-’'./][^\W_]+)*", text))


def facts(chapter: Committed) -> Iterator[str]:
    total = len(chapter.ledger.of_chapter(chapter.number))
    counts = counted(chapter.ledger.counts(chapter.number))
    first = chapter.notebook.cells[0].source
    line = re.search(r"^\*Chapter .*\*$", first, flags=re.M)
    if not line:
        yield "the first cell has no line of facts, `*Chapter 1 of 10 · …*`"
        return
    if f"{total} claims: {counts}" not in line[0]:
        yield f"the facts lack '{total} claims: {counts}': {line[0]}"
    if not re.search(r"\d+ minutes", line[0]):
        yield f"the facts lack the minutes to read: {line[0]}"


def verdict_words(chapter: Committed) -> Iterator[str]:
    known = {
        (glyph, word): verdict for verdict, (glyph, word) in VERDICTS.items()
    }  # as VERDICTS, read from the mark
    items = re.split(r"\n(?=\s*(?:\d+\.|-|>) )|\n\s*\n", chapter.markdown)
    for item in items:
        for mark in VERDICT_WORD.findall(item):
            ids = [id_ for id_, _ in CLAIM_LINK.findall(item)]
            if mark not in known:
                yield f"unknown verdict {' '.join(mark)!r} in {item[:60]!r}"
            elif not ids:
                yield f"a verdict without a linked claim: {item[:60]!r}"
            else:
                yield from _wrong_verdicts(chapter, ids, known[mark])
    for id_, target in CLAIM_LINK.findall(chapter.markdown):
        if target not in (f"../book/ledger.md#{id_}", f"#{id_}"):
            yield f"{id_} links to {target!r}, not to ../book/ledger.md#{id_}"


def _wrong_verdicts(chapter: Committed, ids: list[str], said: str) -> Iterator[str]:
    for id_ in ids:
        row = chapter.ledger.claims.get(id_)
        if row is None:
            yield f"{id_} is not in the ledger"
        elif row.verdict != said:
            yield f"{id_} is said to be {said!r}, the ledger says {row.verdict!r}"


def practice(chapter: Committed) -> Iterator[str]:
    exercises = re.findall(r"^### Exercise \d+[a-z]?\.\d+ · .+$", chapter.markdown, re.M)
    checks = chapter.calls("check")
    if len(exercises) < 3 or len(checks) < len(exercises):
        yield f"{len(exercises)} exercises with {len(checks)} checks, not 3 or more"
    quizzes = chapter.calls("quiz")
    if len(quizzes) < 5:
        yield f"{len(quizzes)} quizzes, not 5 or more"


# ---- claims -------------------------------------------------------------------------


def rows(chapter: Committed) -> Iterator[str]:
    """Every row of the chapter has exactly one piece of evidence, none is unknown."""
    found = Counter()
    for call in chapter.calls(*DECIDING):
        for argument in call.args:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                found[argument.value] += 1
            elif called(call) != "claim_table":
                yield f"write the id out: {ast.unparse(argument)} in {called(call)}"
    own = {row.id for row in chapter.ledger.of_chapter(chapter.number)}
    for id_ in sorted(own | set(found), key=lambda name: (len(name), name)):
        if id_ not in own:
            yield f"{id_} is not a row of chapter {chapter.number} in the ledger"
        elif found[id_] != 1:
            yield f"{id_} has {found[id_]} pieces of evidence, not one"


def recorded(chapter: Committed) -> Iterator[str]:
    """The committed outputs were made with this ledger, at a size that decides."""
    records = [
        record
        for output in chapter.outputs
        for record in output.get("metadata", {}).get("tfcourse", {}).get("claims", [])
    ]
    seen = {record["id"]: record for record in records}
    for row in chapter.ledger.of_chapter(chapter.number):
        record = seen.get(row.id)
        if record is None:
            yield f"{row.id} is not in the outputs: execute the notebook"
        elif not record["ran"]:
            yield f"{row.id} was not decided: execute the notebook at size 'laptop'"
        elif record["verdict"] != row.verdict:
            yield f"{row.id}: outputs say {record['verdict']}, ledger {row.verdict}"


def conditions(chapter: Committed) -> Iterator[str]:
    """Conditions of claims and keys of quizzes are computed, never written down."""
    known = computed_names(chapter)
    for call in chapter.calls("claim", "evidence"):
        name = f"{called(call)}({', '.join(map(ast.unparse, call.args))})"
        for keyword in call.keywords:
            if keyword.arg not in ("holds", "fails"):
                continue
            if not isinstance(keyword.value, ast.Dict):
                yield f"{name}: write the conditions of `{keyword.arg}` out in a dict"
                continue
            for value in keyword.value.values:
                if not is_computed(value, known):
                    yield f"{name}: {ast.unparse(value)} is not computed from data"
    for call in chapter.calls("quiz"):
        options = call.args[2] if len(call.args) > 2 else None
        if options is None or not is_computed(options, known):
            yield f"the key of a quiz is not computed: {ast.unparse(call)[:60]}"


def computed_names(chapter: Committed) -> set[str]:
    """Names that hold data: bound by a call, a loop or a function, or from such names.

    The parameters are not among them: a condition on `seed` says nothing.
    """
    cells = [cell for cell in chapter.code if "parameters" not in tags(cell)]
    nodes = [node for c in cells for node in ast.walk(ast.parse(c.source))]
    known: set[str] = {n.name for n in nodes if isinstance(n, ast.FunctionDef)}
    known |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    for bound in _loop_targets(nodes):
        known |= names(bound)
    assigned = [
        (targets(node), node.value)
        for node in nodes
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.NamedExpr)
        and node.value is not None
    ]
    assigned += [
        (names(node.func.value), ast.Tuple(node.args, ast.Load()))
        for node in nodes
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in FILLING
    ]
    start = [n for n, value in assigned if "chapter.start" in ast.unparse(value)]
    handles = set().union(*start)  # `run = chapter.start(…)` is no data either
    for _ in assigned:  # a fixed point is reached after at most this many rounds
        for bound, value in assigned:
            calls = any(isinstance(node, ast.Call) for node in ast.walk(value))
            if calls or names(value) & known:
                known |= bound - handles
    return known - handles


def _loop_targets(nodes: list[ast.AST]) -> Iterator[ast.AST]:
    for node in nodes:
        if isinstance(node, ast.For | ast.comprehension):
            yield node.target
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            yield node.optional_vars


def targets(node: ast.AST) -> set[str]:
    places = node.targets if isinstance(node, ast.Assign) else [node.target]
    return set().union(*map(names, places))


def names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def is_computed(value: ast.AST, known: set[str]) -> bool:
    """Whether an expression uses data and is no comparison of a thing with itself."""
    for node in ast.walk(value):
        if isinstance(node, ast.Compare) and any(
            ast.dump(node.left) == ast.dump(other) for other in node.comparators
        ):
            return False
    return bool(names(value) & known)


# ---- exercises ----------------------------------------------------------------------


def solutions(chapter: Committed) -> Iterator[tuple[str, str, str]]:
    """Yield (name, stub, solution) of each exercise.

    Raises ValueError where a section has no stub, check or solution of that name.
    """
    for text, code in sections(chapter):
        if not text.startswith("### Exercise "):
            continue
        check = re.search(r"^exercises\.check\((\w+)\)", code, flags=re.M)
        solution = re.search(
            r"<summary>Solution</summary>.*?^```python\n(.*?)^```", text, re.M | re.S
        )
        if not check or not solution or f"def {check[1]}(" not in code:
            title = text.splitlines()[0]
            raise ValueError(f"{title!r} lacks its stub, its check or its solution")
        yield check[1], code.replace(check[0], ""), solution[1]


def sections(chapter: Committed) -> list[tuple[str, str]]:
    """Return (Markdown, code) of each part, from one heading to the next."""
    parts = [("", "")]
    for cell in chapter.notebook.cells:
        text, code = parts[-1]
        if cell.cell_type == "code":
            parts[-1] = (text, code + cell.source + "\n")
            continue
        same, *new = re.split(r"^(?=###? )", cell.source, flags=re.M)
        parts[-1] = (text + same + "\n\n", code)
        parts += [(part, "") for part in new]
    return parts


CHECKS = (
    parameters,
    kernel,
    paths,
    executed,
    size,
    headings,
    columns,
    plumbing,
    plain_markdown,
    figures,
    spoken,
    facts,
    verdict_words,
    practice,
    rows,
    recorded,
    conditions,
)
