"""A client changes its network with packets under way: real sockets, one relay (RFC 8016)."""

import asyncio

import pytest

from tests.patience import until
from tests.turn.live import UDP, Client, port_of, relay
from tests.turn.peers import udp_peer
from turn.codec import registry
from turn.codec.channel import encode
from turn.codec.registry import Method
from turn.codec.values import Address

ASKED = (registry.MOBILITY_TICKET, b"")


@pytest.mark.parametrize("tcp_before", [False, True], ids=["from-udp", "from-tcp"])
@pytest.mark.parametrize("tcp_after", [False, True], ids=["to-udp", "to-tcp"])
async def test_the_peer_sees_the_same_address_all_the_time(tcp_before: bool, tcp_after: bool):
    loop = asyncio.get_running_loop()
    async with relay(mobility=True) as service:
        ports = {False: port_of(service), True: port_of(service, "tcp")}
        with udp_peer() as peer:
            to_peer = (registry.XOR_PEER_ADDRESS, Address(*peer.getsockname()))

            before = await Client().connect(ports[tcp_before], tcp=tcp_before)
            reply = await before.request(Method.ALLOCATE, UDP, ASKED)
            ticket = reply.get(registry.MOBILITY_TICKET)
            relayed = reply.get(registry.XOR_RELAYED_ADDRESS)
            assert ticket is not None
            assert relayed is not None
            await before.request(Method.CHANNEL_BIND, (registry.CHANNEL_NUMBER, 0x4000), to_peer)
            await before.send(encode(0x4000, b"before", padded=True))
            assert await loop.sock_recvfrom(peer, 100) == (b"before", relayed)
            if tcp_before:  # the network is gone before the client has another one
                before.close()
                await until(lambda: not service._listeners._streams[0].connections)

            after = await Client().connect(ports[tcp_after], tcp=tcp_after, source="127.0.0.2")
            await after.request(Method.REFRESH, (registry.MOBILITY_TICKET, ticket))
            await after.send(encode(0x4000, b"after", padded=True))
            assert await loop.sock_recvfrom(peer, 100) == (b"after", relayed)
            await loop.sock_sendto(peer, b"and back", relayed)
            assert (await after.receive())[4:12] == b"and back"
            after.close()
            before.close()
