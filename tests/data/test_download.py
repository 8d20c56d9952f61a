"""Downloads end with the right file or with an error that says why, never between."""

import hashlib
import multiprocessing
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from local_host import Host, fails, running, sends

from tfcourse.data import download
from tfcourse.data.download import DownloadError, RemoteFile, fetch, is_whole

CONTENT = bytes(range(256)) * 300  # some blocks
OTHER = bytes(reversed(CONTENT))
SHA = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2 + 7


@pytest.fixture
def host() -> Iterator[Host]:
    with running() as host:
        yield host


def remote(host: Host) -> RemoteFile:
    return RemoteFile(f"{host.url}/folder/text.txt", SHA, len(CONTENT))


def get(host: Host, folder: Path, timeout: float = 5.0) -> Path:
    return fetch(remote(host), folder, timeout=timeout, pause=0.0)


def refuse(host: Host, folder: Path, message: str, timeout: float = 5.0) -> list[bytes]:
    """Check that fetching fails with the message; return what is left behind."""
    with pytest.raises(
        DownloadError, match=rf"{host.url}/folder/text.txt: .*{message}"
    ):
        get(host, folder, timeout)
    assert not (folder / "text.txt").exists()
    return [path.read_bytes() for path in folder.glob("*.part")]


def test_a_file_comes_whole_and_is_not_asked_for_twice(
    host: Host, tmp_path: Path
) -> None:
    host.answers = [sends(CONTENT)]
    path = get(host, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "text.txt"
    assert path.read_bytes() == CONTENT
    assert get(host, path.parent) == path
    assert host.asked == [("/folder/text.txt", None)]
    assert not list(path.parent.glob("*.part"))


def test_a_file_without_a_length_comes_whole(host: Host, tmp_path: Path) -> None:
    host.answers = [sends(CONTENT, length=-1)]
    assert get(host, tmp_path).read_bytes() == CONTENT


def test_a_damaged_file_in_the_cache_is_had_anew(host: Host, tmp_path: Path) -> None:
    host.answers = [sends(CONTENT)]
    for damaged in (CONTENT[:-1], OTHER, b""):
        (tmp_path / "text.txt").write_bytes(damaged)
        assert get(host, tmp_path).read_bytes() == CONTENT


def test_what_broke_off_is_resumed_where_it_did(host: Host, tmp_path: Path) -> None:
    host.answers = [sends(CONTENT, until=HALF), sends(CONTENT)]
    assert get(host, tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in host.asked] == [None, f"bytes={HALF}-"]


@pytest.mark.parametrize("claim", [None, -1], ids=["with length", "without"])
def test_what_broke_off_starts_anew_where_there_are_no_ranges(
    host: Host, tmp_path: Path, claim: int | None
) -> None:
    short = sends(CONTENT, ranges=False, until=HALF, length=claim)
    host.answers = [short, short, sends(CONTENT, ranges=False)]
    assert get(host, tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in host.asked] == [None, *[f"bytes={HALF}-"] * 2]


def test_what_always_breaks_off_is_kept_for_the_next_call(
    host: Host, tmp_path: Path
) -> None:
    host.answers = [sends(CONTENT, until=HALF, ranges=False)]
    kept = refuse(
        host, tmp_path, f"broke off after {HALF} of 76800 bytes; {HALF} of .*"
    )
    assert kept == [CONTENT[:HALF]]
    assert len(host.asked) == download.ATTEMPTS
    host.answers = [sends(CONTENT)]
    assert get(host, tmp_path).read_bytes() == CONTENT
    assert host.asked[-1] == ("/folder/text.txt", f"bytes={HALF}-")


def test_a_silent_host_is_given_up_on(host: Host, tmp_path: Path) -> None:
    def slow(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(CONTENT[:HALF])
        request.wfile.flush()
        time.sleep(0.5)

    host.answers = [slow]
    start = time.perf_counter()
    refuse(host, tmp_path, "timed out", timeout=0.05)
    assert time.perf_counter() - start < 5


def test_a_host_that_recovers_gets_the_file_through(host: Host, tmp_path: Path) -> None:
    def hangs(request: BaseHTTPRequestHandler) -> None:
        time.sleep(0.3)

    host.answers = [hangs, fails(503), fails(429), sends(CONTENT)]
    assert get(host, tmp_path, timeout=0.1).read_bytes() == CONTENT


@pytest.mark.parametrize("more", [b"x", CONTENT])
@pytest.mark.parametrize("ranges", [True, False])
def test_more_bytes_than_expected_are_refused_and_removed(
    host: Host, tmp_path: Path, more: bytes, ranges: bool
) -> None:
    host.answers = [sends(CONTENT + more, ranges=ranges)]
    left = refuse(host, tmp_path, "longer than the 76800 bytes expected; .* removed")
    assert left == []
    assert len(host.asked) == 1


def test_a_length_said_too_short_ends_in_the_right_file(
    host: Host, tmp_path: Path
) -> None:
    host.answers = [sends(CONTENT, length=HALF), sends(CONTENT)]
    assert get(host, tmp_path).read_bytes() == CONTENT


def test_a_length_said_too_long_ends_in_the_right_file(
    host: Host, tmp_path: Path
) -> None:
    host.answers = [sends(CONTENT, length=len(CONTENT) + 10)]
    assert get(host, tmp_path).read_bytes() == CONTENT


def test_a_file_that_is_too_short_is_refused(host: Host, tmp_path: Path) -> None:
    host.answers = [sends(CONTENT[:HALF])]
    refuse(host, tmp_path, "(broke off after|Range Not Satisfiable)")


def test_other_bytes_are_refused_and_removed(host: Host, tmp_path: Path) -> None:
    host.answers = [sends(OTHER)]
    found = hashlib.sha256(OTHER).hexdigest()
    left = refuse(host, tmp_path, f"SHA-256 is {found}, expected {SHA}; .* was removed")
    assert left == []
    assert len(host.asked) == 1


def test_two_files_joined_are_not_taken_for_one(host: Host, tmp_path: Path) -> None:
    host.answers = [sends(OTHER, until=HALF), sends(CONTENT)]
    assert get(host, tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in host.asked] == [None, f"bytes={HALF}-", None]


def test_a_file_that_changed_between_two_parts_for_good_is_refused(
    host: Host, tmp_path: Path
) -> None:
    host.answers = [sends(CONTENT, until=HALF), sends(OTHER)]
    assert refuse(host, tmp_path, "SHA-256 is") == []


def test_another_part_than_asked_for_does_no_harm(host: Host, tmp_path: Path) -> None:
    host.answers = [sends(CONTENT, until=HALF), sends(OTHER, begin=3), sends(CONTENT)]
    assert get(host, tmp_path).read_bytes() == CONTENT
    assert len(host.asked) == 3


@pytest.mark.parametrize("left", [OTHER, OTHER + b"x", CONTENT + b"x", OTHER[:-9], b""])
def test_a_part_left_by_something_else_does_no_harm(
    host: Host, tmp_path: Path, left: bytes
) -> None:
    (tmp_path / "text.txt.part").write_bytes(left)
    host.answers = [sends(CONTENT)]
    assert get(host, tmp_path).read_bytes() == CONTENT


def test_a_part_beyond_the_host_s_file_is_dropped(host: Host, tmp_path: Path) -> None:
    (tmp_path / "text.txt.part").write_bytes(CONTENT[:HALF])
    host.answers = [sends(CONTENT[: HALF - 5]), sends(CONTENT)]
    assert get(host, tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in host.asked] == [f"bytes={HALF}-", None]


@pytest.mark.parametrize(
    ("code", "times"), [(404, 1), (403, 1), (500, 5), (503, 5), (429, 5)]
)
def test_an_answer_of_failure_is_named(
    host: Host, tmp_path: Path, code: int, times: int
) -> None:
    host.answers = [fails(code)]
    assert refuse(host, tmp_path, f"HTTP Error {code}") == []
    assert len(host.asked) == times


def test_a_host_that_does_not_speak_http_is_refused(host: Host, tmp_path: Path) -> None:
    host.answers = [lambda request: request.wfile.write(b"hello\r\n\r\n")]
    refuse(host, tmp_path, "hello")


def test_a_host_that_is_not_there_is_named(tmp_path: Path) -> None:
    with running() as gone:
        pass
    refuse(gone, tmp_path, "Connection refused")


def test_a_file_may_come_from_another_place(host: Host, tmp_path: Path) -> None:
    (tmp_path / "there.txt").write_bytes(CONTENT)
    url = (tmp_path / "there.txt").as_uri()
    path = fetch(remote(host), tmp_path / "a", url=url)
    assert path.name == "text.txt"
    assert path.read_bytes() == CONTENT
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "text.txt.part").write_bytes(CONTENT[:HALF])
    assert fetch(remote(host), tmp_path / "b", url=url).read_bytes() == CONTENT
    with pytest.raises(DownloadError, match="No such file"):
        fetch(remote(host), tmp_path / "c", url=f"{url}.gone", pause=0.0)


def _fetch_in_process(url: str, folder: str) -> None:
    fetch(RemoteFile(url, SHA, len(CONTENT)), Path(folder))


def test_two_processes_that_ask_at_once_both_get_the_file(
    host: Host, tmp_path: Path
) -> None:
    def slowly(request: BaseHTTPRequestHandler) -> None:
        time.sleep(0.3)
        sends(CONTENT)(request)

    host.answers = [slowly]
    start = multiprocessing.get_context("spawn").Process
    job = partial(_fetch_in_process, remote(host).url, str(tmp_path))
    processes = [start(target=job) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "text.txt").read_bytes() == CONTENT
    assert len(host.asked) == 1


@pytest.mark.parametrize("progress", [None, True])
def test_the_bar_shows_where_it_is_asked_for_and_not_without_a_terminal(
    host: Host,
    tmp_path: Path,
    progress: bool | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    host.answers = [sends(CONTENT)]
    fetch(remote(host), tmp_path, progress=progress)
    assert ("text.txt" in capsys.readouterr().err) == bool(progress)


def test_only_the_file_itself_is_whole(tmp_path: Path) -> None:
    file, path = RemoteFile("x/text.txt", SHA, len(CONTENT)), tmp_path / "text.txt"
    assert not is_whole(path, file)
    for content in (CONTENT, OTHER, CONTENT[:-1], CONTENT + b"x"):
        path.write_bytes(content)
        assert is_whole(path, file) == (content == CONTENT)
    assert not is_whole(tmp_path, file)
