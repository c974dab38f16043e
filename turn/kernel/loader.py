"""What needs rights: to load the program and attach it to devices. Once that is done, and pinned,
the routes may be written by a process without any.
"""

import errno
import os
from collections.abc import Collection
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

import structlog

from turn.kernel.bpf import Map
from turn.kernel.devices import Devices
from turn.kernel.pins import Pins, is_bpffs
from turn.kernel.program import load, shapes
from turn.kernel.rtnetlink import Link, Netlink
from turn.kernel.xdp import Frames, Hook

log = structlog.get_logger("turn")

RIGHTS = "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF = 12, 38, 39
"""Their numbers (linux/capability.h)."""


class Attached(Protocol):
    """The program, at work somewhere, and its maps."""

    maps: dict[str, Map]
    is_kept: bool
    """Whether it goes on when this process has ended."""

    @property
    def is_gone(self) -> bool:
        """Whether another process has ended it, so that what is in the maps says nothing."""

    @property
    def names(self) -> list[str]:
        """The devices that it is at."""

    def follow(self, links: Collection[Link], addressed: Collection[int]) -> None:
        """These are the devices now, and those of them that have an IP address."""

    def close(self) -> None:
        """End it."""

    def leave(self) -> None:
        """Let go of it, for another process to go on with; end it where that cannot be."""


class Loader:
    """The program, loaded and attached by this process."""

    def __init__(self, netlink: Netlink, hook: Hook, pins: Pins | None = None) -> None:
        """Load it; ``follow`` attaches it.

        :param hook: where packets may be carried.
        :param pins: names that outlive this process; what they stand for is gone on with.
        :raises OSError: the kernel refused, or another process has the names.
        """
        self._pins = pins
        self.is_kept = pins is not None
        with ExitStack() as undo:
            if pins:
                pins.make()
                pins.lock_links()
                undo.callback(pins.close)
            kept = pins.open_maps(shapes()) if pins else None
            program = load(kept)
            undo.callback(program.close)
            self.maps = program.maps
            if pins and kept is None:
                pins.pin_maps(program.maps)
            self._devices = Devices(program.fd, netlink, pins)
            undo.callback(self._devices.close)
            self._frames = Frames(self.maps, hook, pins)
            undo.callback(self._frames.close)
            self._undo = undo.pop_all()

    @property
    def is_gone(self) -> bool:
        """Whether another process has ended it: no."""
        return False

    @property
    def names(self) -> list[str]:
        """The devices that it is at."""
        found = self._devices.names.items()
        return sorted(told(name, by_xdp=device in self._frames) for device, name in found)

    def follow(self, links: Collection[Link], addressed: Collection[int]) -> None:
        """Attach and detach. :raises OSError: it could not be attached anywhere."""
        self._devices.follow(links, addressed)
        if not self._devices.names:
            raise self._devices.refusal or OSError(errno.ENODEV, "no device has an address")
        # tc stands behind XDP everywhere, for what cannot be carried there.
        self._frames.follow(links, self._devices.hooks)

    def close(self) -> None:
        """Detach everywhere, and let go of everything."""
        self._frames.close()
        self._devices.close()
        if self._pins:
            self._pins.clear()
        self._undo.close()

    def leave(self) -> None:
        """Let go, but of what is pinned nothing ends."""
        if self._pins:
            self._frames.leave()
            self._devices.leave()
        self._undo.close()

    def lend(self, user: int) -> None:
        """Let a process of another user write the routes."""
        if self._pins:
            self._pins.lend(user)


