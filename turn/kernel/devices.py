"""The devices that the program runs at: Ethernet and loopback ones that have an IP address.

A port of a bridge or a bond has none; the bridge has. So a packet meets the program once, where
this machine takes it for its own.
"""

import contextlib
import errno
import os
from collections.abc import Collection

import structlog

from turn.kernel.bpf import attach_tcx
from turn.kernel.rtnetlink import Link

log = structlog.get_logger("turn")


class Devices:
    """Keeps a program attached where it should be."""

    def __init__(self, program: int) -> None:
        self._program = program
        self._attached: dict[int, tuple[str, int]] = {}
        self._refused: dict[int, OSError] = {}

    @property
    def names(self) -> list[str]:
        """Where it runs."""
        return sorted(name for name, _ in self._attached.values())

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

    def _attach(self, link: Link) -> None:
        try:
            self._attached[link.device] = (link.name, attach_tcx(self._program, link.device))
        except OSError as error:
            if error.errno == errno.ENODEV:  # gone while we looked
                return
            self._refused[link.device] = error
            log.warning("user space carries what this device brings", device=link.name,
                        reason=error.strerror)  # fmt: skip

    def _release(self, index: int) -> None:
        _, link = self._attached.pop(index)
        with contextlib.suppress(OSError):
            os.close(link)
