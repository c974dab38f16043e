"""Thousands of connections that begin something and never go on, from many addresses."""

import asyncio
import contextlib
import resource
import socket
import ssl

A_SOURCE = 50
"""Connections of one address: fewer than it is allowed."""
HALF_A_REQUEST = b"\x00\x03\x00\x08\x21\x12\xa4\x42\x00\x00"


def half_a_hello() -> bytes:
    """The first half of a TLS ClientHello."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with_nobody = context.wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        with_nobody.do_handshake()
    hello = outgoing.read()
    return hello[: len(hello) // 2]


async def open_half(port: int, count: int, first: bytes, network: int) -> list[socket.socket]:
    """Open connections to a port of 127.0.0.1, and send each its first bytes.

    :param network: they come from 127.NETWORK.0.0/16.
    """
    made = []
    for number in range(count):
        source = number // A_SOURCE
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((f"127.{network}.{source >> 8}.{source & 255}", 0))
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        sock.send(first)
        made.append(sock)
    return made


def room_for(count: int) -> None:
    """See that this process may have so many descriptors. :raises OSError: it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(hard, count)))
