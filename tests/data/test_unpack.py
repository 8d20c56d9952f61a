"""Archives cannot write outside their folder, nor fill the disk, nor half a folder."""

import gzip
import io
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from tfcourse.data.unpack import unpack


def zipped(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def tarred(path: Path, *members: tuple[str, bytes], **fields: object) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return path


def make(path: Path, *members: tuple[str, bytes]) -> Path:
    return zipped(path, *members) if path.suffix == ".zip" else tarred(path, *members)


def refuse(archive: Path, message: str, **options: int) -> None:
    """Check that nothing comes out of the archive, and what is said of it."""
    folder = archive.parent / "below" / "out"
    with pytest.raises(ValueError, match=rf"{archive.name} was not .*{message}"):
        unpack(archive, folder, **options)
    assert list(folder.parent.iterdir()) == []
    assert {path.name for path in archive.parent.iterdir()} == {archive.name, "below"}


both_kinds = pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])


@both_kinds
def test_files_and_folders_come_out(name: str, tmp_path: Path) -> None:
    archive = make(
        tmp_path / name, ("d/", b""), ("d/x.txt", b"x"), ("./y é.txt", b"yy")
    )
    if name == "a.tar.gz":
        archive = tarred(tmp_path / name, ("d/x.txt", b"x"), ("./y é.txt", b"yy"))
    folder = unpack(archive, tmp_path / "new" / "out")
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    assert set(found) == {"d", "d/x.txt", "y é.txt"}
    assert found["d/x.txt"].read_bytes() == b"x"
    assert found["y é.txt"].read_bytes() == b"yy"
    assert list((tmp_path / "new").iterdir()) == [folder]


def test_folders_of_a_tar_archive_are_no_fault(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "a.tar.gz", ("d", b""), type=tarfile.DIRTYPE)
    assert list(unpack(archive, tmp_path / "out").iterdir()) == []


@both_kinds
@pytest.mark.parametrize(
    "member", ["../x", "a/../../x", "/x", "C:x", "a\\..\\..\\x", "//host/x", ".."]
)
def test_a_member_that_would_leave_the_folder_is_refused(
    name: str, member: str, tmp_path: Path
) -> None:
    archive = make(tmp_path / name, ("fine", b"1"), (member, b"2"))
    refuse(archive, "member .* would leave the folder")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE],
)
def test_links_and_devices_in_a_tar_archive_are_refused(
    kind: bytes, tmp_path: Path
) -> None:
    archive = tarred(tmp_path / "a.tar.gz", ("l", b""), type=kind, linkname="/etc")
    refuse(archive, "member 'l' is a link or a device")


def test_links_in_a_zip_archive_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("l")
    link.create_system = 3
    link.external_attr = 0o120777 << 16
    archive = zipped(tmp_path / "a.zip", (link, b"/etc"))
    refuse(archive, "member 'l' is a link or a device")


@both_kinds
def test_more_bytes_than_the_limit_are_refused_before_they_are_written(
    name: str, tmp_path: Path
) -> None:
    archive = make(tmp_path / name, ("a", bytes(600)), ("b", bytes(500)))
    refuse(archive, "it unpacks to more than 1099 bytes", limit=1099)
    assert archive.stat().st_size < 600
    unpack(archive, tmp_path / "fits", limit=1100)


def test_a_zip_archive_that_lies_about_a_size_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("a", bytes(100_000)))
    raw = archive.read_bytes()
    lie = raw.replace(struct.pack("<I", 100_000), struct.pack("<I", 10))
    assert raw != lie
    archive.write_bytes(lie)
    refuse(archive, "(CRC|a)", limit=1000)


@both_kinds
@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["a", "./a", "a/b"])
def test_one_name_twice_is_refused(name: str, second: str, tmp_path: Path) -> None:
    refuse(make(tmp_path / name, ("a", b"1"), (second, b"2")), "exists")


@both_kinds
def test_a_damaged_archive_leaves_nothing(name: str, tmp_path: Path) -> None:
    archive = make(tmp_path / name, *((str(i), bytes([i] * 999)) for i in range(50)))
    raw = archive.read_bytes()
    archive.write_bytes(raw[: len(raw) // 2])
    refuse(archive, "")
    archive.write_bytes(raw[:200] + b"\xff" * 20 + raw[220:])
    refuse(archive, "")


@pytest.mark.parametrize("place", [0, 1024, 3 * 1024, 5 * 1024])
def test_a_damaged_header_is_not_taken_for_the_end(place: int, tmp_path: Path) -> None:
    members = [(str(i), bytes([i] * 512)) for i in range(5)]
    archive = tarred(tmp_path / "a.tar", *members, ("empty", b""))
    raw = bytearray(gzip.decompress(archive.read_bytes()))
    archive.write_bytes(raw)
    assert len(list(unpack(archive, tmp_path / "whole").iterdir())) == 6
    shutil.rmtree(tmp_path / "whole")
    raw[place] ^= 1
    archive.write_bytes(raw)
    refuse(archive, "")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_text("hello")
    refuse(archive, "file could not be opened")


def test_a_folder_that_exists_is_not_touched(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("a", b"1"))
    with pytest.raises(ValueError, match="exists; unpack into a new folder"):
        unpack(archive, tmp_path)
    with pytest.raises(FileNotFoundError):
        unpack(tmp_path / "none.zip", tmp_path / "out")
