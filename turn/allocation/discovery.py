"""NAT behaviour discovery: answers that come from another of our addresses (RFC 5780 §6).

A client compares which answers reach it, and what address each says it has. That takes two
addresses of ours with two ports each.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from turn.codec import registry
from turn.codec.errors import StunError
from turn.codec.message import Message
from turn.codec.registry import Attributes
from turn.codec.values import Address
from turn.routes import FiveTuple, Transport

ATTRIBUTES = frozenset(
    attribute.number
    for attribute in (registry.CHANGE_REQUEST, registry.RESPONSE_PORT, registry.PADDING)
)
MOST_PADDING = 1500
"""Bytes: the MTU of nearly every network (RFC 5780 §7.6)."""
CHANGE_PORT, CHANGE_HOST = 0x2, 0x4
"""Flags of CHANGE-REQUEST (RFC 5780 §7.2)."""


class Answer(NamedTuple):
    """What a Binding response says beside the mapped address, and its way."""

    attributes: Attributes = ()
    origin: Address | None = None
    """Which of our addresses it leaves from, if not the one that was asked."""
    destination: Address | None = None
    """Where it goes, if not to where the request came from."""


class Discovery:
    """The addresses of a server that NAT behaviour can be discovered from."""

    def __init__(
        self, pairs: Iterable[tuple[Address, Address]], public_of: Mapping[str, str]
    ) -> None:
        """Lay them out.

        :param pairs: two of our addresses that differ in host and port; they stand for four.
        :param public_of: our address -> what clients are told, behind 1:1 NAT.
        """
        self._public_of = public_of
        self._opposite: dict[Address, Address] = {}
        for one, other in pairs:
            for here, there in ((one, other), (other, one)):
                self._opposite[here] = there
                self._opposite[Address(here.host, there.port)] = Address(there.host, here.port)

    @property
    def addresses(self) -> list[Address]:
        """Every address that has to be listened on."""
        return list(self._opposite)

    def serves(self, client: FiveTuple) -> bool:
        """Whether a request may ask for it: over UDP, at one of the addresses."""
        return client.transport is Transport.UDP and client.server in self._opposite

    def answer(self, message: Message, client: FiveTuple) -> Answer:
        """What to say and where. :raises StunError: 400 (RFC 5780 §6.1)."""
        if not self.serves(client):
            return Answer()
        own, opposite = client.server, self._opposite[client.server]
        change = message.get(registry.CHANGE_REQUEST) or 0
        port, padding = message.get(registry.RESPONSE_PORT), message.get(registry.PADDING)
        if port is not None and (padding is not None or not port):
            raise StunError(400)
        origin = Address(
            (opposite if change & CHANGE_HOST else own).host,
            (opposite if change & CHANGE_PORT else own).port,
        )
        told: Attributes = (
            (registry.MAPPED_ADDRESS, client.client),  # where it differs, something rewrites it
            (registry.RESPONSE_ORIGIN, self._public(origin)),
            (registry.OTHER_ADDRESS, self._public(opposite)),
        )
        # As much as came, though the RFC would fill the path: what is sent to an address that
        # may be forged is never more than what was sent in its name. Nor more than it takes to have
        # fragments on the way: the victim's share counts replies, not bytes.
        size = min(len(padding or b""), MOST_PADDING)
        filled = () if padding is None else ((registry.PADDING, bytes(size)),)
        return Answer(
            (*told, *filled),
            origin if origin != own else None,
            Address(client.client.host, port) if port else None,
        )

    def _public(self, address: Address) -> Address:
        return Address(self._public_of.get(address.host, address.host), address.port)
