"""A machine as the guides have it: a configuration in ``/etc``, services, a systemd to talk to."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.certificates import certificate
from tests.guides.guide import blocks, with_secrets
from tests.interop.process import free_port, icebroker
from tests.patience import PATIENCE

HOST = "icebroker.example.org"
SYSTEMCTL = """#!/bin/sh
# What systemd does with the unit of deploy/systemd.
[ "$2" = icebroker@serve ] || exit 5
case "$1" in
    reload) kill -HUP "$(cat {pid})" ;;
    status) kill -0 "$(cat {pid})" && echo "active (running)" ;;
    *) exit 1 ;;
esac
"""
JOURNALCTL = """#!/bin/sh
[ "$1 $2" = "-u icebroker@serve" ] && cat {log}
"""


class Stand(NamedTuple):
    """The machine."""

    folder: Path
    turn: int
    signaling: int
    admin: int

    @property
    def configuration(self) -> Path:
        """The file that the service runs with."""
        return self.folder / "etc/icebroker/icebroker.toml"

    @property
    def log(self) -> str:
        """What the service has logged."""
        return (self.folder / "icebroker.log").read_text()

    def here(self, text: str) -> str:
        """A guide's lines for this machine."""
        return (
            text.replace("/etc/", f"{self.folder}/etc/")
            .replace(f"https://{HOST}", f"http://127.0.0.1:{self.signaling}")
            .replace("127.0.0.1:9641", f"127.0.0.1:{self.admin}")
            .replace("127.0.0.1:8080", f"127.0.0.1:{self.signaling}")
            .replace("-g icebroker ", "")  # a group of the guides' machine
            .replace("0.0.0.0:5349", "127.0.0.1:0")
            .replace('TOKEN="…"', f'TOKEN="{self.admin_token}"')
        )

    @property
    def admin_token(self) -> str:
        """The value of ``admin.token``."""
        found = re.search(r'(?s)\[admin\].*?token = "(.*?)"', self.configuration.read_text())
        assert found
        return found[1]

    def run(self, script: str) -> "subprocess.CompletedProcess[str]":
        """Run lines of a guide, as a shell of this machine does."""
        path = f"{self.folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.here(script)],
            cwd=self.folder,
            env={**os.environ, "PATH": f"{path}:/usr/sbin:/sbin", "TOKEN": self.admin_token},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def wait_for_log(self, words: str, times: int = 1) -> None:
        """Wait until the service has said something so often."""
        deadline = time.monotonic() + PATIENCE
        while self.log.count(words) < times:
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)


@contextmanager
def stand(folder: Path) -> Iterator[Stand]:
    """Run ``icebroker serve`` with the configuration that ``operate.md`` begins with."""
    made = Stand(folder, free_port(), free_port(), free_port())
    for name in ("etc/icebroker", "etc/letsencrypt/live/icebroker.example.org", "bin"):
        (folder / name).mkdir(parents=True)
    pem, key = certificate(folder, HOST, "127.0.0.1")
    for place in ("etc/icebroker", "etc/letsencrypt/live/icebroker.example.org"):
        (folder / place / "fullchain.pem").write_bytes(pem.read_bytes())
        (folder / place / "privkey.pem").write_bytes(key.read_bytes())
    toml = with_secrets(blocks("toml")[_first("operate")].text)
    toml = toml.replace("[turn]", f'[turn]\nlisten = ["127.0.0.1:{made.turn}"]')
    toml = toml.replace("[admin]", f'[admin]\nlisten = "127.0.0.1:{made.admin}"')
    made.configuration.write_text(toml)
    made.configuration.write_text(made.here(toml))
    command = ["serve", "-c", str(made.configuration)]
    with icebroker(command, made.admin, folder / "icebroker.log") as process:
        (folder / "pid").write_text(str(process.pid))
        for name, script in (("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)):
            text = script.format(pid=folder / "pid", log=folder / "icebroker.log")
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        yield made


def _first(guide: str) -> int:
    return next(number for number, block in enumerate(blocks("toml")) if block.guide == guide)
