"""Loaded by every Python process that finds this folder: no connection leaves here."""

import socket
import sys
from typing import Any


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        family, address = arguments[0].family, arguments[1]
        inside = family == getattr(socket, "AF_UNIX", None)
        if not inside and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"no network: refused to connect to {address[0]}")


sys.addaudithook(refuse)
