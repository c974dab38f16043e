"""The record of live allocations on disk: what the next process goes on with.

A file of lines, one for each change: the allocation's number, a tab, and its record, or nothing
where it has ended; the last line of a number counts. It is written before the client hears of the
change, so a process that dies has promised nothing that is not there. It need not outlive a
reboot: clocks begin anew, and all sockets are gone.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import structlog

from turn.allocation.model import Allocation
from turn.allocation.record import Record, can_be_kept, decode, encode, record_of
from turn.codec.errors import Malformed

log = structlog.get_logger("turn")

SPARE_BYTES = 1 << 20
"""What is out of date is thrown away when it is so much, and more than what is not."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NETWORK = Path("/proc/thread-self/ns/net")


def here() -> bytes:
    """What has to be the same for a record to mean anything: this boot, this network namespace."""
    return f"icebroker 1 {BOOT_ID.read_text().strip()} {NETWORK.stat().st_ino}".encode()


class FileJournal:
    """Keeps the record in a file, once it is settled."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lines: dict[int, bytes] = {}
        self._numbers: dict[Allocation, int] = {}
        self._unused = count(1)
        self._live = 0
        self._written = 0
        self._descriptor = -1

    def settle(self) -> None:
        """Put what was kept so far in the place of the last process's record; go on from there.

        :raises OSError: it cannot be written.
        """
        self._rewrite()

    def keep(self, allocation: Allocation) -> None:
        """Write an allocation as it is now."""
        if not can_be_kept(allocation):
            return
        number = self._numbers.get(allocation) or next(self._unused)
        self._numbers[allocation] = number
        line = b"%d\t%b\n" % (number, encode(record_of(allocation)))
        self._live += len(line) - len(self._lines.get(number, b""))
        self._lines[number] = line
        self._append(line)

    def drop(self, allocation: Allocation) -> None:
        """Write that an allocation has ended."""
        number = self._numbers.pop(allocation, None)
        if number is not None:
            self._live -= len(self._lines.pop(number))
            self._append(b"%d\t\n" % number)

    def close(self, *, remove: bool) -> None:
        """Stop writing. :param remove: nobody is to go on with it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
        if remove:
            with suppress(OSError):
                self._file.unlink()

    def _append(self, line: bytes) -> None:
        if self._descriptor < 0:
            return
        try:
            self._written += _write(self._descriptor, line)
        except OSError as error:
            self._give_up(error)
            return
        if self._written > 2 * self._live + SPARE_BYTES:
            try:
                self._rewrite()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """No more is written, and what was is not to be gone on with: it is out of date."""
        log.error("allocations are not recorded: they end with this process",
                  file=str(self._file), reason=error.strerror)  # fmt: skip
        self.close(remove=True)

    def _rewrite(self) -> None:
        """Put what is live into a new file, and that in the place of the old one."""
        new = self._file.with_suffix(".new")
        new.unlink(missing_ok=True)  # where others may write too, it may be anything
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(new, flags, 0o600)
        data = b"".join((here(), b"\n", *self._lines.values()))
        try:
            self._written = _write(descriptor, data)
            new.replace(self._file)
        except OSError:
            os.close(descriptor)
            raise
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = descriptor


def _write(descriptor: int, data: bytes) -> int:
    """Write all of it. :raises OSError: there was room for a part."""
    written = os.write(descriptor, data)
    if written < len(data):  # the next line would go on where this one was cut off
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return written


def read(file: Path, now: float) -> list[Record]:
    """The allocations that live at the monotonic time ``now``, as the last process left them.

    Nothing is there of another boot or network, and a line that was being written counts as none.
    """
    try:
        first, _, rest = read_own(file).partition(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        log.warning("the record of allocations is not gone on with",
                    file=str(file), reason=error.strerror)  # fmt: skip
        return []
    if first != here():
        return []
    # What was left may be anything; a client has one allocation, and the last one counts.
    found = {record.five_tuple: record for record in _last_of(rest)}
    return [record for record in found.values() if record.expires > now]


def read_own(file: Path) -> bytes:
    """What a process of ours wrote. :raises OSError: there is nothing, or it is somebody else's.

    Whoever writes it makes allocations without a password; so a folder that others may write to
    (a Kubernetes emptyDir) is no reason to believe what is in it.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(file, "rb", opener=lambda path, _: os.open(path, flags)) as opened:
        status = os.fstat(opened.fileno())
        others = status.st_uid not in {0, os.geteuid()} or status.st_mode & 0o022
        if others or not stat.S_ISREG(status.st_mode):
            raise PermissionError(errno.EPERM, "others may have written it")
        return opened.read()


def _last_of(lines: bytes) -> Iterator[Record]:
    last: dict[bytes, bytes] = {}
    for line in lines.split(b"\n")[:-1]:
        number, _, record = line.partition(b"\t")
        last.pop(number, None)
        if record:
            last[number] = record
    for record in last.values():
        try:
            yield decode(record)
        except Malformed:
            log.warning("a line of the record of allocations means nothing, and is left out")


def write_own(file: Path, content: bytes) -> None:
    """Put a file down whole, for the next process alone to read. :raises OSError: it cannot be."""
    new = file.with_suffix(".new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new.unlink(missing_ok=True)  # where others may write too, it may be anything
    try:
        with open(new, "wb", opener=lambda path, _: os.open(path, flags, 0o600)) as opened:
            opened.write(content)
        new.replace(file)
    except OSError:  # a disk that is full shall not be so of what nobody reads
        new.unlink(missing_ok=True)
        raise
