"""Two queues for one UDP address: what has a route does not wait behind what has to be decided.

A second socket is bound to the same address, and a classic BPF program (bpf(4), here a few
instructions) tells the kernel which of the two gets a datagram. A flood of requests fills the one;
ChannelData and Send indications come in by the other, and none is lost. Needs no privilege.
"""

import ctypes
import socket
from collections.abc import Sequence

# Of <asm-generic/socket.h>; the socket module does not have them.
SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_ATTACH_REUSEPORT_CBPF = 32, 33, 51

# Classic BPF (<linux/filter.h>, <linux/bpf_common.h>); it sees the UDP payload.
Step = tuple[int, int, int, int]
"""A code, how far to jump if it is true and if it is false, a constant."""
LOAD_BYTE, LOAD_HALF = 0x30, 0x28
IF_EQUAL, IF_AT_LEAST, RETURN = 0x15, 0x35, 0x06
DATA, REQUESTS = 0, 1
"""Which queue, by the order in which the sockets were bound."""
SEND_INDICATION = 0x0016
REQUESTS_BUFFER = 1 << 20
"""Bytes. Over a thousand requests; what waits longer than that takes has been asked again."""


class Instruction(ctypes.Structure):
    """``struct sock_filter``: a code, two distances to jump, a constant."""

    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("constant", ctypes.c_uint32),
    )


class Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_uint16), ("code", ctypes.POINTER(Instruction)))


# A first byte of 0x40 and more is no STUN message (RFC 7983 §7); of those below, Send indications
# are data too. A datagram that is too short for an instruction ends the program with 0: data.
SORT = (
    (LOAD_BYTE, 0, 0, 0),
    (IF_AT_LEAST, 3, 0, 0x40),
    (LOAD_HALF, 0, 0, 0),
    (IF_EQUAL, 1, 0, SEND_INDICATION),
    (RETURN, 0, 0, REQUESTS),
    (RETURN, 0, 0, DATA),
)


def requests_apart(sock: socket.socket) -> socket.socket | None:
    """A second socket at the address of ``sock``, which gets what is not data from now on.

    None where there cannot be one.
    """
    try:
        # Only after ``sock`` was bound, so that an address that somebody else has is refused.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other = queue_beside(sock)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
        return None
    try:
        attach(sock, SORT)
    except OSError:
        other.close()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
        return None
    return other


def queue_beside(sock: socket.socket) -> socket.socket:
    """One more socket for requests at an address that ``sock`` shares.

    :raises OSError: with the kernel's reason.
    """
    other = socket.socket(sock.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        make_room(other, REQUESTS_BUFFER)
        if sock.family == socket.AF_INET6:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(sock.getsockname())
    except OSError:
        other.close()
        raise
    return other


def attach(sock: socket.socket, steps: Sequence[Step]) -> None:
    """Have a program name the socket of a group, by number, that gets a datagram.

    :raises OSError: the kernel does not take it.
    """
    code = (Instruction * len(steps))(*(Instruction(*each) for each in steps))
    program = Program(len(steps), code)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, bytes(program))


def make_room(sock: socket.socket, size: int) -> None:
    """Let so many bytes wait on a socket, each way.

    With CAP_NET_ADMIN they are had; else as many as net.core.rmem_max and wmem_max allow.
    """
    for forced, asked in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, size)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, asked, size)
