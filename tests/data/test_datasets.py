"""Public data sets: where they are kept, and what their loaders make of them.

The real files are read where TFCOURSE_TEST_DATA names a folder that has them, in the
layout of a mirror.
"""

import gzip
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tfcourse.data import datasets
from tfcourse.data.datasets import (
    DATASETS,
    Dataset,
    cache_folder,
    fetch_dataset,
    is_here,
    multi30k,
    sst2,
    tiny_shakespeare,
)
from tfcourse.data.download import DownloadError, RemoteFile

REAL = os.environ.get("TFCOURSE_TEST_DATA")
needs_real = pytest.mark.skipif(not REAL, reason="TFCOURSE_TEST_DATA names no folder")

Fill = Callable[..., None]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFCOURSE_MIRROR", (tmp_path / "mirror").as_uri())


@pytest.fixture
def fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fill:
    """Return a function that gives a data set other files, there and known."""

    def fill(name: str, **contents: bytes) -> None:
        files = []
        for file in DATASETS[name].files:
            content = contents[file.name.replace(".", "_")]
            path = tmp_path / "mirror" / name / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            files.append(RemoteFile(file.url, sha256, len(content)))
        monkeypatch.setitem(DATASETS, name, Dataset("about", "terms", tuple(files)))

    return fill


def test_every_file_has_an_address_a_size_and_a_checksum() -> None:
    for name, one in DATASETS.items():
        assert one.about, name
        assert one.terms, name
        assert len({file.name for file in one.files}) == len(one.files) > 0
        for file in one.files:
            assert file.url.startswith("https://")
            assert len(bytes.fromhex(file.sha256)) == 32
            assert file.size > 0


