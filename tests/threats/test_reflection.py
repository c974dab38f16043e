"""Reflection: whoever forges a victim's address gets little sent there, and soon nothing.

Loopback has 16 million addresses, so that each test has its victims: 127.0.0.0/8.
"""

import asyncio
import socket
from contextlib import closing
from functools import partial

import pytest

from tests.patience import until
from tests.turn.live import UDP, Client, port_of, relay
from turn.codec import registry
from turn.codec.integrity import Integrity
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.stats import DropReason

LIMITS = {"max_unproved_replies_per_second": 20, "max_bindings_per_second": 50}


def victim(host):
    """A socket at an address that an attacker writes into his packets."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.setblocking(False)
    return sock


def heard(sock):
    """What has reached a victim."""
    found = []
    while True:
        try:
            found.append(sock.recv(65536))
        except BlockingIOError:
            return found


async def flood(service, socks, message, count):
    """Send from each socket, and wait until the relay has seen it all."""
    stats, port = service.stats, port_of(service)
    seen = stats.requests.total() + stats.drops.total() - stats.drops[DropReason.REPLY_LIMIT]
    for number in range(count):
        for sock in socks:
            sock.sendto(message, ("127.0.0.1", port))
        if number % 20 == 0:
            await asyncio.sleep(0)
    wanted = seen + count * len(socks)
    await until(
        lambda: (
            stats.requests.total() + stats.drops.total() - stats.drops[DropReason.REPLY_LIMIT]
            >= wanted
        )
    )


@pytest.mark.parametrize(("method", "most"), [(Method.ALLOCATE, 20), (Method.BINDING, 50)])
async def test_all_ports_of_a_victim_share_one_bucket(method, most):
    """From port to port of one address, as a reflector would be used against a whole host."""
    async with relay(**LIMITS) as service:
        socks = [victim("127.0.9.1") for _ in range(20)]
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await flood(service, socks, Client().encode(method), 20)
        replies = [reply for sock in socks for reply in heard(sock)]
        gained = most * (loop.time() - begin) + 1
        assert most <= len(replies) <= most + gained
        assert service.stats.drops[DropReason.REPLY_LIMIT] == 400 - len(replies)
        for sock in socks:
            sock.close()


async def test_one_victims_flood_does_not_silence_us_to_another():
    """Else the limit itself would be the way to deny service to everybody."""
    async with relay(**LIMITS) as service:
        with closing(victim("127.0.9.2")) as flooded, closing(victim("127.0.9.3")) as other:
            await flood(service, [flooded], Client().encode(Method.BINDING), 200)
            await flood(service, [other], Client().encode(Method.BINDING), 40)
            assert len(heard(other)) == 40


async def test_who_proved_himself_is_served_while_his_address_is_flooded(connect):
    """An attacker who forges a client's address cannot cut the client off from its allocation."""
    async with relay(**LIMITS) as service:
        client = await connect(port_of(service))
        await client.allocate()
        with closing(victim("127.0.0.1")) as forged:
            await flood(service, [forged], Client().encode(Method.ALLOCATE), 200)
            assert len(heard(forged)) < 100
        for _ in range(50):
            reply = await client.request(Method.REFRESH)
            assert reply.message_class == MessageClass.SUCCESS


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\x00\x01\x00\x00" + bytes(16), id="no magic cookie"),
        pytest.param(Client().encode(Method.BINDING) + bytes(4), id="bytes behind the end"),
        pytest.param(Client().encode(Method.BINDING)[:19], id="cut off"),
        pytest.param(b"\x00\x16\x00\x00\x21\x12\xa4\x42" + bytes(12), id="Send indication"),
        pytest.param(b"\x01\x01\x00\x00\x21\x12\xa4\x42" + bytes(12), id="Binding response"),
        pytest.param(b"\x01\x13\x00\x00\x21\x12\xa4\x42" + bytes(12), id="Allocate error"),
        pytest.param(b"\x00\x0d\x00\x00\x21\x12\xa4\x42" + bytes(12), id="method nobody has"),
        pytest.param(b"\x40\x00\x00\x04evil", id="ChannelData"),
        pytest.param(b"\x16\xfe\xfd" + bytes(50), id="DTLS"),
        pytest.param(b"\x80" * 50, id="RTP"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_what_is_no_request_draws_no_reply(message):
    """Responses that answer responses could keep two servers busy with each other for ever."""
    async with relay(**LIMITS) as service:
        with closing(victim("127.0.9.4")) as sock:
            await flood(service, [sock], message, 5)
            await flood(service, [sock], Client().encode(Method.BINDING), 1)
            assert len(heard(sock)) == 1  # to the Binding that came last


async def test_no_reply_to_a_stranger_is_much_longer_than_his_request():
    """Every failure that an unproved request can draw: at most 100 bytes more than it cost."""
    unknown = b"".join(number.to_bytes(2) + b"\x00\x00" for number in range(0x7000, 0x7100))
    many = bytearray(Client().encode(Method.BINDING)) + unknown
    many[2:4] = len(unknown).to_bytes(2)
    sign = partial(
        build, Method.ALLOCATE, MessageClass.REQUEST, bytes(12), key=bytes(16),
        integrity=Integrity.SHA1,
    )  # fmt: skip
    name = (registry.USERNAME, "a")
    others = (name, (registry.REALM, "r"), (registry.NONCE, "n"))
    requests = [
        Client().encode(Method.BINDING),
        Client().encode(Method.ALLOCATE),
        Client().encode(Method.ALLOCATE, UDP),
        Client().encode(Method.REFRESH),
        bytes(many),
        sign(attributes=(name,)),
        sign(attributes=others),
    ]
    async with relay() as service:
        with closing(victim("127.0.9.5")) as sock:
            for request in requests:
                await flood(service, [sock], request, 1)
                (reply,) = heard(sock)
                assert len(reply) <= len(request) + 100
                error = parse_untrusted(reply).get(registry.ERROR_CODE)
                assert error is None or len(error[1]) <= 20


async def test_padding_carries_nothing_out():
    """What stands behind an attribute's value is zero, not what our memory held before."""
    async with relay(realm="r") as service:
        with closing(victim("127.0.9.6")) as sock:
            await flood(service, [sock], Client().encode(Method.ALLOCATE), 1)
            (reply,) = heard(sock)
            place = reply.index(b"\x00\x14\x00\x01r")
            assert reply[place + 5 : place + 8] == bytes(3)
