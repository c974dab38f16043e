"""Maps and links that outlive their process: names in a bpffs, in a directory of ours.

``maps-N-M/NAME`` and ``links-N-M/HOOK-DEVICE-INDEX``; N is the layout, as what another version has
written means something else, and M the network namespace, as its devices are others. Two processes
lock a part each: who attaches the program (``links``), and who writes the routes (``maps``).
"""

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from turn.kernel.bpf import Map, Shape, device_of, open_pinned, pin, update_link
from turn.kernel.layout import LAYOUT
from turn.kernel.plane import HELD

NETWORK = Path("/proc/thread-self/ns/net")
BPFFS_MAGIC = 0xCAFE4A11
STATFS_BYTES = 256

_libc = ctypes.CDLL(None, use_errno=True)


class Taken(OSError):
    """Another process has it."""


class Pinned(NamedTuple):
    """A link that is pinned."""

    device: int
    """Index of the device that it was made for."""
    name: str
    """What the device was called."""
    path: Path


class Pins:
    """The names of one relay."""

    def __init__(self, directory: Path) -> None:
        """Have the directory. :raises OSError: it is not in a bpffs, and none can be mounted."""
        self.directory = directory
        _be_in_bpffs(directory)
        kind = f"{LAYOUT}-{NETWORK.stat().st_ino}"
        self._maps = directory / f"maps-{kind}"
        self._links = directory / f"links-{kind}"
        self._locks: list[int] = []

    def make(self) -> None:
        """Have the directories; what another version or network left there goes."""
        for part in (self._maps, self._links):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
        _share(self._maps, 0o770)
        for other in self.directory.iterdir():
            # What else is there is the kernel's: it puts files of its own at the top of a bpffs.
            ours = other.name.startswith(("maps-", "links-"))
            if ours and other not in {self._maps, self._links}:
                _remove(other)

    def lock_maps(self) -> None:
        """Be the one who writes routes. :raises Taken: another process is."""
        self._lock(self._maps)

    def lock_links(self) -> None:
        """Be the one who attaches the program. :raises Taken: another process is."""
        self._lock(self._links)

    def is_kept(self) -> bool:
        """Whether another process attaches the program, now."""
        try:
            self._unlock(self._lock(self._links))
        except Taken:
            return True
        except OSError:  # there is no such directory, or it is not for us
            return False
        return False

    def open_maps(self, wanted: Mapping[str, Shape]) -> dict[str, Map] | None:
        """The maps that are pinned, if each is as ``wanted``; None: they are not all there.

        :raises BpfError: they are not for us.
        """
        found: dict[str, Map] = {}
        try:
            for name, shape in wanted.items():
                found[name] = Map.open(self._maps / name)
                if found[name].shape != shape:
                    raise OSError(errno.ENOENT, f"{name} is another")
        except OSError as error:
            for one in found.values():
                one.close()
            if error.errno != errno.ENOENT:
                raise
            return None
        return found

    def mark(self) -> int:
        """What tells the maps that are pinned from any others; 0: there are none."""
        with suppress(OSError):
            return (self._maps / "seeds").stat().st_ino
        return 0

    def pin_maps(self, maps: Mapping[str, Map]) -> None:
        """Give maps their names, in the place of whatever had them."""
        for name, one in maps.items():
            path = self._maps / name
            path.unlink(missing_ok=True)
            pin(one.fd, path)
            _share(path, 0o660)

    def lend(self, user: int) -> None:
        """Let another user write routes: it has no rights in the kernel, only these names."""
        for path in (self._maps, *self._maps.iterdir()):
            os.chown(path, user, -1)
        self.directory.chmod(0o711)

    def links(self, hook: str) -> Iterator[Pinned]:
        """The links of ``tc`` or of ``xdp`` that are pinned."""
        for path in sorted(self._links.iterdir()):
            kind, name, index = path.name.split("-")
            if kind == hook:
                yield Pinned(int(index), name, path)

    def adopt(self, pinned: Pinned, program: int) -> int:
        """Have a link run this program; gives its descriptor.

        :raises OSError: it cannot, and is pinned no more.
        """
        try:
            link = open_pinned(pinned.path)
            try:
                if device_of(link) != pinned.device:  # it is gone, and the link with it
                    raise OSError(errno.ENODEV, "no such device")
                update_link(link, program)
            except OSError:
                os.close(link)
                raise
        except OSError:
            pinned.path.unlink(missing_ok=True)
            raise
        return link

    def pin_link(self, device: int, name: str, descriptor: int, hook: str) -> None:
        """Give a link its name."""
        # A device may be renamed at any time; what the name is for is people who look.
        safe = "".join(letter if letter.isalnum() else "_" for letter in name)
        pin(descriptor, self._links / f"{hook}-{safe}-{device}")

    def drop_link(self, device: int, hook: str) -> None:
        """Take a link's name away."""
        for pinned in self.links(hook):
            if pinned.device == device:
                pinned.path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Take every name away."""
        for part in (self._links, self._maps):
            _remove(part)
        with suppress(OSError):
            self.directory.rmdir()

    def close(self) -> None:
        """Let go of the locks."""
        while self._locks:
            self._unlock(self._locks[-1])

    def _lock(self, part: Path) -> int:
        descriptor = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Taken(errno.EBUSY, f"{HELD} {part}") from None
        self._locks.append(descriptor)
        return descriptor

    def _unlock(self, descriptor: int) -> None:
        with suppress(ValueError):
            self._locks.remove(descriptor)
        os.close(descriptor)


def _remove(directory: Path) -> None:
    with suppress(FileNotFoundError):
        for path in directory.iterdir():
            path.unlink(missing_ok=True)
        directory.rmdir()


def _share(path: Path, mode: int) -> None:
    """Keep it open to the group of who made it, who loses it to the user that it is lent to.

    Root without CAP_DAC_OVERRIDE, as the loader is, may then go on with it, and take it away.
    """
    with suppress(PermissionError):  # it was lent before, and has the mode
        path.chmod(mode)


def _be_in_bpffs(directory: Path) -> None:
    """See that a directory is in a bpffs, or would be. :raises OSError: none can be mounted."""
    there = next(path for path in (directory, *directory.parents) if path.exists())
    if is_bpffs(there):
        return
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    if _is_in_own_mounts():
        text = f"a bpffs at {directory} would go with this process's mounts: mount one outside"
        raise OSError(errno.EXDEV, text)
    if _libc.mount(b"bpf", os.fsencode(directory), b"bpf", 0, b"mode=0711"):
        error = ctypes.get_errno()
        raise OSError(error, f"mounting a bpffs at {directory}: {os.strerror(error)}")


def _is_in_own_mounts() -> bool:
    """Whether what is mounted here is seen by this process and its children only."""
    with suppress(OSError):
        return Path("/proc/self/ns/mnt").stat().st_ino != Path("/proc/1/ns/mnt").stat().st_ino
    return False


def is_bpffs(path: Path) -> bool:
    """Whether a path is there, and in a bpffs."""
    room = ctypes.create_string_buffer(STATFS_BYTES)
    if _libc.statfs(os.fsencode(path), room):
        return False
    return int.from_bytes(room.raw[: ctypes.sizeof(ctypes.c_long)], "little") == BPFFS_MAGIC
