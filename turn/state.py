"""The folder where a relay leaves what the next one, after a restart or a crash, goes on with."""

import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from turn.allocation.engine import Engine
from turn.allocation.model import NoPort, Relay
from turn.allocation.record import Record
from turn.allocation.restore import Kept
from turn.codec.values import Address
from turn.journal import FileJournal, read
from turn.relay.ports import RelayPorts
from turn.routes import Send

log = structlog.get_logger("turn")


class State:
    """A folder that one process has at a time."""

    def __init__(self, folder: Path) -> None:
        """Name it; nothing is touched before ``open``."""
        self._folder = folder
        self._records: list[Record] = []
        self._lock = -1
        self.journal = FileJournal(folder / "allocations")

    def open(self) -> None:
        """Have it, and read what is there.

        :raises BlockingIOError: another process has it.
        :raises OSError: it cannot be made or written.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._lock = os.open(self._folder / "lock", flags, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise
        self._records = read(self._folder / "allocations", time.monotonic())

    def restore(self, engine: Engine, ports: RelayPorts, senders: Mapping[Address, Send]) -> None:
        """Go on with the allocations that the last process left, as far as they can be had.

        :param senders: how packets leave from each of our UDP addresses.
        """
        kept = []
        for record in self._records:
            send = senders.get(record.five_tuple.server)
            relays = _reopen(record, ports) if send else []
            if send and relays:
                kept.append(Kept(record, relays, send))
        engine.restore(kept, time.monotonic())
        self.journal.settle()
        if self._records:
            log.info("allocations of the last process go on", count=len(kept),
                     lost=len(self._records) - len(kept))  # fmt: skip
        self._records = []

    def close(self, *, remove: bool) -> None:
        """Let go of it. :param remove: nobody is to go on with what is there."""
        self.journal.close(remove=remove)
        os.close(self._lock)


def _reopen(record: Record, ports: RelayPorts) -> list[Relay]:
    found: list[Relay] = []
    now = time.monotonic()
    for relayed in record.relayed:
        if relayed.expires <= now:
            continue
        try:
            found.append(ports.reopen(relayed.address, relayed.public))
        except NoPort:
            log.warning("a relay port is taken, and its allocation lost", port=relayed.port)
    return found
