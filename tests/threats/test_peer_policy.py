"""No packet reaches a refused peer: edges x encodings x doors x transports, with sinks that count.

The relay runs on a host to which every address on earth leads back, so that whatever it let
through would be counted, whichever address and door it used; what is allowed is counted too.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest

from config.schema import LogSettings
from tests.turn import everywhere
from tests.turn.everywhere import PORT, Sinks, lonely_host
from tests.turn.kernel.hosts import Host
from tests.turn.live import UDP, Client, port_of, relay
from tests.turn.live import settings as made_of
from tests.turn.secure import connected
from tests.turn.secure import everywhere as all_transports
from turn.codec import registry
from turn.codec.message import Message, build
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address, Family, family_of
from turn.routes import Transport
from turn.workers.pool import WorkerPool

TCP = (registry.REQUESTED_TRANSPORT, 6)
BOTH = (registry.ADDITIONAL_ADDRESS_FAMILY, Family.IPV6)
SERVICES = (22, 3478, 5349, 6379, 8080, 9641)
"""Ports of this machine that nobody is to reach through it."""

# What SECURITY.md promises, written down a second time: IANA's special-purpose registries, CGNAT,
# multicast, and Azure's host agent.
REFUSED = """
0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24
192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24
198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 168.63.129.16/32
"""
REFUSED6 = """
::/16 100::/64 1000::/4 2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20 4000::/2
8000::/1 fc00::/7 fe80::/10 fec0::/10 ff00::/8
"""
# IPv4 as IPv6 carries it (RFC 4291 §2.5.5, RFC 6052, RFC 8215, RFC 3056, RFC 4380, RFC 5214).
ENCODINGS = {
    "mapped": lambda number: 0xFFFF << 32 | number,
    "compatible": lambda number: number,
    "translated": lambda number: 0xFFFF0000 << 32 | number,
    "NAT64": lambda number: 0x64FF9B << 96 | number,
    "local NAT64": lambda number: 0x64FF9B0001 << 80 | number,
    "6to4": lambda number: 0x2002 << 112 | number << 80 | 1,
    "Teredo": lambda number: 0x2001 << 112 | (number ^ 0xFFFFFFFF),
    "ISATAP": lambda number: 0x26064700 << 96 | 0x00005EFE << 32 | number,
    "ISATAP, universal": lambda number: 0x26064700 << 96 | 0x02005EFE << 32 | number,
}
ALLOWED = [Address("8.8.8.8", PORT), Address("2606:4700::1111", PORT)]


def edges(networks: str) -> list[str]:
    """The first and the last address of each network."""
    return [str(edge) for one in map(ip_network, networks.split()) for edge in (one[0], one[-1])]


def encoded(hosts: list[str]) -> list[str]:
    """IPv4 addresses in every form that IPv6 has for them."""
    numbers = [int(IPv4Address(host)) for host in hosts]
    return [str(IPv6Address(form(number))) for form in ENCODINGS.values() for number in numbers]


EDGES = edges(REFUSED)
PEERS = [
    *(Address(host, PORT) for host in EDGES if host not in {"127.0.0.1", "::1"}),
    *(Address(host, PORT) for host in edges(REFUSED6)),
    # A public address, and our own, are refused in these clothes too.
    *(Address(host, PORT) for host in encoded([*EDGES, "8.8.8.8", everywhere.IPV4])),
    *(Address(peer.host, 0) for peer in ALLOWED),
]
OWN = [
    Address(host, port)
    for host in ("127.0.0.1", "::1", everywhere.IPV4, everywhere.IPV6)
    for port in (PORT, *SERVICES)
]


@pytest.fixture(scope="module", name="host")
def host_fixture() -> Iterator[Host]:
    """A host on which everything arrives."""
    from tests.conftest import need, need_root  # noqa: PLC0415 - pytest loads that file its own way

    need_root("a network namespace")
    need("ip")
    with lonely_host() as found:
        yield found


@pytest.fixture
def sinks(host):
    """What listens there."""
    found = Sinks(host)
    yield found
    found.close()


def code_of(reply: Message) -> int:
    error = reply.get(registry.ERROR_CODE)
    return error[0] if error else 0


def send(peer: Address) -> bytes:
    """A Send indication."""
    attributes = (registry.XOR_PEER_ADDRESS, peer), (registry.DATA, b"evil")
    return build(Method.SEND, MessageClass.INDICATION, bytes(12), attributes)


async def packets(client: Client, peer: Address, number: int) -> tuple[int, int]:
    """Ask at CreatePermission and ChannelBind, and send by both ways whatever the answers are."""
    named = (registry.XOR_PEER_ADDRESS, peer)
    permission = await client.request(Method.CREATE_PERMISSION, named)
    await client.send(send(peer))
    channel = await client.request(Method.CHANNEL_BIND, (registry.CHANNEL_NUMBER, number), named)
    await client.send(number.to_bytes(2) + b"\x00\x04evil")
    await client.send(send(peer))
    return code_of(permission), code_of(channel)


def settings(folder) -> dict[str, object]:
    return {
        **all_transports(folder),
        "allow_peers": [],
        "tcp_allocations": True,
        "relay_addresses": [everywhere.IPV4, everywhere.IPV6],
    }


@pytest.mark.parametrize("transport", list(Transport))
async def test_no_packet_reaches_a_refused_peer(host, sinks, tmp_path, transport):
    """CreatePermission, ChannelBind and Send; the allocation relays both families."""
    with host.inside():
        async with (
            relay(**settings(tmp_path)) as service,
            connected(service, transport) as client,
        ):
            assert code_of(await client.request(Method.ALLOCATE, UDP, BOTH)) == 0
            for number, peer in enumerate(PEERS, 0x4000):
                permission, channel = await packets(client, peer, number)
                # A permission is for a host; port 0 is refused where a port is named.
                assert (permission, channel) == (0 if peer.port == 0 else 403, 403), peer
            for number, peer in enumerate(OWN, 0x5000):
                # An own address may be somebody's relay, so its permission may be had; no
                # channel, and no packet but to a live relay port.
                assert await packets(client, peer, number) == (0, 403), peer
            await client.request(Method.REFRESH)  # everything before it has been handled
            assert sinks.count() == {"udp": 0, "tcp": 0, "frames": 0}
            assert service.stats.sent_packets == 0
            for number, peer in enumerate(ALLOWED, 0x4000):
                assert await packets(client, peer, number) == (0, 0)
            await client.request(Method.REFRESH)
            assert sinks.count()["udp"] == 3 * len(ALLOWED)


async def test_nothing_but_the_media_server_is_reached_where_it_is_the_only_peer(
    host, sinks, tmp_path
):
    """turn.only_allowed_peers: not the world, nor the relayed address of another client."""
    server, other = Address("8.8.8.8", PORT), Address("9.9.9.9", PORT)
    only = {"only_allowed_peers": True, "allow_peers": [server.host], "listen_dtls": []}
    with host.inside():
        async with (
            relay(**settings(tmp_path) | only) as service,
            connected(service, Transport.UDP) as second,
            connected(service, Transport.UDP) as client,
        ):
            relayed = await second.allocate()
            assert code_of(await client.request(Method.ALLOCATE, UDP, BOTH)) == 0
            for number, peer in enumerate((*PEERS, *OWN, *ALLOWED[1:], other, relayed), 0x4000):
                if peer.host != server.host:
                    assert await packets(client, peer, number) == (403, 403), peer
            assert sinks.count() == {"udp": 0, "tcp": 0, "frames": 0}
            assert service.stats.sent_packets == 0
            assert await packets(client, server, 0x4FFF) == (0, 0)
            await client.request(Method.REFRESH)
            assert sinks.count()["udp"] == 3


@pytest.mark.parametrize("transport", [Transport.TCP, Transport.TLS])
@pytest.mark.parametrize("family", list(Family))
async def test_no_connection_reaches_a_refused_peer(host, sinks, tmp_path, transport, family):
    """Connect (RFC 6062)."""
    with host.inside():
        async with (
            relay(**settings(tmp_path)) as service,
            connected(service, transport) as client,
        ):
            await no_connection_is_made(client, sinks, family)


async def test_nor_where_there_are_several_workers(host, sinks, tmp_path):
    """Each of them judges by what all have: their relayed addresses are no door to anything."""
    with host.inside():
        fixed = settings(tmp_path) | {"listen_dtls": [], "workers": 2}
        pool = WorkerPool(made_of(**fixed), LogSettings())
        await pool.start()
        try:
            async with (
                connected(pool, Transport.TCP) as other,
                connected(pool, Transport.TCP) as one,
            ):
                assert code_of(await other.request(Method.ALLOCATE, TCP)) == 0
                await no_connection_is_made(one, sinks, Family.IPV4)
        finally:
            await pool.stop()


async def no_connection_is_made(client: Client, sinks: Sinks, family: Family) -> None:
    """But the one to a peer that is allowed."""
    wanted = (registry.REQUESTED_ADDRESS_FAMILY, family)
    assert code_of(await client.request(Method.ALLOCATE, TCP, wanted)) == 0
    for peer in (*PEERS, *OWN):
        named = (registry.XOR_PEER_ADDRESS, peer)
        code = code_of(await client.request(Method.CONNECT, named))
        assert code == (403 if family_of(peer) == family else 443), peer
    assert sinks.count() == {"udp": 0, "tcp": 0, "frames": 0}
    (allowed,) = (peer for peer in ALLOWED if family_of(peer) == family)
    named = (registry.XOR_PEER_ADDRESS, allowed)
    assert code_of(await client.request(Method.CONNECT, named)) == 0
    assert sinks.count()["tcp"] == 1


async def test_two_relayed_clients_meet_where_nothing_else_on_the_machine_can_be_met(connect):
    async with relay(allow_peers=[]) as service:
        port = port_of(service)
        one, two = await connect(port), await connect(port)
        addresses = [await client.allocate() for client in (one, two)]
        for client, peer in ((one, addresses[1]), (two, addresses[0])):
            reply = await client.request(
                Method.CHANNEL_BIND,
                (registry.CHANNEL_NUMBER, 0x4000),
                (registry.XOR_PEER_ADDRESS, peer),
            )
            assert code_of(reply) == 0
        await one.send(b"\x40\x00\x00\x05hello")
        assert await two.receive() == b"\x40\x00\x00\x05hello"
        for own_port in (port, 6379, 9641, 22):
            reply = await one.request(
                Method.CHANNEL_BIND,
                (registry.CHANNEL_NUMBER, 0x4001),
                (registry.XOR_PEER_ADDRESS, Address("127.0.0.1", own_port)),
            )
            assert code_of(reply) == 403


async def test_our_own_ports_are_refused_even_where_the_operator_opened_the_machine(connect):
    async with relay(allow_peers=["127.0.0.0/8"]) as service:
        port = port_of(service)
        client = await connect(port)
        await client.allocate()
        reply = await client.request(
            Method.CHANNEL_BIND,
            (registry.CHANNEL_NUMBER, 0x4000),
            (registry.XOR_PEER_ADDRESS, Address("127.0.0.1", port)),
        )
        assert code_of(reply) == 403