class Lent:
    """The program, as a process with rights has attached and pinned it."""

    is_kept = True

    def __init__(self, pins: Pins) -> None:
        """Use it. :raises OSError: it is not there, or not for us, or another relay has it."""
        self._pins = pins
        pins.lock_maps()
        maps = pins.open_maps(shapes())
        if maps is None:
            pins.close()
            raise OSError(errno.ENOENT, f"{pins.directory} has no maps of this version")
        self.maps = maps
        self._mark = pins.mark()

    @property
    def is_gone(self) -> bool:
        """Whether whoever lent it took it away; there may be another one."""
        return self._pins.mark() != self._mark

    @property
    def names(self) -> list[str]:
        """The devices that it is at."""
        with suppress(OSError):
            frames = {pinned.device for pinned in self._pins.links("xdp")}
            links = self._pins.links("tc")
            return sorted(told(one.name, by_xdp=one.device in frames) for one in links)
        return []

    def follow(self, links: Collection[Link], addressed: Collection[int]) -> None:
        """That is the other process's work."""

    def close(self) -> None:
        """Let go of it."""
        for one in self.maps.values():
            one.close()
        self._pins.close()

    leave = close


def told(name: str, *, by_xdp: bool) -> str:
    """A device, and what is special about it."""
    return f"{name} (XDP)" if by_xdp else name


def attach(netlink: Netlink, directory: Path | None, hook: Hook, *, keep: bool) -> Attached:
    """Have the program at work: what a process with rights lends, or else of our own.

    :param hook: where our own may carry packets.
    :param directory: in a bpffs, where what is lent would be.
    :param keep: pin our own there.
    :raises OSError: the kernel refused.
    """
    pins = _pins(directory, make=keep) if directory else None
    if pins and pins.is_kept():
        return Lent(pins)
    if pins and keep:
        try:
            pins.make()
            pins.lock_maps()
            return Loader(netlink, hook, pins)
        except OSError as error:
            pins.close()
            if error.errno not in {errno.EPERM, errno.EACCES}:
                log.warning("what the kernel carries ends with this process", reason=str(error))
    try:
        return Loader(netlink, hook)
    except OSError as error:
        if pins and error.errno in {errno.EPERM, errno.EACCES}:
            with suppress(OSError):  # whoever lent it has died, and it works all the same
                return Lent(pins)
        raise


def borrow(directory: Path) -> Attached:
    """Use what a process with rights lends now. :raises OSError: nobody does, or not to us."""
    if not is_bpffs(directory):
        raise OSError(errno.ENOENT, f"nobody lends the kernel program at {directory}")
    pins = Pins(directory)
    try:
        return Lent(pins)
    except OSError:
        pins.close()
        raise


def clean(directory: Path) -> None:
    """Take away what a process has pinned that was killed, as nobody goes on with it.

    What another process keeps stays; without the rights for it, nothing happens.
    """
    pins = _pins(directory, make=False) if directory.exists() else None
    if pins is None or pins.is_kept():
        return
    with suppress(OSError):
        pins.clear()


def _pins(directory: Path, *, make: bool) -> Pins | None:
    if not make and not os.access(directory, os.X_OK):
        return None
    try:
        return Pins(directory)
    except OSError as error:
        if make:
            log.warning("what the kernel carries ends with this process", reason=str(error))
        return None


def explained(error: OSError) -> str:
    """Why the kernel refused, and what would help."""
    if error.errno == errno.EPERM and _has_rights():
        why = f"{RIGHTS} are there, but bpf(2) is refused: by the seccomp profile or the user "
        return f"{why}namespace of a container, or by the kernel's lockdown ({error.strerror})"
    if error.errno == errno.EPERM:
        return f"it needs root, or {RIGHTS} ({error.strerror})"
    if error.errno == errno.ENOSYS:
        why = "there is no bpf(2): the kernel was built without it, or a seccomp profile hides it"
        return f"{why} ({error.strerror})"
    return error.strerror or str(error)


def _has_rights() -> bool:
    """Whether this process has the capabilities, over whatever user namespace it is in."""
    status = Path("/proc/self/status").read_text("ascii", "replace")
    _, _, rest = status.partition("CapEff:")
    held = int(rest.split(maxsplit=1)[0], 16) if rest else 0
    return all(held >> number & 1 for number in (CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF))
