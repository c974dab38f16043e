"""What of an allocation outlives the process: enough to go on with it. Times are monotonic.

TCP, TLS and DTLS clients lose their connection with the process, and reservations last for 30
seconds; neither is kept.
"""

from ipaddress import ip_address
from typing import Protocol

import msgspec

from turn.allocation.model import Allocation, Channel
from turn.auth.users import Keys
from turn.codec.channel import is_channel_number
from turn.codec.errors import Malformed
from turn.codec.values import Address, family_of
from turn.routes import FiveTuple, ThroughProxy, Transport

MOST_PORT = 65535


class RelayedRecord(msgspec.Struct, frozen=True, array_like=True):
    """A relayed transport address."""

    host: str
    port: int
    public: str
    """The host that the client was told."""
    expires: float

    @property
    def address(self) -> Address:
        """Where packets come from and arrive."""
        return Address(self.host, self.port)


class ChannelRecord(msgspec.Struct, frozen=True, array_like=True):
    """A channel binding."""

    number: int
    host: str
    port: int
    expires: float


class Record(msgspec.Struct, frozen=True, array_like=True):
    """An allocation of a UDP client."""

    client: tuple[str, int]
    """Its address, and ours below."""
    server: tuple[str, int]
    username: str
    user: str
    created: float
    relayed: list[RelayedRecord]
    permissions: dict[str, float]
    channels: list[ChannelRecord]
    ticket: bytes = b""
    tenant: str = ""
    keys: Keys | None = None

    @property
    def five_tuple(self) -> FiveTuple:
        """Whose it is."""
        return FiveTuple(Transport.UDP, Address(*self.client), Address(*self.server))

    @property
    def expires(self) -> float:
        """When the last of it ends."""
        return max((relayed.expires for relayed in self.relayed), default=0.0)


class Journal(Protocol):
    """Keeps records of live allocations where the next process finds them."""

    def keep(self, allocation: Allocation) -> None:
        """Something of an allocation has changed, or all of it is new."""

    def drop(self, allocation: Allocation) -> None:
        """It has ended."""


class NoJournal:
    """Allocations end with the process."""

    def keep(self, allocation: Allocation) -> None:
        """Nothing."""

    def drop(self, allocation: Allocation) -> None:
        """Nothing."""


NO_JOURNAL = NoJournal()


def can_be_kept(allocation: Allocation) -> bool:
    """Whether its client can go on with another process; not one that comes by way of a proxy."""
    return allocation.client.transport is Transport.UDP and not any(
        isinstance(relayed.ends.to_client, ThroughProxy) for relayed in allocation.relayed.values()
    )


def record_of(allocation: Allocation) -> Record:
    """An allocation as it is now."""
    _, client, server = allocation.client
    return Record(
        client=(client.host, client.port),
        server=(server.host, server.port),
        username=allocation.owner.username,
        user=allocation.owner.user,
        created=allocation.created,
        relayed=[
            RelayedRecord(*each.relay.address, each.relay.public.host, each.expires)
            for each in allocation.relayed.values()
        ],
        permissions=allocation.permissions,
        channels=[
            ChannelRecord(number, *channel.peer, channel.expires)
            for number, channel in allocation.channels.items()
        ],
        ticket=allocation.ticket,
        tenant=allocation.owner.tenant,
        keys=allocation.keys,
    )


def channels_of(record: Record) -> dict[int, Channel]:
    """The channel bindings of a record."""
    return {each.number: Channel(Address(each.host, each.port), each.expires)
            for each in record.channels}  # fmt: skip


encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Record)


def decode(data: bytes | bytearray | memoryview) -> Record:
    """Read what ``encode`` wrote. :raises Malformed: it is nothing of the kind."""
    try:
        record = _decoder.decode(data)
        _check(record)
    except (msgspec.DecodeError, ValueError) as error:
        raise Malformed(str(error)) from None
    return record


def _check(record: Record) -> None:
    """See that every value is one that an allocation can have. :raises ValueError: it is not."""
    places = [record.client, record.server, *((each.host, each.port) for each in record.relayed)]
    places += [(each.host, each.port) for each in record.channels]
    for host in (*(host for host, _ in places), *record.permissions,
                 *(each.public for each in record.relayed)):  # fmt: skip
        ip_address(host)
    if record.keys is not None and not record.keys.are_sound:
        raise ValueError("no key")
    if not all(0 < port <= MOST_PORT for _, port in places):
        raise ValueError("no port")
    if not all(is_channel_number(each.number) for each in record.channels):
        raise ValueError("no channel number")
    if len({family_of(each.address) for each in record.relayed}) < len(record.relayed):
        raise ValueError("two relayed addresses of one family")
