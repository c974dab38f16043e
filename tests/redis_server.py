"""A real redis-server for tests: started, stopped, killed, put to sleep, and looked into."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from config.redis import RedisTls
from tests.conftest import need
from tests.interop.process import free_port
from tests.patience import PATIENCE
from tests.signals import Signalled


class RedisServer(Signalled):
    """One server on loopback; its port stays the same over restarts."""

    tls = RedisTls()

    def __init__(
        self, folder: Path, *options: str, port: int = 0, sentinel: Path | None = None
    ) -> None:
        """Prepare. :param sentinel: its configuration, where it is to be a Sentinel."""
        self.port = port or free_port()
        self._sentinel = sentinel
        self._folder = folder
        self._options = options
        folder.mkdir(parents=True, exist_ok=True)
        self.client = redis.Redis(port=self.port, socket_timeout=PATIENCE, protocol=2)

    @property
    def url(self) -> str:
        """What a configuration says."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, with whatever data is in its folder, and wait until it answers."""
        command = [need("redis-server"), *([str(self._sentinel)] if self._sentinel else [])]
        command += ["--port", str(self.port), "--dir", str(self._folder), "--bind", "127.0.0.1"]
        command += ["--sentinel"] if self._sentinel else ["--save", "", *self._options]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            assert time.monotonic() < deadline, (self._folder / "redis.log").read_text()
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether it takes commands, from whomever."""
        with suppress(redis.RedisError):
            try:
                return bool(self.client.ping())
            except redis.AuthenticationError:
                return True
        return False

    def kill(self) -> None:
        """End it without a word, as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self, *, save: bool = False) -> None:
        """Shut it down, with its data written to disk or forgotten."""
        if save:
            self.client.save()
        self.kill()
        if not save:
            (self._folder / "dump.rdb").unlink(missing_ok=True)

    def every_key(self) -> list[bytes]:
        """Every key."""
        found: Any = self.client.keys("*")
        return sorted(found)

    def without_ttl(self) -> list[bytes]:
        """Keys that would stay for ever."""
        return [key for key in self.every_key() if self.client.pttl(key) == -1]

    def close(self) -> None:
        """End it, if it runs, and forget its data."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self.client.close()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def redis_server(folder: Path, *options: str, port: int = 0) -> Iterator[RedisServer]:
    """A running server."""
    server = RedisServer(folder, *options, port=port)
    try:
        server.start()
        yield server
    finally:
        server.close()
