"""Quotas and retransmissions: nobody gets more than his share, and what is given comes back."""

import time

import pytest

from tests.patience import until
from tests.turn.live import UDP, port_of, relay
from turn.auth.credentials import long_term_key
from turn.auth.ephemeral import mint
from turn.codec import registry
from turn.codec.message import parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address

SECRET = "a secret of thirty-two characters"
END = (registry.LIFETIME, 0)


def code_of(reply):
    return (reply.get(registry.ERROR_CODE) or (0, ""))[0]


def sign_in(client, name, ttl):
    """Give a client a time-limited credential, as signaling mints them."""
    client.username, password = mint(SECRET, name, int(time.time()) + ttl)
    client.key = long_term_key(client.username, "icebroker", password)


async def allocate(client):
    return code_of(await client.request(Method.ALLOCATE, UDP))


async def test_a_user_has_his_share_whatever_his_credentials_expiry(connect):
    """Each fresh credential is another username; the quota is the person's."""
    async with relay(secret=SECRET, max_allocations_per_user=3) as service:
        codes = []
        for number in range(5):
            client = await connect(port_of(service))
            sign_in(client, "ada", 600 + number)
            codes.append(await allocate(client))
        other = await connect(port_of(service))
        sign_in(other, "bob", 600)
        assert codes == [0, 0, 0, 486, 486]
        assert await allocate(other) == 0
        assert service.stats.quota_rejections == {"user": 2}


@pytest.mark.parametrize(
    ("limits", "code", "quota"),
    [
        ({"max_allocations_per_user": 3}, 486, "user"),
        ({"max_allocations_per_address": 3}, 486, "address"),
        ({"max_allocations": 3}, 508, "total"),
        ({"relay_ports": "20500-20502"}, 508, "ports"),
    ],
)
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
async def test_a_share_is_had_once_and_comes_back_whole(connect, limits, code, quota, tcp):
    """However an allocation ends: a refused one, too, must not have taken a port or a unit."""
    async with relay(**limits) as service:
        port = port_of(service, "tcp" if tcp else "udp")
        for ending in ("asked", "gone" if tcp else "asked", "asked"):
            clients = [await connect(port, tcp=tcp) for _ in range(5)]
            assert [await allocate(client) for client in clients] == [0, 0, 0, code, code]
            assert service.ports_in_use == 3
            for client in clients:
                if ending == "asked":
                    await client.request(Method.REFRESH, END)
                client.close()
            await until(lambda: service.ports_in_use == 0)
        assert service.stats.quota_rejections == {quota: 6}


async def test_a_reserved_port_is_of_the_quota_and_comes_back_too(connect):
    """EVEN-PORT with a reservation holds a second port: it counts, used or not."""
    async with relay(max_allocations_per_user=2) as service:
        one, two = await connect(port_of(service)), await connect(port_of(service))
        reply = await one.request(Method.ALLOCATE, UDP, (registry.EVEN_PORT, True))
        assert code_of(reply) == 0
        assert service.ports_in_use == 2
        assert await allocate(two) == 486
        token = (registry.RESERVATION_TOKEN, reply.get(registry.RESERVATION_TOKEN))
        assert code_of(await two.request(Method.ALLOCATE, UDP, token)) == 0
        for client in (one, two):
            await client.request(Method.REFRESH, END)
        assert service.ports_in_use == 0
        assert await allocate(one) == 0


async def test_permissions_are_bounded_and_all_or_none(connect):
    """64 peers by default, each one a filter entry; not a relay for a port scan."""
    async with relay(max_permissions=4) as service:
        client = await connect(port_of(service))
        await client.allocate()

        async def permit(*numbers):
            peers = [Address(f"127.0.0.{number}", 9) for number in numbers]
            attributes = [(registry.XOR_PEER_ADDRESS, peer) for peer in peers]
            return code_of(await client.request(Method.CREATE_PERMISSION, *attributes))

        assert await permit(1, 2, 3) == 0
        assert await permit(3, 4, 5) == 508
        assert await permit(4) == 0
        assert await permit(5) == 508
        assert await permit(1, 2, 3, 4) == 0
        assert service.stats.quota_rejections == {"permissions": 2}
        (allocation,) = service._engine.table
        assert len(allocation.permissions) == 4


async def test_channels_are_bounded(connect):
    async with relay(max_channels=2) as service:
        client = await connect(port_of(service))
        await client.allocate()
        codes = [
            code_of(
                await client.request(
                    Method.CHANNEL_BIND,
                    (registry.CHANNEL_NUMBER, 0x4000 + number),
                    (registry.XOR_PEER_ADDRESS, Address("127.0.0.1", 1000 + number)),
                )
            )
            for number in (0, 1, 2, 0, 3)
        ]
        assert codes == [0, 0, 508, 0, 508]
        assert service.stats.quota_rejections == {"channels": 2}


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
async def test_a_retransmission_is_answered_alike_and_done_once(connect, tcp):
    """Lost replies, or somebody who repeats a recorded packet: one port, one unit, one reply."""
    async with relay(max_allocations_per_user=1) as service:
        client = await connect(port_of(service, "tcp" if tcp else "udp"), tcp=tcp)
        await client.request(Method.REFRESH)
        request = client.encode(Method.ALLOCATE, UDP)
        replies = set()
        for _ in range(10):
            await client.send(request)
            replies.add(await client.receive())
        assert len(replies) == 1
        assert parse_untrusted(replies.pop()).message_class == MessageClass.SUCCESS
        assert service.ports_in_use == 1
        assert service.stats.allocations_created.total() == 1
        end = client.encode(Method.REFRESH, END)
        for _ in range(10):
            await client.send(end)
            replies.add(await client.receive())
        assert len(replies) == 1
        assert parse_untrusted(replies.pop()).message_class == MessageClass.SUCCESS
        assert service.stats.allocations_closed == {"released": 1}
        assert await allocate(client) == 0


async def test_a_recorded_request_is_worth_nothing_from_another_address(connect):
    """The reply is kept for the five-tuple, and the nonce is of the address."""
    async with relay() as service:
        client, other = await connect(port_of(service)), await connect(port_of(service))
        await client.request(Method.REFRESH)
        request = client.encode(Method.ALLOCATE, UDP)
        for one in (client, other):
            await one.send(request)
        first, second = [await one.receive() for one in (client, other)]
        assert first != second  # the same user on another port of the same host
