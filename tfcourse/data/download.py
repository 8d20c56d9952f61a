"""Files from public hosts: whole and unchanged, or not at all."""

import hashlib
import os
import time
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock
from tqdm import tqdm

ATTEMPTS = 5
BLOCK = 16 * 1024  # bytes
TRY_LATER = (408, 429)  # HTTP 4xx that may pass: request timeout, too many requests


class DownloadError(RuntimeError):
    """A file could not be had, or was not the one expected."""


@dataclass(frozen=True)
class RemoteFile:
    """Where a file is, and by what it is known: SHA-256 and size in bytes."""

    url: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """The last part of the address, under which the file is kept."""
        return self.url.rpartition("/")[2]


def is_whole(path: Path, file: RemoteFile) -> bool:
    """Say whether the path is the file, to the bit."""
    return (
        path.is_file()
        and path.stat().st_size == file.size
        and _sha256(path) == file.sha256
    )


def fetch(
    file: RemoteFile,
    folder: Path,
    *,
    url: str | None = None,
    timeout: float = 30.0,
    pause: float = 1.0,
    progress: bool | None = None,
) -> Path:
    """Return the path of the file in `folder`, downloaded if it is not there whole.

    `url` is another place to get it from. What broke off is kept beside it and resumed,
    by this call, which tries five times, or by the next. A host that is silent for
    `timeout` seconds, that lacks the file or has another one raises `DownloadError`;
    nothing but the right file ever has its name. Several processes may ask at once. A
    progress bar shows in terminals, or as `progress` says; `pause` is in seconds.
    """
    path = folder / file.name
    if is_whole(path, file):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{file.name}.part"
    with FileLock(folder / f"{file.name}.lock"):
        if not is_whole(path, file):  # another process may have been quicker
            hidden = None if progress is None else not progress
            _download(url or file.url, part, file, timeout, pause, hidden)
            os.replace(part, path)
    return path


def _download(
    url: str,
    part: Path,
    file: RemoteFile,
    timeout: float,
    pause: float,
    hidden: bool | None,
) -> None:
    """Fill `part` until it is the file; what is of no use is removed."""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(pause)
        resumed = part.exists()
        try:
            _receive(url, part, file.size, timeout, hidden)
        except HTTPError as error:
            reason = str(error)
            error.close()
            if error.code == 416:  # no such range: what is here is of another file
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in TRY_LATER:
                break
        except (OSError, HTTPException) as error:
            reason = str(error) or type(error).__name__
        else:
            if not (reason := _wrong(part, file)):
                return
            part.unlink()
            if not resumed:  # else it may be of two files joined: start anew
                break
    raise DownloadError(f"{url}: {reason}{_kept(part, file)}")


def _receive(
    url: str, part: Path, size: int, timeout: float, hidden: bool | None
) -> None:
    """Ask for what `part` lacks and append it; write anew where the host sends all."""
    have = _size(part)
    if have >= size:
        return
    asked = {"Range": f"bytes={have}-"} if have else {}
    with urlopen(Request(url, headers=asked), timeout=timeout) as answer:
        if answer.status != 206:
            have = 0
        bar = tqdm(
            desc=part.stem, total=size, initial=have, unit="B", unit_scale=True,
            disable=hidden,
        )  # fmt: skip
        with part.open("ab" if have else "wb") as out, bar:
            # One byte more than there should be is enough to know a wrong file.
            while block := answer.read(min(BLOCK, size + 1 - have)):
                have += out.write(block)
                bar.update(len(block))
    if have < size:
        raise OSError(f"broke off after {have} of {size} bytes")


def _wrong(part: Path, file: RemoteFile) -> str:
    """Say how a file that came whole is not the one expected; empty if it is."""
    if _size(part) > file.size:
        return f"longer than the {file.size} bytes expected; the file was removed"
    if (found := _sha256(part)) != file.sha256:
        return f"SHA-256 is {found}, expected {file.sha256}; the file was removed"
    return ""


def _kept(part: Path, file: RemoteFile) -> str:
    if not (have := _size(part)):
        return ""
    return f"; {have} of {file.size} bytes are kept for the next call to go on from"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
