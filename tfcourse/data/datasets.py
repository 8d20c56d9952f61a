"""Public data sets that a chapter's larger sizes ask for, and where they are kept."""

import gzip
import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import yaml

from tfcourse.data.download import RemoteFile, fetch, is_whole

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Dataset:
    """Files that belong together, and under which terms they may be used."""

    about: str
    terms: str
    files: tuple[RemoteFile, ...]


def _read(path: Path) -> dict[str, Dataset]:
    return {
        name: Dataset(
            entry["about"],
            entry["terms"],
            tuple(
                RemoteFile(f"{entry['base']}/{file}", sha256, size)
                for file, (size, sha256) in entry["files"].items()
            ),
        )
        for name, entry in yaml.safe_load(path.read_text(encoding="utf-8")).items()
    }


DATASETS = _read(Path(__file__).with_name("datasets.yml"))


def dataset(name: str) -> Dataset:
    """Return the data set of that name; unknown ones raise `ValueError`."""
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    return DATASETS[name]


def cache_folder(name: str) -> Path:
    """Return where a data set is kept: in TFCOURSE_CACHE, or the user's cache folder.

    The folder need not exist.
    """
    dataset(name)
    base = os.environ.get("TFCOURSE_CACHE") or platformdirs.user_cache_path("tfcourse")
    return Path(base).expanduser() / name


def is_here(name: str) -> bool:
    """Say whether all files of a data set are in the cache, whole."""
    folder = cache_folder(name)
    return all(is_whole(folder / file.name, file) for file in dataset(name).files)


def fetch_dataset(name: str, *, progress: bool | None = None) -> Path:
    """Return the folder of a data set, after downloading what is not there yet.

    TFCOURSE_MIRROR is another place to download from: the address of a folder that has
    `<data set>/<file>`, as the cache does, by http://, https:// or file://. Any other
    raises `ValueError`; what cannot be had raises `DownloadError`.
    """
    folder = cache_folder(name)
    mirror = os.environ.get("TFCOURSE_MIRROR", "").rstrip("/")
    if mirror and not mirror.startswith(("http://", "https://", "file://")):
        raise ValueError(
            f"TFCOURSE_MIRROR must begin with http://, https:// or file://: {mirror!r}"
        )
    for file in dataset(name).files:
        url = f"{mirror}/{name}/{file.name}" if mirror else None
        fetch(file, folder, url=url, progress=progress)
    return folder


def multi30k(
    source: str = "de", target: str = "en", *, tokenised: bool = False
) -> dict[str, Pairs]:
    """Return sentence pairs "train" (29,000), "val" (1,014) and "test" (1,000).

    Task 1 of Elliott et al. 2016; the test set is Flickr 2016. Languages are "de" and
    "en"; `tokenised` gives the lower-cased tokens that papers score, with spaces.
    """
    if {source, target} != {"de", "en"}:
        raise ValueError(f"multi30k has de and en here, not {source!r} and {target!r}")
    folder = fetch_dataset("multi30k_tok" if tokenised else "multi30k")
    form = ".lc.norm.tok.{}" if tokenised else ".{}.gz"

    def lines(split: str, language: str) -> list[str]:
        raw = (folder / f"{split}{form.format(language)}").read_bytes()
        text = (raw if tokenised else gzip.decompress(raw)).decode()
        return [line.strip() for line in text.removesuffix("\n").split("\n")]

    files = {"train": "train", "val": "val", "test": "test_2016_flickr"}
    return {
        split: list(zip(lines(file, source), lines(file, target), strict=True))
        for split, file in files.items()
    }


def sst2() -> dict[str, Pairs]:
    """Return labelled sentences "train" (6,920) and "val" (872).

    Whole sentences of the Stanford Sentiment Treebank in lower case, cut into tokens by
    spaces; the label is "positive" or "negative" (Socher et al. 2013, section 5).
    """
    folder = fetch_dataset("sst2")
    label = {"0": "negative", "1": "positive"}

    def pairs(file: str) -> Pairs:
        text = (folder / file).read_text(encoding="utf-8").removesuffix("\n")
        rows = (line.rsplit("\t", 1) for line in text.split("\n"))
        return [(sentence, label[number]) for sentence, number in rows]

    return {"train": pairs("train.tsv"), "val": pairs("dev.tsv")}


def tiny_shakespeare() -> dict[str, str]:
    """Return the text in two parts: "train", the first nine tenths, and "val".

    The data set has no split of its own; this one is nanoGPT's (Karpathy 2022).
    """
    folder = fetch_dataset("tinyshakespeare")
    text = (folder / "input.txt").read_bytes().decode()
    cut = int(0.9 * len(text))
    return {"train": text[:cut], "val": text[cut:]}
