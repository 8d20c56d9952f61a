"""Archives unpacked without trust in what they say of themselves."""

import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO

LIMIT = 2**30  # bytes, unpacked
BLOCK = 64 * 1024  # bytes
BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error),
    *(lzma.LZMAError, EOFError, FileExistsError, RuntimeError, ValueError),
)

Member = tuple[str, int, IO[bytes]]


def unpack(archive: Path | str, folder: Path | str, *, limit: int = LIMIT) -> Path:
    """Unpack a zip or tar archive into a new `folder`, which is whole or not there.

    Only plain files come out. A member that is a link or a device, or whose name is
    absolute or leads elsewhere, two members of one name, and more than `limit` bytes
    by the sizes declared raise `ValueError`, as does what is no archive. So does a
    folder that exists.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists():
        raise ValueError(f"{folder} exists; unpack into a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            TemporaryDirectory(dir=folder.parent, prefix=".") as temporary,
            _members(archive) as members,
        ):
            _write(members, inside := Path(temporary, "files"), limit)
            inside.rename(folder)
    except BROKEN as error:
        raise ValueError(f"{archive} was not unpacked: {error}") from error
    return folder


def _write(members: Iterator[Member], folder: Path, limit: int) -> None:
    folder.mkdir()
    total = 0
    for name, size, content in members:
        total += size
        if total > limit:
            raise ValueError(f"it unpacks to more than {limit} bytes")
        path = folder / _safe(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with content, path.open("xb") as out:  # x: never over another member
            shutil.copyfileobj(content, out)


def _safe(name: str) -> PurePosixPath:
    """Return a member's name as a path that stays below, on any system."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or any(c in name for c in "\\:\0"):
        raise ValueError(f"member {name!r} would leave the folder")
    return path


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[Member]]:
    """Give name, declared size and content of each file in a zip or tar archive."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield _of_zip(opened)
    else:
        with tarfile.open(archive) as opened:
            yield _of_tar(opened)


def _of_zip(archive: zipfile.ZipFile) -> Iterator[Member]:
    for member in archive.infolist():
        kind = member.external_attr >> 28  # the file type of Unix, 0 where none is set
        if kind not in (0, 0o10, 0o4):
            raise ValueError(f"member {member.filename!r} is a link or a device")
        if not member.is_dir():
            yield member.filename, member.file_size, archive.open(member)


def _of_tar(archive: tarfile.TarFile) -> Iterator[Member]:
    for member in archive:
        if member.isfile():
            content = archive.extractfile(member)
            assert content is not None
            yield member.name, member.size, content
        elif not member.isdir():
            raise ValueError(f"member {member.name!r} is a link or a device")
    # A damaged header looks like the end to tarfile, and nothing has read the checksum
    # of the compressed whole yet: after the end there must be zeros, to the last byte.
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    while block := archive.fileobj.read(BLOCK):
        if any(block):
            raise ValueError("it is damaged, or has something after its end")
