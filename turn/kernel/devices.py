"""The devices that the program runs at: Ethernet and loopback ones that have an IP address.

A port of a bridge or a bond has none; the bridge has. So a packet meets the program once, where
this machine takes it for its own.
"""

import errno
import os
from collections.abc import Collection
from contextlib import suppress

import structlog

from turn.kernel import filters
from turn.kernel.bpf import attach_tcx
from turn.kernel.pins import Pins
from turn.kernel.rtnetlink import Link, Netlink

log = structlog.get_logger("turn")


FILTER = -1
"""In place of a link's descriptor: the program is attached as a filter of tc."""
NO_TCX = {errno.EINVAL, errno.EOPNOTSUPP}


class Devices:
    """Keeps a program attached where it should be."""

    def __init__(self, program: int, netlink: Netlink, pins: Pins | None = None) -> None:
        """Begin; links that another process pinned run this program from now on."""
        self._program = program
        self._netlink = netlink
        self._pins = pins
        self._attached: dict[int, tuple[str, int]] = {}
        self._refused: dict[int, OSError] = {}
        for pinned in pins.links("tc") if pins else ():
            assert pins is not None
            with suppress(OSError):  # a link that runs no program of ours has no use
                self._attached[pinned.device] = pinned.name, pins.adopt(pinned, program)

    @property
    def names(self) -> dict[int, str]:
        """Where it runs: devices and what they are called."""
        return {device: name for device, (name, _) in self._attached.items()}

    @property
    def hooks(self) -> dict[int, str]:
        """Where it runs, and by what."""
        return {
            device: "cls_bpf" if link == FILTER else "tcx"
            for device, (_, link) in self._attached.items()
        }

    @property
    def refusal(self) -> OSError | None:
        """Why it could not be attached somewhere; None: it could everywhere."""
        return next(iter(self._refused.values()), None)

    def follow(self, links: Collection[Link], addressed: Collection[int]) -> None:
        """Attach where a device has come, let go where one went."""
        wanted = {
            link.device: link
            for link in links
            if link.is_up
            and link.device in addressed
            and (link.is_loopback or (link.is_ethernet and len(link.mac) == 6))
        }
        for index in self._attached.keys() - wanted.keys():
            self._release(index)
        self._refused = {i: error for i, error in self._refused.items() if i in wanted}
        for index in wanted.keys() - self._attached.keys() - self._refused.keys():
            self._attach(wanted[index])

    def close(self) -> None:
        """Detach everywhere."""
        for index in list(self._attached):
            self._release(index)

    def leave(self) -> None:
        """Let go of what is pinned, for another process; the rest ends."""
        for _, link in self._attached.values():
            if link != FILTER:
                os.close(link)
        self._attached.clear()

    def _attach(self, link: Link) -> None:
        try:
            descriptor = self._attach_program(link.device)
        except OSError as error:
            if error.errno == errno.ENODEV:  # gone while we looked
                return
            self._refused[link.device] = error
            log.warning("user space carries what this device brings", device=link.name,
                        reason=error.strerror)  # fmt: skip
            return
        self._attached[link.device] = (link.name, descriptor)
        if self._pins and descriptor != FILTER:
            self._pins.drop_link(link.device, "tc")
            self._pins.pin_link(link.device, link.name, descriptor, "tc")

    def _attach_program(self, device: int) -> int:
        """By tcx, or where there is none (before Linux 6.6) as a filter."""
        try:
            descriptor = attach_tcx(self._program, device)
        except OSError as error:
            if error.errno not in NO_TCX:
                raise
            filters.attach(self._netlink, self._program, device)
            return FILTER
        # One of a process that could not have tcx, or that was killed.
        filters.detach(self._netlink, device)
        return descriptor

    def _release(self, index: int) -> None:
        _, link = self._attached.pop(index)
        if link == FILTER:
            with suppress(OSError):  # the device is gone, and the filter with it
                filters.detach(self._netlink, index)
            return
        if self._pins:
            self._pins.drop_link(index, "tc")
        with suppress(OSError):
            os.close(link)
