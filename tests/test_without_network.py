"""Commands without a network: this machine is reached, nothing else is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("without_network.py")
HERE = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname(), 5).close()
print("here")
"""
ABROAD = """
import socket
try:
    socket.create_connection(("192.0.2.1", 80), 20)
except TimeoutError:
    print("a packet left")
except OSError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("namespaces", [True, False])
def test_only_this_machine_is_reached(namespaces: bool, tmp_path: Path) -> None:
    environment = dict(os.environ)
    if not namespaces:
        environment["PATH"] = str(tmp_path)  # no `unshare` to be found

    def run(code: str) -> str:
        command = [sys.executable, str(SCRIPT), sys.executable, "-c", code]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert run(HERE) == "here\n"
    assert run(ABROAD).startswith("refused: ")


def test_the_exit_code_is_the_command_s() -> None:
    command = [sys.executable, str(SCRIPT), sys.executable, "-c", "exit(7)"]
    assert subprocess.run(command, check=False).returncode == 7
    nothing = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True)
    assert nothing.returncode == 2
