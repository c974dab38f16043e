"""Which routes the kernel takes, and which it leaves to user space: both get there."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.patience import PATIENCE, wait_until
from tests.turn.kernel.hosts import HostClient, Network, Relay, offloads, relay
from tests.turn.kernel.script import CHANNEL, body, channel_data
from tests.turn.live import UDP
from turn.codec import registry
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address
from turn.kernel.carrier import WORTH

Allocated = Callable[..., tuple[HostClient, list[Address]]]
V4, V6 = (registry.REQUESTED_ADDRESS_FAMILY, 1), (registry.REQUESTED_ADDRESS_FAMILY, 2)


@pytest.fixture(name="running")
def running_fixture(three: Network) -> Iterator[Relay]:
    with relay(three, "kernel") as running:
        yield running


@pytest.fixture(name="allocated")
def allocated_fixture(three: Network) -> Iterator[Allocated]:
    """Makes clients with an allocation each; gives them and their relayed addresses."""
    with ExitStack() as sockets:

        def allocated(*attributes: Any, ipv6: bool = False) -> tuple[HostClient, list[Address]]:
            server = three.server.ipv6 if ipv6 else three.server.ipv4
            client = HostClient(three.client, (server, 3478), ipv6=ipv6)
            sockets.callback(client.sock.close)
            reply = asyncio.run(client.request(Method.ALLOCATE, UDP, *attributes))
            return client, list(reply.get_all(registry.XOR_RELAYED_ADDRESS))

        yield allocated


def bind(client: HostClient, peer: Address, channel: int = CHANNEL) -> None:
    request = client.request(
        Method.CHANNEL_BIND,
        (registry.CHANNEL_NUMBER, channel),
        (registry.XOR_PEER_ADDRESS, peer),
    )
    client.sock.setblocking(False)
    assert asyncio.run(request).get(registry.ERROR_CODE) is None
    client.sock.settimeout(PATIENCE)


def carried(running: Relay) -> int:
    total = running.call(running.service._plane.carried)
    return int(total.sent_packets + total.received_packets)


def offloaded(running: Relay) -> int:
    plane: Any = running.service._plane
    return int(running.call(lambda: len(plane._offloads)))


def named(peer: Address, body: bytes) -> bytes:
    """A Send indication, padded with what nobody else should see."""
    attributes = (registry.XOR_PEER_ADDRESS, peer), (registry.DATA, body)
    data = build(Method.SEND, MessageClass.INDICATION, bytes(12), attributes)
    padding = -len(body) & 3
    return data[: len(data) - padding] + b"\xde" * padding


class Half:
    """One of two clients of the same relay that talk to each other."""

    def __init__(self, client: HostClient, other: Address, *, channel: bool) -> None:
        self.client, self.other, self.has_channel = client, other, channel
        if channel:
            bind(client, other)
        else:
            client.sock.setblocking(False)
            permit = client.request(Method.CREATE_PERMISSION, (registry.XOR_PEER_ADDRESS, other))
            assert asyncio.run(permit).get(registry.ERROR_CODE) is None
            client.sock.settimeout(PATIENCE)

    def send(self, body: bytes) -> None:
        wrapped = channel_data(body) if self.has_channel else named(self.other, body)
        self.client.sock.send(wrapped)

    def hears(self, body: bytes) -> None:
        data = self.client.sock.recv(2048)
        if self.has_channel:
            assert data == channel_data(body)
            return
        message = parse_untrusted(data)
        assert message.get(registry.XOR_PEER_ADDRESS) == self.other
        assert message.get(registry.DATA) == body
        assert data[len(data) - (-len(body) & 3) :] == bytes(-len(body) & 3)


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("partial", [False, True], ids=["whole checksums", "partial checksums"])
@pytest.mark.parametrize("channels", [(True, True), (True, False), (False, False)])
def test_two_clients_of_one_relay_meet_in_the_kernel(
    three: Network,
    running: Relay,
    allocated: Allocated,
    ipv6: bool,
    partial: bool,
    channels: tuple[bool, bool],
):
    offloads(three, client=partial, segmentation=False)
    family = V6 if ipv6 else V4
    (one, (first,)), (two, (second,)) = (allocated(family, ipv6=ipv6) for _ in range(2))
    halves = Half(one, second, channel=channels[0]), Half(two, first, channel=channels[1])

    def talk(sizes: Iterable[int]) -> None:
        for size in sizes:
            for half, other in (halves, halves[::-1]):
                half.send(body(size))
                other.hears(body(size))

    talk([100] * 5)  # by user space; then both routes are worth the kernel
    wait_until(lambda: offloaded(running) == 2)
    before = carried(running)
    sizes = (1, 2, 3, 4, 5, 6, 7, 99, 1000, 1200, 1400)
    talk(sizes)
    assert carried(running) == before + 4 * len(sizes)  # from the one and to the other, both ways


def test_a_client_whose_permission_is_over_hears_nobody(
    three: Network, running: Relay, allocated: Allocated
):
    (one, (first,)), (two, (second,)) = allocated(), allocated()
    halves = Half(one, second, channel=True), Half(two, first, channel=True)
    for half, other in (halves, halves[::-1]) * WORTH:
        half.send(body(50))
        other.hears(body(50))
    running.settle()
    assert offloaded(running) == 2
    before = carried(running)
    two.sock.setblocking(False)
    two.do(two.request(Method.REFRESH, (registry.LIFETIME, 0)))
    two.sock.settimeout(0.2)
    halves[0].send(body(50))
    with pytest.raises(TimeoutError):
        two.sock.recv(2048)
    assert carried(running) == before


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4 to IPv6", "IPv6 to IPv4"])
def test_between_the_families_user_space_translates(
    three: Network, running: Relay, allocated: Allocated, ipv6: bool
):
    client, (relayed,) = allocated(V4 if ipv6 else V6, ipv6=ipv6)
    with three.peer.udp(ipv6=not ipv6) as peer:
        bind(client, Address(*peer.getsockname()[:2]))
        client.sock.send(channel_data(body(50)))
        assert peer.recv(2048) == body(50)
        peer.sendto(body(51), relayed)
        assert client.sock.recv(2048) == channel_data(body(51))
    assert (offloaded(running), carried(running)) == (0, 0)


def test_of_a_dual_allocation_the_kernel_takes_the_clients_own_family(
    three: Network, running: Relay, allocated: Allocated
):
    client, relayed = allocated((registry.ADDITIONAL_ADDRESS_FAMILY, 2))
    assert [":" in address.host for address in relayed] == [False, True]
    with three.peer.udp() as ipv4, three.peer.udp(ipv6=True) as ipv6:
        for channel, peer, ours in (
            (CHANNEL, ipv4, relayed[0]),
            (CHANNEL + 1, ipv6, relayed[1]),
        ):
            bind(client, Address(*peer.getsockname()[:2]), channel)
            before = carried(running)
            for number in range(WORTH):
                if number == WORTH - 2:
                    running.settle()
                client.sock.send(channel_data(body(60), channel))
                assert peer.recv(2048) == body(60)
                peer.sendto(body(61) + bytes(3), ours)
                assert client.sock.recv(2048) == channel_data(body(61) + bytes(3), channel)
            assert (carried(running) - before >= 4) == (peer is ipv4)
    assert offloaded(running) == 1


def test_a_tcp_client_stays_in_user_space(three: Network, running: Relay):
    async def play() -> None:
        client = HostClient(three.client, (three.server.ipv4, 3478))
        client.sock.close()
        with three.client.inside():
            await client.connect(3478, tcp=True, host=three.server.ipv4)
        relayed = await client.allocate()
        with three.peer.udp() as peer:
            address = Address(*peer.getsockname())
            await client.request(
                Method.CHANNEL_BIND,
                (registry.CHANNEL_NUMBER, CHANNEL),
                (registry.XOR_PEER_ADDRESS, address),
            )
            await client.send(channel_data(body(40)))
            assert peer.recv(2048) == body(40)
            peer.sendto(body(44), relayed)
            assert await client.receive() == channel_data(body(44))
        client.sock.close()

    asyncio.run(play())
    assert (offloaded(running), carried(running)) == (0, 0)


def test_what_the_policy_refuses_ends_at_once(three: Network, running: Relay, allocated: Allocated):
    client, (relayed,) = allocated()
    with three.peer.udp() as peer:
        bind(client, Address(*peer.getsockname()))
        for _ in range(WORTH):
            client.sock.send(channel_data(body(40)))
            assert peer.recv(2048) == body(40)
        running.settle()
        assert offloaded(running) == 1
        denied = running.service._settings.model_copy(
            update={"deny_peers": running.service._settings.allow_peers}
        )
        running.call(lambda: running.service.reload(denied))
        before = carried(running)
        for _ in range(3):
            client.sock.send(channel_data(body(40)))
            peer.sendto(body(40), relayed)
        peer.settimeout(0.2)
        with pytest.raises(TimeoutError):
            peer.recv(2048)
    assert (offloaded(running), carried(running)) == (0, before)
