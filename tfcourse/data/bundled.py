"""English that comes with Python: its language reference and its docstrings."""

import ast
import random
import sysconfig
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

from tfcourse.data.fast_bpe import FastBPE
from tfcourse.data.pairs import Pairs

# Modules and packages with docstrings of several paragraphs. Some are not in every
# version of Python, or have moved from a module to a package.
MODULES = """
__future__ _collections_abc _py_abc _pydatetime _pydecimal _pyio _strptime abc argparse
asyncio base64 bdb bz2 cmd code codecs collections compileall concurrent configparser
contextlib copy dataclasses datetime difflib dis doctest email enum filecmp fileinput
fnmatch fractions ftplib functools glob graphlib gzip hashlib heapq hmac http imaplib
importlib inspect ipaddress json linecache logging lzma mimetypes numbers optparse os
pathlib pdb pickle pkgutil platform poplib py_compile pyclbr pydoc queue random
rlcompleter runpy sched secrets selectors shelve shutil site smtplib socket socketserver
ssl stat statistics string subprocess symtable sysconfig tabnanny textwrap threading
timeit trace traceback types typing unittest urllib uuid venv warnings wave weakref
webbrowser wsgiref xml xmlrpc zipapp zipfile zipimport
""".split()  # noqa: SIM905


@dataclass(frozen=True)
class Texts:
    """Documents to train on and others to test on."""

    train: list[str]
    test: list[str]


def normalised(text: str) -> str:
    """Return the text in lower case with single spaces: what counts as the same."""
    return " ".join(text.casefold().split())


def reference_text(*, test: int = 8, seed: int = 0) -> Texts:
    """Return the topics of Python's language reference, `test` of them to test on.

    About 80 topics and 460,000 characters of English, which differ from version to
    version. Topics quote each other: a paragraph of a test topic, whatever its case
    and spaces, is left out of the topics to train on. A `test` that leaves nothing on
    either side raises `ValueError`.
    """
    if not 1 <= test < len(topics):
        raise ValueError(f"test must be between 1 and {len(topics) - 1}, not {test}")
    shuffled = random.Random(seed).sample(sorted(topics), len(topics))
    held = [topics[name] for name in shuffled[:test]]
    known = {normalised(part) for text in held for part in text.split("\n\n")}
    train = []
    for name in shuffled[test:]:
        parts = topics[name].split("\n\n")
        kept = [part for part in parts if normalised(part) not in known]
        train += ["\n\n".join(kept)] * bool(kept)
    return Texts(train, held)


def docstring_pairs(*, test: int = 200, seed: int = 0, vocab_size: int = 4000) -> Pairs:
    """Return pairs of a docstring's body and its summary line, to learn to summarise.

    About 2,000 pairs of the standard library, whose number differs from version to
    version; the files are parsed, not imported. Spaces are single, and no two pairs
    have the same body or summary, whatever their case. The tokenizer is learned from
    the pairs to train on. A `test` that leaves nothing on either side raises
    `ValueError`.
    """
    pairs = _unlike(_described(_sources()))
    if not 1 <= test < len(pairs):
        raise ValueError(f"test must be between 1 and {len(pairs) - 1}, not {test}")
    random.Random(seed).shuffle(pairs)
    train = pairs[test:]
    texts = (text for pair in train for text in pair)
    return Pairs(train, pairs[:test], FastBPE.from_texts(texts, vocab_size))


def _sources() -> Iterator[bytes]:
    """Yield the source of each file of the modules, always in the same order."""
    library = Path(sysconfig.get_path("stdlib"))
    for name in MODULES:
        files = [library / f"{name}.py", *sorted((library / name).rglob("*.py"))]
        for file in files:
            if file.is_file() and "test" not in file.relative_to(library).parts:
                yield file.read_bytes()


def _described(sources: Iterable[str | bytes]) -> Iterator[tuple[str, str]]:
    """Yield body and summary of every docstring that has both."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for source in sources:
        for node in _statements(ast.parse(source)):
            text = ast.get_docstring(node) if isinstance(node, kinds) else None
            summary, _, body = (text or "").partition("\n\n")
            if body.strip() and "\n" not in summary.strip():
                yield " ".join(body.split()), " ".join(summary.split())


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the module and its statements in the order of `ast.walk`.

    Expressions, which hold no docstring, are most of the nodes and of its time.
    """
    holders = (ast.stmt, ast.ExceptHandler, ast.match_case)
    left: deque[ast.AST] = deque([tree])
    while left:
        node = left.popleft()
        yield node
        children = ast.iter_child_nodes(node)
        left.extend(child for child in children if isinstance(child, holders))


def _unlike(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Keep the first of pairs that share a body or a summary."""
    seen: set[str] = set()
    kept = []
    for pair in pairs:
        both = {normalised(text) for text in pair}
        if not both & seen:
            kept.append(pair)
        seen |= both
    return kept
