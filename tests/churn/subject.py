"""The service that is churned, with a Redis of its own, and what it holds at a moment."""

import json
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from config.certificate import self_signed
from tests.interop.process import free_port, icebroker, samples
from tests.redis_server import RedisServer, redis_server

RESUME_WINDOW = 1
"""Seconds; a session that is lost without a word is forgotten after them."""
SETTLES_WITHIN = 30.0


class Holdings(NamedTuple):
    """What a service holds."""

    allocations: int
    ports: int
    connections: int
    rooms: int
    tasks: int
    descriptors: int
    redis_keys: int
    objects: int
    """Python objects that the garbage collector knows."""
    items: int
    """What is in containers: numbers and texts too, which the collector does not know."""
    memory: int
    """Resident bytes."""

    def idle(self) -> bool:
        """Whether nobody is being served."""
        return not any((self.allocations, self.ports, self.connections, self.rooms))

    def ending(self) -> tuple[int, int, int]:
        """What ends by itself, a moment after whom it served."""
        return self.tasks, self.descriptors, self.redis_keys


class Subject(NamedTuple):
    """A running service."""

    turn: int
    signaling: int
    admin: int
    witness: Path
    redis: RedisServer
    reply_lifetime: float
    """Seconds."""

    def holdings(self) -> Holdings:
        """What it holds now."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics") as page:
            metrics = samples(page.read().decode())
        testimony = self.testimony()
        return Holdings(
            allocations=int(metrics["icebroker_turn_allocations"]),
            ports=int(metrics["icebroker_turn_relay_ports_in_use"]),
            connections=int(metrics["icebroker_signaling_connections"]),
            rooms=int(metrics["icebroker_signaling_rooms"]),
            tasks=testimony["tasks"],
            descriptors=int(metrics["process_open_fds"]),
            redis_keys=int(str(self.redis.client.dbsize())),
            objects=testimony["objects"],
            items=testimony["items"],
            memory=int(metrics["process_resident_memory_bytes"]),
        )

    def testimony(self) -> dict[str, Any]:
        """What the witness in its process says."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.witness))
            text = b"".join(iter(lambda: sock.recv(1 << 16), b""))
        found: dict[str, Any] = json.loads(text)
        return found

    def settled(self, like: Holdings | None = None) -> Holdings:
        """What it holds once nobody is served any more, and nothing changes.

        :param like: wait until no more of what ends by itself is held than there.
        """
        time.sleep(self.reply_lifetime)
        deadline = time.monotonic() + SETTLES_WITHIN
        before = self.holdings()
        while time.monotonic() < deadline:
            time.sleep(RESUME_WINDOW)
            now = self.holdings()
            over = all(a <= b for a, b in zip(now.ending(), (like or before).ending(), strict=True))
            if now.idle() and now.ending() == before.ending() and over:
                return now
            before = now
        return before


@contextmanager
def subject(folder: Path, reply_lifetime: float) -> Iterator[Subject]:
    """Run ``icebroker serve`` with Redis on loopback, with no limit on one busy client."""
    certificate, key = self_signed(["127.0.0.1"], folder)
    turn, signaling, admin = free_port(), free_port(), free_port()
    with redis_server(folder / "redis") as redis:
        file = folder / "icebroker.toml"
        file.write_text(
            f"""
            [turn]
            listen = ["127.0.0.1:{turn}"]
            listen_tls = ["127.0.0.1:{free_port()}"]
            tls_certificate = "{certificate}"
            tls_key = "{key}"
            users = {{alice = "pw"}}
            allow_peers = ["127.0.0.0/8"]
            max_allocations_per_user = 0
            max_allocations_per_address = 0
            max_unproved_replies_per_second = 1000000
            [signaling]
            listen = "127.0.0.1:{signaling}"
            resume_window = {RESUME_WINDOW}
            max_messages_per_second = 1000000
            max_message_burst = 1000000
            max_unauthenticated_per_address = 1000
            [redis]
            url = "{redis.url}"
            [admin]
            listen = "127.0.0.1:{admin}"
            [log]
            level = "warning"
            """
        )
        socket_path = folder / "witness"
        command = [sys.executable, "-m", "tests.churn.witness", str(socket_path)]
        command.append(str(reply_lifetime))
        arguments = ["serve", "-c", str(file)]
        with icebroker(arguments, admin, folder / "icebroker.log", command=command):
            yield Subject(turn, signaling, admin, socket_path, redis, reply_lifetime)
