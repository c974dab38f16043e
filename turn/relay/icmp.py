"""ICMP errors that our packets drew, as Linux hands them to the socket that sent them (ip(7)).

The kernel has matched the error to the socket by the packet that it carries, so nobody makes up
an error for a packet that was never sent.
"""

import socket
import struct
from typing import NamedTuple

from turn.codec.values import Address, Family, Icmp

# Of <linux/in.h>, <linux/in6.h> and <linux/errqueue.h>; the socket module does not have them.
IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_PMTUDISC_DO, IP_RECVERR = 10, 0, 2, 11
IPV6_RECVERR, IPV6_DONTFRAG = 25, 62
ORIGIN_ICMP, ORIGIN_ICMP6 = 2, 3
EXTENDED_ERROR = struct.Struct("=IBBBxII")
"""errno, origin, type, code, info (the next hop's MTU, where the error tells it), data."""
ROOM = 256
CONTROL_ROOM = socket.CMSG_SPACE(EXTENDED_ERROR.size + 28)

# RFC 8656 §11.5: only these types are told of.
REPORTED = {ORIGIN_ICMP: {3, 11}, ORIGIN_ICMP6: {1, 2, 3}}
TOO_BIG = {(ORIGIN_ICMP, 3, 4), (ORIGIN_ICMP6, 2, 0)}
"""Fragmentation needed, and Packet Too Big: the error data is the next hop's MTU."""


class Unreachable(NamedTuple):
    """An ICMP error, and the peer that the packet was for."""

    peer: Address
    icmp: Icmp


def prepare(sock: socket.socket, family: Family) -> None:
    """Have errors queued; let packets be fragmented where a client does not forbid it.

    (RFC 8656 §14: the DF bit is clear unless DONT-FRAGMENT asks for it.)
    """
    if family is Family.IPV4:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)


def forbid_fragments(sock: socket.socket, forbid: bool) -> None:
    """Set the DF bit (IPv6: refuse to fragment) from now on, or no more."""
    if sock.family == socket.AF_INET:
        how = IP_PMTUDISC_DO if forbid else IP_PMTUDISC_DONT
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, how)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_DONTFRAG, int(forbid))


def next_error(sock: socket.socket) -> Unreachable | None:
    """Take one error from the queue; None where it is none that a client is told of.

    :raises OSError: the queue is empty.
    """
    _, control, _, name = sock.recvmsg(ROOM, CONTROL_ROOM, socket.MSG_ERRQUEUE)
    for _, _, data in control:
        if len(data) < EXTENDED_ERROR.size or not name:
            continue
        _errno, origin, kind, code, info, _data = EXTENDED_ERROR.unpack_from(data)
        if kind in REPORTED.get(origin, ()):
            told = info if (origin, kind, code) in TOO_BIG else 0
            return Unreachable(Address(*name[:2]), Icmp(kind, code, told))
    return None
