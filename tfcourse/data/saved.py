"""Tokenizers as JSON files."""

import json
from pathlib import Path
from typing import Any

from tfcourse.data.bpe import BPE
from tfcourse.data.fast_bpe import FastBPE
from tfcourse.data.files import replacing
from tfcourse.data.tokenizers import UNITS, AnyTokenizer, Tokenizer

FORMAT = "tfcourse tokenizer 1"
BPE_KINDS: dict[str, type[BPE]] = {"bpe": BPE, "fast bpe": FastBPE}


def save_tokenizer(tokenizer: AnyTokenizer, path: Path | str) -> None:
    """Write a tokenizer; a file that is there is replaced at the end.

    One that is neither a `Tokenizer` nor a `BPE` raises `ValueError`.
    """
    content: dict[str, Any] = {"format": FORMAT}
    if isinstance(tokenizer, Tokenizer):
        content |= {"kind": tokenizer.unit, "symbols": tokenizer.symbols}
    elif not isinstance(tokenizer, BPE):
        raise ValueError(f"a {type(tokenizer).__name__} has no form as a file")
    else:
        kinds = {cls: kind for kind, cls in BPE_KINDS.items()}
        content |= {"kind": kinds[type(tokenizer)], "merges": tokenizer.merges}
    with replacing(path) as beside:
        # Escaped to ASCII, which has a form even for lone surrogates.
        beside.write_text(json.dumps(content), encoding="ascii")


def load_tokenizer(path: Path | str) -> Tokenizer | BPE:
    """Read what `save_tokenizer` wrote; any other file raises `ValueError`."""
    try:
        return _tokenizer(json.loads(Path(path).read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path} is no tokenizer file: {error}") from error


def _tokenizer(content: Any) -> Tokenizer | BPE:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f'it lacks "format": "{FORMAT}"')
    kind = str(content.get("kind"))
    if kind not in (known := [*UNITS, *BPE_KINDS]):
        raise ValueError(f'"kind" must be one of {", ".join(known)}, not {kind}')
    if kind in BPE_KINDS:
        merges = _list(content, "merges")
        if not all(isinstance(m, list) and {*map(type, m)} == {int} for m in merges):
            raise ValueError('"merges" must be pairs of whole numbers')
        return BPE_KINDS[kind](tuple(map(tuple, merges)))
    symbols = _list(content, "symbols")
    if not all(isinstance(symbol, str) for symbol in symbols):
        raise ValueError('"symbols" must be strings')
    return Tokenizer(tuple(symbols), kind)


def _list(content: dict[str, Any], name: str) -> list[Any]:
    if not isinstance(content.get(name), list):
        raise ValueError(f'"{name}" must be a list')
    return content[name]
