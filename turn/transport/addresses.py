"""The addresses of this machine, and word of their changes."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from ipaddress import ip_address

import ifaddr
import structlog

from turn.codec.values import Family

log = structlog.get_logger("turn")

# rtnetlink(7): the multicast groups that tell of IPv4 and IPv6 addresses.
RTMGRP_IPV4_IFADDR = 0x10
RTMGRP_IPV6_IFADDR = 0x100
SETTLE = 0.2
"""Seconds to wait after a change: they come in groups, and a new IPv6 address is tentative."""
LOOK_AGAIN = 1.0
"""Seconds, where they could not be read."""
# Never sent to: connecting a UDP socket only looks up the route.
SOMEWHERE = {Family.IPV4: "192.88.99.1", Family.IPV6: "2001:4860:4860::8888"}


def local_addresses() -> list[str]:
    """Every address of this machine, canonical text, link-local IPv6 left out (it needs a zone)."""
    found = []
    for adapter in ifaddr.get_adapters():
        for entry in adapter.ips:
            text = entry.ip if isinstance(entry.ip, str) else entry.ip[0]
            ip = ip_address(text)
            if not (ip.version == 6 and ip.is_link_local):
                found.append(str(ip))
    return sorted(set(found), key=found.index)


def is_here(host: str) -> bool:
    """Whether this machine can send from an address, now."""
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(kind, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((host, 0))
        except OSError:
            return False
    return True


def relay_candidates(addresses: list[str]) -> dict[Family, list[str]]:
    """The addresses that peers may reach us at, the one of the default route first.

    Loopback only where there is nothing else.
    """
    outside = [a for a in addresses if not ip_address(a).is_loopback]
    by_family: dict[Family, list[str]] = {}
    for family in Family:
        hosts = [a for a in outside or addresses if (":" in a) == (family is Family.IPV6)]
        primary = _primary(family)
        by_family[family] = sorted(hosts, key=lambda host: host != primary)
    return by_family


def _primary(family: Family) -> str:
    """The source address of packets to the internet, "" where there is no way there."""
    kind = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
    with contextlib.suppress(OSError), socket.socket(kind, socket.SOCK_DGRAM) as sock:
        sock.connect((SOMEWHERE[family], 9))
        return str(sock.getsockname()[0])
    return ""


class AddressWatch:
    """Calls back some moments after this machine's addresses change (Linux, rtnetlink)."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """Prepare. :param changed: where it raises an ``OSError``, it is called again soon."""
        self._changed = changed
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to listen; without netlink there is nothing to hear, and that is all."""
        with contextlib.suppress(OSError):
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            sock.setblocking(False)
            sock.bind((0, RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))
            self._socket = sock
            asyncio.get_running_loop().add_reader(sock.fileno(), self._heard)

    def stop(self) -> None:
        """Stop listening."""
        if self._timer:
            self._timer.cancel()
        if self._socket:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()

    def _heard(self) -> None:
        # What exactly changed is read from the machine afterwards; a lost message (ENOBUFS)
        # means no more than that something did.
        with contextlib.suppress(OSError):
            while self._socket and self._socket.recv(65536):
                pass
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(SETTLE, self._look)

    def _look(self) -> None:
        try:
            self._changed()
        except OSError as error:  # no descriptors are left, for one
            log.warning("the machine's new addresses cannot be read", reason=error.strerror)
            self._timer = asyncio.get_running_loop().call_later(LOOK_AGAIN, self._look)
