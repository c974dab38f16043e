"""Connections of TCP allocations (RFC 6062) whose two ends are at workers of a test's choice."""

import asyncio
from typing import NamedTuple

from tests.patience import PATIENCE
from tests.turn.live import Client, port_of
from tests.turn.peers import TCP, Peer, receive
from tests.turn.secure import TlsClient
from tests.turn.workers.live import Stage, code_of
from turn.codec import registry
from turn.codec.message import parse_untrusted
from turn.codec.registry import Method
from turn.codec.values import Address


class Call(NamedTuple):
    """A connection with a peer that nobody has claimed yet."""

    control: Client
    number: int
    reader: asyncio.StreamReader
    """The peer's."""
    writer: asyncio.StreamWriter

    @property
    def owner(self) -> int:
        """The worker that has the allocation."""
        return self.number >> 24

    @property
    def other(self) -> int:
        """The one of the two that has it not."""
        return 1 - self.owner


async def at(
    stage: Stage, worker: int, username: str = "alice", protocol: str = "tcp", source: str = ""
) -> Client:
    """A client whose connection a worker has. :param source: its address."""
    while True:
        client = TlsClient(username) if protocol == "tls" else Client(username)
        await client.connect(port_of(stage.pool, protocol), tcp=True, source=source)
        before = await stage.requests()
        await client.request(Method.BINDING)
        after = await stage.requests()
        if after[worker] > before[worker]:
            stage.closing.append(client)
            return client
        client.close()


async def allocate(control: Client) -> Address:
    """Allocate; gives the address that peers connect to."""
    relayed = (await control.request(Method.ALLOCATE, TCP)).get(registry.XOR_RELAYED_ADDRESS)
    assert relayed is not None
    return relayed


async def attempt(control: Client) -> int:
    """Hear of a peer that has connected; gives the CONNECTION-ID."""
    message = parse_untrusted(await control.receive())
    assert message.method == Method.CONNECTION_ATTEMPT
    return message.get(registry.CONNECTION_ID) or 0


async def connect(control: Client, peer: Address) -> int:
    """Connect to a peer; gives the CONNECTION-ID, or the negative code of the error."""
    reply = await control.request(Method.CONNECT, (registry.XOR_PEER_ADDRESS, peer))
    return reply.get(registry.CONNECTION_ID) or -code_of(reply)


async def begin(stage: Stage, peer: Peer, owner: int = 0) -> Call:
    """Allocate at a worker, and connect to a peer."""
    control = await at(stage, owner)
    await allocate(control)
    number = await connect(control, peer.address)
    assert number >> 24 == owner
    return Call(control, number, *await peer.next())


async def connect_again(control: Client, peer: Address) -> int:
    """The same as soon as the connection before it is known to be over."""
    async with asyncio.timeout(PATIENCE):
        while (number := await connect(control, peer)) in {-446, -508}:
            pass
    return number


async def bind(client: Client, number: int) -> int:
    """Claim a connection; gives the code of the reply."""
    attribute = (registry.CONNECTION_ID, number)
    return code_of(await client.request(Method.CONNECTION_BIND, attribute))


async def splice(stage: Stage, call: Call, protocol: str = "tcp") -> Client:
    """Claim a connection at the worker that does not have its allocation."""
    data = await at(stage, call.other, protocol=protocol)
    assert await bind(data, call.number) == 0
    return data


async def ends(reader: asyncio.StreamReader) -> bytes:
    """Read to the end; gives what came before it."""
    async with asyncio.timeout(PATIENCE):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def exactly(reader: asyncio.StreamReader, size: int) -> bytes:
    """Read so many bytes."""
    async with asyncio.timeout(PATIENCE):
        return await reader.readexactly(size)


async def ended(client: Client) -> bool:
    """Whether the client's connection comes to its end."""
    try:
        return await receive(client.sock, 1) == b""
    except ConnectionResetError:
        return True
