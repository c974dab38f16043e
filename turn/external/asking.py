"""Asking STUN servers for the external address of one of ours, over UDP from that very address."""

import asyncio
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from config.names import look_up
from config.values import StunServer
from turn.codec.values import Address
from turn.external.answer import Useless, judge_untrusted, question

RTO = 0.5
"""Seconds until a request is sent again; then twice as long each time (RFC 8489 §6.2.1)."""
LARGEST = 2048
"""Bytes of an answer that are read."""


class Answered(NamedTuple):
    """What is known now."""

    public: str
    server: StunServer
    keeps_port: bool = True
    """Whether the socket has the same port from outside, as behind 1:1 NAT it would."""


class Unanswered(NamedTuple):
    """Why nothing is: what each server did."""

    reason: str


async def ask(
    local: str, servers: Sequence[StunServer], patience: float
) -> Answered | Unanswered | None:
    """Ask servers in order for the external address of ``local`` until one tells it.

    :param patience: the longest to wait for each, in seconds.
    :returns: None where no server has an address of this family.
    """
    reasons = []
    for server in servers:
        try:
            async with asyncio.timeout(patience):
                place = await _place_of(server, local)
                if place is not None:
                    seen, port = await _ask_one(local, place)
                    return Answered(seen.host, server, seen.port == port)
        except TimeoutError:
            reasons.append(f"{server} does not answer")
        except Useless as error:
            reasons.append(f"{server} {error}")
        except OSError as error:  # no such name; no way there; ICMP says that nobody listens
            reasons.append(f"{server}: {error.strerror or error}")
    return Unanswered("; ".join(reasons)) if reasons else None


async def _place_of(server: StunServer, local: str) -> tuple[Any, ...] | None:
    """Where to ask, of the local address's family. :raises OSError: there is no such host."""
    wanted = socket.AF_INET6 if ":" in local else socket.AF_INET
    found = await look_up(*server, type=socket.SOCK_DGRAM)
    return next((place for family, *_, place in found if family == wanted), None)


async def _ask_one(local: str, place: tuple[Any, ...]) -> tuple[Address, int]:
    """How a socket is seen from outside, and its own port.

    :raises Useless, OSError: see ``ask``; whoever is silent is asked without end.
    """
    transaction_id = secrets.token_bytes(12)
    request = question(transaction_id)
    with socket.socket(
        socket.AF_INET6 if ":" in local else socket.AF_INET, socket.SOCK_DGRAM
    ) as sock:
        sock.setblocking(False)
        sock.bind((local, 0))
        sock.connect(place)  # the kernel lets nobody else answer
        wait = RTO
        while True:
            sock.send(request)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    seen = await _answer(sock, transaction_id, local)
                    return seen, sock.getsockname()[1]
            wait *= 2


async def _answer(sock: socket.socket, transaction_id: bytes, local: str) -> Address:
    loop = asyncio.get_running_loop()
    while True:
        data = await loop.sock_recv(sock, LARGEST)
        seen = judge_untrusted(data, transaction_id, local)
        if seen is not None:
            return seen
