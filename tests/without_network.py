"""Run a command that can reach nothing but this machine itself.

    python tests/without_network.py COMMAND [ARGUMENT]...

On Linux, in a network namespace whose only interface is loopback, which kernels need.
Where that is not allowed, Python processes refuse to connect to other addresses.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

READ_FLAGS, WRITE_FLAGS, UP = 0x8913, 0x8914, 1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
INSIDE = "--inside"


def switch_on_loopback() -> None:
    """A new namespace has the interface, but it is down."""
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh", b"lo", 0)
        answer = fcntl.ioctl(any_socket, READ_FLAGS, request)
        flags = struct.unpack("16sh", answer)[1] | UP
        fcntl.ioctl(any_socket, WRITE_FLAGS, struct.pack("16sh", b"lo", flags))


def namespace() -> list[str]:
    """Return what begins a command in a namespace of its own; [] if not allowed."""
    found = shutil.which("unshare")
    if found is None:
        return []
    start = [found, "--map-root-user", "--net"]
    allowed = subprocess.run([*start, "true"], capture_output=True, check=False)
    return start if allowed.returncode == 0 else []


def main(command: list[str]) -> int:
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    if command[0] == INSIDE:
        switch_on_loopback()
        os.execvp(command[1], command[1:])
    environment = dict(os.environ)
    if start := namespace():
        command = [*start, sys.executable, __file__, INSIDE, *command]
    else:
        refusing = Path(__file__).with_name("refusing")
        paths = [str(refusing), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        print("no network namespace here: Python refuses to connect", file=sys.stderr)
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
