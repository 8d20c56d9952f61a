"""Tokenizers come back from their files, and nothing else does."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tfcourse.data.bpe import BPE
from tfcourse.data.fast_bpe import FastBPE
from tfcourse.data.saved import FORMAT, load_tokenizer, save_tokenizer
from tfcourse.data.tokenizers import SPECIAL, Tokenizer

TEXTS = ["low lower newest widest, 3. März\ud800 \u2028東京"]
PLAIN = ["low lower newest widest, 3. März \u2028東京"]
TOKENIZERS = [
    Tokenizer.from_texts(TEXTS),
    Tokenizer.from_texts(TEXTS, "character"),
    BPE(),
    BPE.from_texts(PLAIN, 270),
    FastBPE.from_texts(PLAIN, 270),
]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_every_kind_comes_back_from_its_file(
    tokenizer: Tokenizer | BPE, tmp_path: Path
) -> None:
    save_tokenizer(tokenizer, tmp_path / "a" / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "a" / "tokenizer.json")
    assert loaded == tokenizer
    assert type(loaded) is type(tokenizer)
    assert loaded.encode(PLAIN[0]) == tokenizer.encode(PLAIN[0])


def test_a_file_that_is_there_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    for tokenizer in TOKENIZERS:
        save_tokenizer(tokenizer, path)
        assert load_tokenizer(path) == tokenizer
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_there_is_not_called_broken(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_tokenizer(tmp_path / "none.json")


def described(**content: object) -> str:
    return json.dumps({"format": FORMAT} | content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "Expecting value"),
        (described(kind="bpe", merges=[])[:-1], "Expecting ',' delimiter"),
        (b"\xff\xfe\x00", "codec can't decode"),
        ("[]", f'it lacks "format": "{FORMAT}"'),
        ('{"format": "other"}', f'it lacks "format": "{FORMAT}"'),
        (described(), '"kind" must be one of word, character, bpe, fast bpe, not None'),
        (described(kind="word"), '"symbols" must be a list'),
        (described(kind="line", symbols=SPECIAL), "kind.* must be one of .*, not line"),
        (described(kind=["bpe"], symbols=SPECIAL), "must be one of .*, not .'bpe'"),
        (described(kind="word", symbols=["a"]), "the first symbols must be"),
        (described(kind="word", symbols=[*SPECIAL, 5]), '"symbols" must be strings'),
        (described(kind="word", symbols=[*SPECIAL, "a", "a"]), "not twice"),
        (described(kind="bpe"), '"merges" must be a list'),
        (described(kind="bpe", merges=[[4, "5"]]), "must be pairs of whole numbers"),
        (described(kind="bpe", merges=[[4, True]]), "must be pairs of whole numbers"),
        (described(kind="bpe", merges=[[4, 5.0]]), "must be pairs of whole numbers"),
        (described(kind="bpe", merges=[[]]), "must be pairs of whole numbers"),
        (described(kind="bpe", merges=["45"]), "must be pairs of whole numbers"),
        (described(kind="fast bpe", merges=[[4, 999]]), "merge 0 must be of two ids"),
    ],
)
def test_foreign_and_broken_files_are_refused_with_what_is_wrong(
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"tokenizer.json is no tokenizer .*{message}"):
        load_tokenizer(path)


def test_a_tokenizer_of_another_kind_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a SimpleNamespace has no form as a file"):
        save_tokenizer(SimpleNamespace(), tmp_path / "t.json")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
