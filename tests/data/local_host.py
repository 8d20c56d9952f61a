"""A host on this machine that answers as it is told to, well or badly."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class Host:
    """A running host; each request takes the next of `answers`, the last one stays."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, str | None]] = []  # path and Range of each request

    def take(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append((request.path, request.headers.get("Range")))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        answer(request)


@contextmanager
def running() -> Iterator[Host]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host.take(self)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    host = Host(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sends(
    content: bytes,
    *,
    ranges: bool = True,
    until: int | None = None,
    length: int | None = None,
    begin: int | None = None,
) -> Answer:
    """Send the content, or what the Range asks for.

    The connection ends after `until` bytes of the whole; `length` is said to be the
    answer's, `begin` the place at which it starts.
    """

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        start = int(asked[6:-1]) if asked and ranges else 0
        if start >= len(content) > 0:
            request.send_error(416)
            return
        part = content[start:until]
        request.send_response(206 if asked and ranges else 200)
        if asked and ranges:
            said = start if begin is None else begin
            whole = len(content)
            request.send_header("Content-Range", f"bytes {said}-{whole - 1}/{whole}")
        if length != -1:
            said = len(content) - start if length is None else length
            request.send_header("Content-Length", str(said))
        request.end_headers()
        request.wfile.write(part)

    return answer


def fails(code: int) -> Answer:
    return lambda request: request.send_error(code)
