"""The questions of the book with their answers, read from the chapters' own sections.

The page of the interview drill and the cards for Anki both come from here, so neither
is a second copy. Only the standard library and yaml are imported, since the book is
built without torch.
"""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tfcourse.course.ledger import Key, Ledger

# Kind of question -> what the page calls it. The order is that of the page.
KINDS = {
    "short": "30 seconds",
    "long": "2 minutes",
    "follow-up": "Follow-up",
    "whiteboard": "Whiteboard",
    "push-back": "Pushing back",
}
SHORT = re.compile(r"\*\*30 seconds\.\*\*\s+(.*?)(?=\n\n|\Z)", re.DOTALL)
LONG = re.compile(r"<summary>2 minutes</summary>(.*?)</details>", re.DOTALL)
# A heading of its own, or bold at the start of a paragraph.
FOLLOW_UP = re.compile(
    r"^(?:### ([^\n]+)|\*\*([^\n]+?\?)\*\*)\s+(.*?)(?=^### |^\*\*[^\n]+?\?\*\*|\Z)",
    re.MULTILINE | re.DOTALL,
)
PUSH = re.compile(
    r'<details class="tf-push"><summary>(.*?)</summary>(.*?)</details>', re.DOTALL
)
# Kind, question, answer, anchor of the section, setting.
Found = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class Question:
    """One question; texts are Markdown whose links start from the folder `book`.

    The id has the chapter, the kind and the words of the question, so it stays when an
    answer is rewritten. setting: what a whiteboard has on it before the formula comes.
    link: the section of the chapter that answers.
    """

    id: str
    chapter: Key
    kind: str
    text: str
    answer: str
    link: str
    setting: str = ""


def load_questions(ledger: Ledger, folder: Path) -> list[Question]:
    """Read the questions of all chapters that have a notebook in `folder`.

    Raises ValueError for a chapter without its short answer, follow-ups or hostile
    ones, for questions that could not be told apart, and where no chapter is found.
    """
    found: list[Question] = []
    for number, chapter in ledger.chapters.items():
        path = folder / f"{chapter.notebook}.ipynb"
        if path.is_file():
            found += read_questions(path, number, chapter.question)
    if not found:
        raise ValueError(f"no chapter (NN_name.ipynb) in {folder}")
    return found


def read_questions(path: Path, chapter: Key, question: str) -> list[Question]:
    """Read one chapter's questions, by kind and then in its order."""
    cells = _markdown(path)
    sections = _sections(cells)
    found = [
        *_said(sections.get("Say this instead", ""), question),
        *_followed(sections.get("Follow-ups", "")),
        *_derived(cells),
        *_pushed(sections.get("When they push back", "")),
    ]
    missing = set(KINDS) - {"whiteboard"} - {kind for kind, *_ in found}
    if missing:
        named = ", ".join(KINDS[kind] for kind in KINDS if kind in missing)
        raise ValueError(f"{path.name} has no question of the kind: {named}")
    page = f"../notebooks/{path.name}"
    ids = _ids(chapter, found)
    questions = []
    for id_, (kind, text, answer, section, setting) in zip(ids, found, strict=True):
        link = f"{page}#{section}"
        answer, setting = _relink(answer, page), _relink(setting, page)
        questions.append(Question(id_, chapter, kind, text, answer, link, setting))
    return questions


def _ids(chapter: Key, found: Iterable[Found]) -> list[str]:
    """Name each question; one asked twice at the whiteboard gets a number."""
    ids, asked = [], Counter[str]()
    for kind, text, *_ in found:
        name = f"{chapter}-{kind}"
        name += "" if kind in ("short", "long") else f"-{_slug(text)}"
        asked[name] += 1
        if asked[name] > 1 and kind != "whiteboard":
            raise ValueError(f"chapter {chapter} asks twice: {text}")
        ids.append(name + (f"-{asked[name]}" if asked[name] > 1 else ""))
    return ids


# ---- the sections of a chapter ------------------------------------------------------


def _markdown(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]


def _sections(cells: Iterable[str]) -> dict[str, str]:
    """Return {heading: text} of the parts that start with `## heading`."""
    parts = re.split(r"^## (.+)$", "\n\n".join(cells), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _said(section: str, question: str) -> Iterator[Found]:
    for kind, pattern in (("short", SHORT), ("long", LONG)):
        for answer in pattern.findall(section):
            yield kind, question, answer.strip(), "say-this-instead", ""


def _followed(section: str) -> Iterator[Found]:
    for heading, bold, answer in FOLLOW_UP.findall(section):
        anchor = _anchor(heading) if heading else "follow-ups"
        yield "follow-up", heading or bold, answer.strip(), anchor, ""


def _pushed(section: str) -> Iterator[Found]:
    for text, answer in PUSH.findall(section):
        said = html.unescape(text).strip()
        yield "push-back", said, answer.strip(), "when-they-push-back", ""


def _derived(cells: Iterable[str]) -> Iterator[Found]:
    """Yield each passage that leads to a displayed formula, split before it."""
    heading = ""
    for cell in cells:
        before, *rest = cell.split("$$", 1)
        headings = re.findall(r"^###? (.+)$", before, re.MULTILINE)
        heading = headings[-1] if headings else heading
        if rest:
            setting = before.strip().split("\n\n")[-1]
            setting = "" if setting.startswith("#") else setting
            answer = f"$${rest[0].strip()}"
            yield "whiteboard", heading, answer, _anchor(heading), setting
        later = re.findall(r"^###? (.+)$", cell, re.MULTILINE)
        heading = later[-1] if later else heading


def _relink(text: str, page: str) -> str:
    """Let links that start from a chapter start from the folder `book`."""
    text = re.sub(r"\]\((?=[\w.-]+\.ipynb)", "](../notebooks/", text)
    return re.sub(r"\]\((?=#)", f"]({page}", text)


def _slug(text: str) -> str:
    """Return the words of a question, for an id."""
    return "-".join(re.findall(r"\w+", text.lower().replace("'", "")))


def _anchor(heading: str) -> str:
    """Return the anchor that a heading gets in the book, as on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# ---- the page -----------------------------------------------------------------------


def drill_block(questions: Iterable[Question], ledger: Ledger) -> str:
    """Return the questions as Markdown: a heading for each chapter, answers folded."""
    lines: list[str] = []
    chapter: Key | None = None
    for one in questions:
        if one.chapter != chapter:
            chapter = one.chapter
            lines.append(f"## {chapter} · {ledger.chapters[chapter].title}")
        lines.append(_folded(one))
    return "\n\n".join(lines)


def _folded(one: Question) -> str:
    """Return a question with its answer folded; a whiteboard's formula folds twice."""
    text = html.escape(re.sub(r"[`*]", "", one.text), quote=False)
    answer = f"{one.answer}\n\n[Read on in chapter {one.chapter}]({one.link})"
    if one.kind == "whiteboard":
        answer = (
            f"{one.setting}\n\n<details><summary>The formula</summary>\n\n"
            f"{answer}\n\n</details>"
        ).strip()
    return (
        f'<details class="tf-item tf-{one.kind}" id="q-{one.id}">'
        f'<summary><span class="tf-kind">{KINDS[one.kind]}</span> '
        f"<span>{text}</span></summary>\n\n{answer}\n\n</details>"
    )
