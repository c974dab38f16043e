"""What systemd is told of a service: that it is ready, that it lives, that it stops.

The protocol of sd_notify(3): a datagram of ``KEY=VALUE`` lines to the socket that
``$NOTIFY_SOCKET`` names. Where nobody asks to be told, nothing happens.
"""

import asyncio
import os
import socket
from collections.abc import Mapping
from typing import Self

MARGIN = 10.0
"""Seconds to stop in, beyond those that clients are given."""


class Supervisor:
    """Whoever started us and wants to hear of it; systemd, or nobody."""

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        """Know whom to tell.

        :param address: a path, or ``@name`` in the abstract namespace; "": nobody.
        :param watchdog: seconds after which a silent service is taken for dead; 0: never.
        """
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog = watchdog

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """The supervisor that the environment names (sd_notify(3), sd_watchdog_enabled(3))."""
        meant = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.get("WATCHDOG_USEC", "")
        seconds = int(microseconds) / 1e6 if meant and microseconds.isdecimal() else 0.0
        return cls(environment.get("NOTIFY_SOCKET", ""), seconds)

    def ready(self) -> None:
        """Say that clients may come."""
        self._tell("READY=1", "STATUS=serving")

    def stopping(self, seconds: float) -> None:
        """Say that the service ends, and that clients have so long to leave."""
        longest = int((seconds + MARGIN) * 1e6)
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={longest}", f"STATUS=draining, {seconds:g}s")

    async def feed(self) -> None:
        """Say again and again, until cancelled, that the event loop turns."""
        while self._watchdog:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self._watchdog / 3)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            try:
                sock.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                # A supervisor that cannot be told restarts us; calls must not end for it before.
                return
