"""A Binding over a socket that is used for more than one server."""

import asyncio
import secrets

from turn.codec.errors import Malformed
from turn.codec.message import Message, build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address
from turn.doctor.wire import Inbox

TRIES = 4
WAIT = 0.5
"""Seconds between two tries."""


async def binding_over(
    transport: asyncio.DatagramTransport, inbox: Inbox, server: Address
) -> Message | None:
    """Ask a server where it sees this socket; None where no answer comes."""
    transaction = secrets.token_bytes(12)
    message = build(Method.BINDING, MessageClass.REQUEST, transaction, (), fingerprint=True)
    for _ in range(TRIES):
        transport.sendto(message, server)
        try:
            async with asyncio.timeout(WAIT):
                while True:
                    data, _ = await inbox.next()
                    reply = _reply(data, transaction)
                    if reply is not None:
                        return reply
        except (TimeoutError, OSError):
            continue
    return None


def _reply(data: bytes, transaction: bytes) -> Message | None:
    try:
        message = parse_untrusted(data)
    except Malformed:
        return None
    return message if message.transaction_id == transaction else None
