"""What systemd is told of a service: that it is ready, that it lives, that it stops.

The protocol of sd_notify(3): a datagram of ``KEY=VALUE`` lines to the socket that
``$NOTIFY_SOCKET`` names. Where nobody asks to be told, nothing happens. A supervisor may also keep
descriptors while the service restarts (sd_pid_notify_with_fds(3), sd_listen_fds(3)).
"""

import array
import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Self

FIRST_DESCRIPTOR = 3
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

    @property
    def listens(self) -> bool:
        """Whether there is one."""
        return bool(self._address)

    def ready(self) -> None:
        """Say that clients may come."""
        self._tell("READY=1", "STATUS=serving")

    def reloaded(self, problems: Sequence[str]) -> None:
        """Say whether other settings are in use now, or why not."""
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        refused = f", the last reload was refused: {problems[0]}{more}" if problems else ""
        self._tell(f"STATUS=serving{' '.join(refused.splitlines())}")

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


class DescriptorStore:
    """Sockets that the supervisor keeps while the service restarts, by name.

    It forgets them when the service stops for good.
    """

    def __init__(self, address: str, inherited: Mapping[str, int]) -> None:
        """Know whom to give them.

        :param address: as of ``Supervisor``.
        :param inherited: what an earlier process put there: descriptors of ours by now.
        """
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._inherited = dict(inherited)
        self._unsaid: dict[str, None] = {}
        """Names to drop that could not be said yet, in order."""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self | None:
        """That of the service manager; None: it keeps nothing (``FileDescriptorStoreMax=``)."""
        if not int(environment.get("FDSTORE", "0") or 0) or "NOTIFY_SOCKET" not in environment:
            return None
        inherited: dict[str, int] = {}
        if environment.get("LISTEN_PID") == str(os.getpid()):
            names = environment.get("LISTEN_FDNAMES", "").split(":")
            for number in range(int(environment.get("LISTEN_FDS", "0"))):
                descriptor = FIRST_DESCRIPTOR + number
                os.set_inheritable(descriptor, False)
                inherited[names[number] if number < len(names) else str(number)] = descriptor
        return cls(environment["NOTIFY_SOCKET"], inherited)

    def take(self, name: str) -> socket.socket | None:
        """A socket that was put there by an earlier process; it stays there, too."""
        descriptor = self._inherited.pop(name, None)
        return None if descriptor is None else socket.socket(fileno=descriptor)

    def put(self, name: str, sock: socket.socket) -> None:
        """Keep a socket from now on."""
        self._unsaid.pop(name, None)
        self.retry()
        # Not to be let go of because of an ICMP error that waits in it (FDPOLL).
        self._tell(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", sock.fileno())

    def drop(self, name: str) -> None:
        """Keep it no more."""
        self._unsaid[name] = None
        self.retry()

    def retry(self) -> None:
        """Say what could not be said: the manager had as many messages waiting as it takes.

        What it keeps holds a port of ours until the service ends.
        """
        for name in list(self._unsaid):
            if not self._tell(f"FDSTOREREMOVE=1\nFDNAME={name}"):
                return
            del self._unsaid[name]

    def clean(self) -> None:
        """Drop what was there before and has not been taken."""
        for name, descriptor in self._inherited.items():
            self.drop(name)
            os.close(descriptor)
        self._inherited.clear()

    def close(self) -> None:
        """Say no more; what is there stays."""
        self._sock.close()

    def _tell(self, text: str, *descriptors: int) -> bool:
        """Say something; False: the manager takes nothing now."""
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
        try:
            self._sock.sendmsg([text.encode()], [rights] if descriptors else [], 0, self._address)
        except OSError:  # a socket that is not kept is opened anew after a restart
            return False
        return True
