"""XDP in front of tc: the same program in a device's driver, before a socket buffer is made.

It is for network cards: virtual devices hand on socket buffers, and making frames of those costs
more than tc does. What it does not carry (to devices without it, say) the program at tc does.
"""

import os
from collections.abc import Collection, Mapping
from typing import Literal

import structlog

from turn.kernel import drivers
from turn.kernel.bpf import Map, attach_xdp
from turn.kernel.layout import INDEX
from turn.kernel.pins import Pins
from turn.kernel.program import FRAMES, load
from turn.kernel.rtnetlink import Link
from turn.kernel.selftest import Trial

log = structlog.get_logger("turn")

Hook = Literal["auto", "xdp", "tc"]
"""Where packets are carried: XDP at network cards, at virtual devices too, nowhere."""
PASSED = "its self-test passed"


class Frames:
    """Keeps the program in the drivers that it works in."""

    def __init__(self, maps: Mapping[str, Map], hook: Hook, pins: Pins | None) -> None:
        """Begin; links that another process pinned run this program from now on."""
        self._maps, self._hook, self._pins = dict(maps), hook, pins
        self._program: int | None = None
        self._attached: dict[int, int] = {}
        self._failed: dict[int, str] = {}
        self._told: dict[int, str] = {}
        for pinned in list(pins.links("xdp")) if pins else ():
            assert pins is not None
            try:
                self._attached[pinned.device] = pins.adopt(pinned, self._load())
                self._open(pinned.device)
            except OSError:  # a link that runs no program of ours has no use
                self._release(pinned.device)

    def __contains__(self, device: int) -> bool:
        """Whether it runs at a device."""
        return device in self._attached

    def follow(self, links: Collection[Link], behind: Mapping[int, str]) -> None:
        """Attach where it can work, let go where it no longer can.

        :param behind: the devices at which the program at tc stands behind it, and by what.
        """
        for device in self._attached.keys() - behind.keys():
            self._release(device)
        for known in (self._failed, self._told):
            for device in known.keys() - behind.keys():
                del known[device]
        tagged = {link.below for link in links if link.kind == "vlan"}
        for link in links:
            if link.device not in behind:
                continue
            reason = self._unfit(link, is_tagged=link.device in tagged)
            if reason and link.device in self._attached:
                self._release(link.device)
            elif not reason and link.device not in self._attached:
                reason = self._failed.get(link.device) or self._attach(link)
            self._tell(link, reason, behind[link.device])

    def close(self) -> None:
        """Detach everywhere."""
        for device in list(self._attached):
            self._release(device)
        self._unload()

    def leave(self) -> None:
        """Let go of what is pinned, for another process; the rest ends."""
        for link in self._attached.values():
            os.close(link)
        self._attached.clear()
        self._unload()

    def _unfit(self, link: Link, *, is_tagged: bool) -> str | None:
        """Why a device is not one for XDP, as far as can be said without trying."""
        if self._hook == "tc":
            return "as configured"
        if link.is_loopback:
            return "a loopback device has no driver"
        if link.kind and self._hook == "auto":
            return f"a virtual device ({link.kind}) is faster without XDP"
        return misses(link, is_tagged=is_tagged, is_attached=link.device in self._attached)

    def _attach(self, link: Link) -> str | None:
        """Have the program there, if all is well; else why it is not."""
        try:
            descriptor = attach_xdp(self._load(), link.device)
            self._attached[link.device] = descriptor
            failure = misses(link, is_tagged=False, is_attached=True) or self._try(link)
            if failure is None:
                self._open(link.device)
                if self._pins:
                    self._pins.drop_link(link.device, "xdp")
                    self._pins.pin_link(link.device, link.name, descriptor, "xdp")
        except OSError as error:
            failure = error.strerror
        if failure is not None:
            self._failed[link.device] = failure
            self._release(link.device)
        return failure

    @staticmethod
    def _try(link: Link) -> str | None:
        trial = Trial()
        try:
            return trial.failure(link)
        finally:
            trial.close()

    def _open(self, device: int) -> None:
        """Let frames be sent by a device."""
        self._maps["devices"].update(INDEX.pack(device), INDEX.pack(device))

    def _release(self, device: int) -> None:
        self._maps["devices"].delete(INDEX.pack(device))
        link = self._attached.pop(device, None)
        if self._pins:
            self._pins.drop_link(device, "xdp")
        if link is not None:
            os.close(link)

    def _tell(self, link: Link, reason: str | None, behind: str) -> None:
        said = reason or PASSED
        if self._told.get(link.device) != said:
            self._told[link.device] = said
            log.info("carries", device=link.name, by=behind if reason else "XDP", reason=said)

    def _load(self) -> int:
        if self._program is None:
            self._program = load(self._maps, FRAMES).fd
        return self._program

    def _unload(self) -> None:
        if self._program is not None:
            os.close(self._program)
            self._program = None


def misses(link: Link, *, is_tagged: bool, is_attached: bool) -> str | None:
    """What XDP needs and a device does not have, in words; None: nothing.

    :param is_tagged: a VLAN is made of it.
    :param is_attached: it has a program, and shows all that it can.
    """
    try:
        lacking = drivers.lacking(link.device, is_attached=is_attached)
        offloads = drivers.offloads(link.name)
    except OSError as error:
        return f"the kernel does not tell what its driver can do ({error.strerror})"
    if lacking:
        return f"its driver cannot {lacking} by XDP"
    # A tag that is stripped is seen by nobody here, and packets of any VLAN would be ours.
    if drivers.STRIPS_TAGS in offloads and (is_tagged or drivers.FILTERS_TAGS not in offloads):
        return "it hides the VLAN that a frame came by (rx-vlan-offload)"
    return None
