"""The record of revocations on disk, for a relay that no Redis would tell of them again.

A file of lines, one for each change, as JSON: user, until, spent (Unix times, as of
``allocation.revocations``); the last line of a user counts, and both 0 take it out.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from turn.journal import read_own

log = structlog.get_logger("turn")

FULL = sys.maxsize
"""Lines of a file that nothing is to be put behind."""
SPARE_LINES = 1000
"""What is out of date is thrown away when it is so much, and more than what is not."""
Times = tuple[float, float]
"""Until, spent."""


class RevokedFile:
    """Keeps them until the credentials would have ended anyway."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        """Name it; nothing is touched before ``open``."""
        self._file = file
        self._clock = clock
        self._of: dict[str, Times] = {}
        self._lines = 0
        self._failed = False

    def open(self) -> dict[str, Times]:
        """What the last process left, as far as it still holds: user -> until, spent."""
        try:
            lines = read_own(self._file).split(b"\n")
        except FileNotFoundError:
            return {}
        except OSError as error:
            log.warning("revocations of the last process are not known",
                        file=str(self._file), reason=error.strerror)  # fmt: skip
            return {}
        unreadable = 0
        for number, line in enumerate(lines, 1):
            try:
                user, until, spent = msgspec.json.decode(line, type=tuple[str, float, float])
                self._of[user] = until, spent
            except msgspec.DecodeError:
                unreadable += number < len(lines)  # the last was being written, or is empty
        if unreadable:
            log.warning("some revocations of the last process cannot be read; make them again",
                        file=str(self._file), lines=unreadable)  # fmt: skip
        self._lines = FULL  # whatever its last line ends with
        self._prune()
        if self._of:
            log.info("users are revoked since before the start", count=len(self._of))
        return dict(self._of)

    def put(self, user: str, until: float, spent: float) -> None:
        """Write that a user is revoked, or may begin again (both 0)."""
        self._of[user] = until, spent
        try:
            if self._lines > 2 * len(self._of) + SPARE_LINES:
                self._rewrite()
            else:
                self._write(self._file, os.O_APPEND, [(user, until, spent)])
                self._lines += 1
        except OSError as error:
            self._lines = FULL
            if not self._failed:
                log.error("revocations are not recorded: they end with this process",
                          file=str(self._file), reason=error.strerror)  # fmt: skip
            self._failed = True
        else:
            self._failed = False

    def _rewrite(self) -> None:
        """Put what holds into a new file, and that in the place of the old one."""
        self._prune()
        new = self._file.with_suffix(".new")
        new.unlink(missing_ok=True)  # where others may write too, it may be anything
        self._write(new, os.O_EXCL, [(user, *times) for user, times in self._of.items()])
        new.replace(self._file)
        self._lines = len(self._of)

    def _prune(self) -> None:
        now = self._clock()
        self._of = {user: times for user, times in self._of.items() if max(times) > now}

    @staticmethod
    def _write(file: Path, mode: int, entries: list[tuple[Any, ...]]) -> None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | mode
        with open(file, "wb", opener=lambda path, _: os.open(path, flags, 0o600)) as opened:
            opened.write(b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries))
