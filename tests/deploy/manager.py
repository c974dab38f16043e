"""A service manager that keeps descriptors, as systemd does: the next process gets them."""

import array
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE

# Does what systemd does between fork and exec: the descriptors from 3 on, and who they are for.
BEGIN = """
import os, sys
count = int(sys.argv[1])
for number in range(count):
    os.dup2(int(sys.argv[2 + number]), 1000 + number)
for number in range(count):
    os.dup2(1000 + number, 3 + number)
    os.close(1000 + number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(count)
os.execvp(sys.argv[2 + count], sys.argv[2 + count:])
"""
MOST = 253
"""Descriptors in one message (SCM_MAX_FD)."""


class Manager:
    """Starts a service again and again, and keeps its descriptors."""

    def __init__(self, folder: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._path = folder / "notify"
        self._sock.bind(str(self._path))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._sock.settimeout(PATIENCE)
        self.kept: dict[str, int] = {}
        self.said: list[str] = []

    def start(self, *command: str, **options: Any) -> "subprocess.Popen[bytes]":
        """Start the service with what is kept."""
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": str(self._path),
            "FDSTORE": "1000",
            "LISTEN_FDNAMES": ":".join(self.kept),
        }
        descriptors = list(self.kept.values())
        begin = [sys.executable, "-c", BEGIN, str(len(descriptors)), *map(str, descriptors)]
        return subprocess.Popen(
            [*begin, *command], env=environment, pass_fds=descriptors, **options
        )

    def wait_ready(self) -> None:
        """Hear what the service says until clients may come."""
        while self.hear() != "READY=1":
            pass

    def hear(self) -> str:
        """Take one message; gives its first line."""
        room = socket.CMSG_SPACE(MOST * array.array("i").itemsize)
        text, control, _, _ = self._sock.recvmsg(4096, room)
        lines = text.decode().split("\n")
        said = dict(line.split("=", 1) for line in lines)
        self.said.append(lines[0])
        for _, kind, data in control:
            if kind == socket.SCM_RIGHTS:
                descriptors = array.array("i")
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
                for descriptor in descriptors:
                    self._keep(said["FDNAME"], descriptor)
        if "FDSTOREREMOVE" in said and (old := self.kept.pop(said["FDNAME"], None)) is not None:
            os.close(old)
        return lines[0]

    def hear_all(self) -> None:
        """Take every message that waits."""
        self._sock.setblocking(False)
        try:
            while True:
                self.hear()
        except BlockingIOError:
            pass
        finally:
            self._sock.settimeout(PATIENCE)

    def close(self) -> None:
        """Let go of everything."""
        for descriptor in self.kept.values():
            os.close(descriptor)
        self._sock.close()

    def _keep(self, name: str, descriptor: int) -> None:
        if (old := self.kept.get(name)) is not None:
            os.close(old)
        self.kept[name] = descriptor
