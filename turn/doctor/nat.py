"""What the NAT before us does with one socket and two destinations (RFC 5780 §4.3)."""

import asyncio
import socket

from turn.codec import registry
from turn.codec.values import Address
from turn.doctor.probe import binding_over
from turn.doctor.report import Section
from turn.doctor.target import Target
from turn.doctor.wire import Inbox


async def tell_kind(
    section: Section, target: Target, host: str, another: Address | None = None
) -> None:
    """Ask two addresses where they see one socket.

    :param another: of another server, for one that has no second address of its own.
    """
    loop = asyncio.get_running_loop()
    transport, inbox = await loop.create_datagram_endpoint(
        Inbox, family=socket.AF_INET6 if ":" in host else socket.AF_INET,
        local_addr=("::" if ":" in host else "0.0.0.0", 0),  # noqa: S104 - both ways out
    )  # fmt: skip
    try:
        first, other = await _mapping(transport, inbox, Address(host, target.port))
        if first is None:
            return
        other = other or another
        if other is None:
            section.skip(
                "nat",
                "this server has one address, so the NAT's kind cannot be told",
                "try two servers at once (icebroker doctor URL URL), or one with RFC 5780",
            )
            return
        second, _ = await _mapping(transport, inbox, other)
    finally:
        transport.close()
    if second is None:
        section.skip(
            "nat",
            f"the other address, {other}, does not answer",
            "open it in the firewall, or take it out of the server's settings (turn.nat_discovery)",
        )
    elif first == second:
        section.ok("nat", "keeps one mapping for all destinations: direct paths are likely")
    else:
        section.warn(
            "nat",
            f"makes a mapping for each destination (symmetric): {first}, {second}",
            "nothing to mend at the server; calls from here often need the relay",
        )


async def _mapping(
    transport: asyncio.DatagramTransport, inbox: Inbox, server: Address
) -> tuple[Address | None, Address | None]:
    """Where a server sees a socket, and which other address it has."""
    reply = await binding_over(transport, inbox, server)
    if reply is None:
        return None, None
    return reply.get(registry.XOR_MAPPED_ADDRESS), reply.get(registry.OTHER_ADDRESS)