def test_data_is_kept_where_the_environment_says_or_where_the_system_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_folder("sst2") == tmp_path / "cache" / "sst2"
    monkeypatch.setenv("TFCOURSE_CACHE", "~/here")
    assert cache_folder("sst2") == Path.home() / "here" / "sst2"
    monkeypatch.delenv("TFCOURSE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert cache_folder("sst2").parts[-2:] == ("tfcourse", "sst2")
    with pytest.raises(ValueError, match="unknown data set 'mnist'; known: multi30k, "):
        cache_folder("mnist")


def test_a_data_set_is_here_once_all_its_files_are(fill: Fill) -> None:
    fill("sst2", train_tsv=b"a\t0", dev_tsv=b"b\t1")
    assert not is_here("sst2")
    folder = fetch_dataset("sst2")
    assert is_here("sst2")
    assert {path.name for path in folder.iterdir()} >= {"train.tsv", "dev.tsv"}
    (folder / "dev.tsv").unlink()
    assert not is_here("sst2")


def test_without_a_mirror_the_public_host_is_asked(
    fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(datasets, "fetch", lambda *a, **k: asked.append((a, k)))
    for mirror, url in (("", None), ("https://x.y/z/", "https://x.y/z/sst2/train.tsv")):
        monkeypatch.setenv("TFCOURSE_MIRROR", mirror)
        asked.clear()
        folder = fetch_dataset("sst2", progress=False)
        first = DATASETS["sst2"].files[0]
        assert asked[0] == ((first, folder), {"url": url, "progress": False})
        assert len(asked) == 2


@pytest.mark.parametrize("mirror", ["ftp://x.y/z", "/some/folder", "x.y"])
def test_a_mirror_of_another_kind_is_refused(
    mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFCOURSE_MIRROR", mirror)
    with pytest.raises(ValueError, match=f"begin with http://, .*: '{mirror}'"):
        fetch_dataset("sst2")


def test_a_mirror_without_the_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(DownloadError, match=r"tinyshakespeare/input.txt: .*No such"):
        tiny_shakespeare()


@pytest.mark.parametrize("tokenised", [False, True])
def test_multi30k_pairs_the_lines_of_two_languages(fill: Fill, tokenised: bool) -> None:
    texts = {
        f"{split}_{language}": f"{language} {split} 1 \n{language}\u2028{split} 2\n"
        for split in ("train", "val", "test_2016_flickr")
        for language in ("de", "en")
    }
    if tokenised:
        names = {key: "_lc_norm_tok_".join(key.rsplit("_", 1)) for key in texts}
        fill("multi30k_tok", **{names[k]: text.encode() for k, text in texts.items()})
    else:
        packed = {f"{k}_gz": gzip.compress(text.encode()) for k, text in texts.items()}
        fill("multi30k", **packed)
    found = multi30k("en", "de", tokenised=tokenised)
    assert set(found) == {"train", "val", "test"}
    assert found["test"] == [
        ("en test_2016_flickr 1", "de test_2016_flickr 1"),
        ("en\u2028test_2016_flickr 2", "de\u2028test_2016_flickr 2"),
    ]
    assert found["val"][0] == ("en val 1", "de val 1")
    assert len(found["train"]) == 2


@pytest.mark.parametrize("languages", [("de", "fr"), ("en", "en")])
def test_multi30k_has_two_languages_here(languages: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=f"not '{languages[0]}' and '{languages[1]}'"):
        multi30k(*languages)


def test_sst2_labels_are_words(fill: Fill) -> None:
    fill("sst2", train_tsv=b"dull .\t0\na\tjoy\t1\n", dev_tsv=b"so-so\t0")
    assert sst2() == {
        "train": [("dull .", "negative"), ("a\tjoy", "positive")],
        "val": [("so-so", "negative")],
    }


def test_tiny_shakespeare_is_cut_at_nine_tenths(fill: Fill) -> None:
    fill("tinyshakespeare", input_txt="0123456789é\r\n".encode() * 10)
    parts = tiny_shakespeare()
    assert parts["train"] + parts["val"] == "0123456789é\r\n" * 10
    assert len(parts["train"]) == 117


@pytest.fixture
def _real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFCOURSE_MIRROR", Path(str(REAL)).resolve().as_uri())


@needs_real
@pytest.mark.usefixtures("_real")
def test_the_real_multi30k_has_its_official_splits() -> None:
    found = multi30k()
    assert {k: len(v) for k, v in found.items()} == {
        "train": 29000,
        "val": 1014,
        "test": 1000,
    }
    assert found["val"][0] == (
        "Eine Gruppe von Männern lädt Baumwolle auf einen Lastwagen",
        "A group of men are loading cotton onto a truck",
    )
    known = set(found["train"])
    assert not known & {*found["val"], *found["test"]}
    assert all(
        text == text.strip() != "" for v in found.values() for p in v for text in p
    )


@needs_real
@pytest.mark.usefixtures("_real")
def test_the_real_tokenised_multi30k_has_as_many_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Folders of test data may hold these files compressed; the public host does not.
    mirror = tmp_path / "mirror" / "multi30k_tok"
    mirror.mkdir(parents=True)
    for file in DATASETS["multi30k_tok"].files:
        packed = Path(str(REAL), "multi30k_tok", f"{file.name}.gz")
        if not packed.exists():
            pytest.skip(f"{packed.name} is not in TFCOURSE_TEST_DATA")
        (mirror / file.name).write_bytes(gzip.decompress(packed.read_bytes()))
    monkeypatch.setenv("TFCOURSE_MIRROR", (tmp_path / "mirror").as_uri())
    found = multi30k(tokenised=True)
    assert [len(v) for v in found.values()] == [29000, 1014, 1000]
    assert sum(len(german.split()) for german, _ in found["test"]) == 12103


@needs_real
@pytest.mark.usefixtures("_real")
def test_the_real_sst2_has_its_official_splits() -> None:
    found = sst2()
    assert {k: len(v) for k, v in found.items()} == {"train": 6920, "val": 872}
    assert {label for _, label in found["train"]} == {"positive", "negative"}
    assert sum(label == "positive" for _, label in found["val"]) == 444
    assert found["val"][0] == ("one long string of cliches", "negative")


@needs_real
@pytest.mark.usefixtures("_real")
def test_the_real_tiny_shakespeare_is_whole() -> None:
    parts = tiny_shakespeare()
    assert parts["train"].startswith("First Citizen:\nBefore we proceed")
    assert len(parts["train"] + parts["val"]) == 1_115_394
