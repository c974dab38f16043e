"""DTLS with real sockets: cookies before state, sessions, and their end (RFC 6347, RFC 7350)."""

import asyncio
import secrets
import socket
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest
from OpenSSL import SSL

from config.certificate import self_signed
from tests.patience import PATIENCE, until
from tests.turn.live import Client, port_of, relay
from tests.turn.peers import udp_peer
from tests.turn.secure import DtlsClient
from turn.codec import registry
from turn.codec.message import parse_untrusted
from turn.codec.registry import Method
from turn.codec.values import Address
from turn.stats import DropReason
from turn.transport.dtls import COOKIE_LIFETIME, datagrams_of
from turn.transport.limits import ReplyLimit
from turn.transport.listeners import ListenError


@pytest.fixture
def dtls(tmp_path):
    certificate, key = self_signed(["127.0.0.1"], tmp_path)
    return {
        "listen_dtls": ["127.0.0.1:0"],
        "tls_certificate": str(certificate),
        "tls_key": str(key),
    }


@pytest.fixture
async def clients():
    made: list[DtlsClient] = []

    async def make(service):
        made.append(DtlsClient())
        return await made[-1].connect(port_of(service, "dtls"))

    yield make
    for client in made:
        client.close()


def sessions_of(service):
    listeners = service._listeners._datagram.values()
    return next(listener for listener in listeners if listener.protocol == "dtls")


async def test_a_whole_relay_over_dtls(clients, dtls):
    loop = asyncio.get_running_loop()
    async with relay(**dtls) as service:
        client = await (await clients(service)).shake()
        await client.allocate()
        with udp_peer() as peer:
            await client.request(
                Method.CHANNEL_BIND,
                (registry.CHANNEL_NUMBER, 0x4000),
                (registry.XOR_PEER_ADDRESS, Address(*peer.getsockname())),
            )
            for size in (0, 1, 1200, 9000):
                await client.send(b"\x40\x00" + size.to_bytes(2) + bytes(size))
                data, source = await asyncio.wait_for(loop.sock_recvfrom(peer, 10000), PATIENCE)
                assert data == bytes(size)
                await loop.sock_sendto(peer, data, source)
                assert await client.receive() == b"\x40\x00" + size.to_bytes(2) + bytes(size)
        assert service.stats.allocations_created["dtls", "ipv4"] == 1


async def test_who_has_not_returned_the_cookie_leaves_nothing(clients, dtls):
    async with relay(**dtls) as service:
        for _ in range(50):
            stranger = await clients(service)
            hello = stranger.first_flight()
            await Client.send(stranger, hello)
            answer = await Client.receive(stranger)
            assert answer[13] == 3, "HelloVerifyRequest"
            assert len(answer) < len(hello), "no amplification"
        assert len(sessions_of(service)) == 0
        await (await clients(service)).shake()


async def test_a_cookie_is_good_for_one_address(clients, dtls):
    async with relay(**dtls) as service:
        one, two = await clients(service), await clients(service)
        await Client.send(one, one.first_flight())
        one.connection.bio_write(await Client.receive(one))
        with_cookie = one.first_flight()
        await Client.send(two, with_cookie)
        assert (await Client.receive(two))[13] == 3
        assert len(sessions_of(service)) == 0
        await Client.send(one, with_cookie)
        await until(lambda: len(sessions_of(service)) == 1)


async def test_a_cookie_is_good_for_a_while(clients, dtls):
    """Else who once had an address, or many, could have us shake hands with who has it now."""
    clock = time.monotonic()
    with pytest.MonkeyPatch.context() as stopped:
        stopped.setattr("turn.transport.dtls.time", SimpleNamespace(monotonic=lambda: clock))
        async with relay(**dtls) as service:
            for later, is_good in ((0.9 * COOKIE_LIFETIME, True), (2.1 * COOKIE_LIFETIME, False)):
                client = await clients(service)
                await Client.send(client, client.first_flight())
                client.connection.bio_write(await Client.receive(client))
                clock += later
                await Client.send(client, client.first_flight())
                kind = (await Client.receive(client))[13]
                assert kind == (2 if is_good else 3), "ServerHello, or another cookie"
            assert len(sessions_of(service)) == 1


async def test_one_address_makes_us_shake_so_many_hands_a_second(clients, dtls):
    """With a cookie each costs as much as over TLS, and a port may begin anew again and again."""
    async with relay(**dtls, max_tls_handshakes_per_second=3) as service:
        limit, clock, sessions = (
            service._listeners._stream_shared.handshakes, 1000.0, sessions_of(service)._sessions,
        )  # fmt: skip
        client = await clients(service)
        await Client.send(client, client.first_flight())
        client.connection.bio_write(await Client.receive(client))
        hello = client.first_flight()
        source = client.sock.getsockname()

        async def begins_anew() -> bool:
            before = sessions.get(source)
            refused = service.stats.drops[DropReason.TOO_MANY_HANDSHAKES]
            await Client.send(client, hello[:27] + secrets.token_bytes(32) + hello[59:])
            now = service.stats.drops
            await until(
                lambda: (
                    sessions.get(source) is not before
                    or now[DropReason.TOO_MANY_HANDSHAKES] > refused
                )
            )
            return sessions.get(source) is not before

        with pytest.MonkeyPatch.context() as stopped:
            allow = ReplyLimit.allow
            stopped.setattr(ReplyLimit, "allow", lambda each, host, _: allow(each, host, clock))
            assert limit.cost == 1 / 3
            assert [await begins_anew() for _ in range(5)] == [True] * 3 + [False] * 2
            clock += 0.34
            assert [await begins_anew() for _ in range(2)] == [True, False]


async def test_the_cookies_are_within_the_share_of_strangers(clients, dtls):
    async with relay(**dtls, max_unproved_replies_per_second=3) as service:
        client = await clients(service)
        hello = client.first_flight()
        for _ in range(10):
            await Client.send(client, hello)
        await until(lambda: service.stats.drops[DropReason.REPLY_LIMIT] >= 6)


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\x16", b"\x16\xfe\xff" + bytes(60), bytes(100), b"\x16\xfe\xff\0\0" + b"\xff" * 90,
     b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12), b"\x17\xfe\xfd\0\1" + bytes(50)],
)  # fmt: skip
async def test_garbage_is_dropped_and_the_next_client_is_served(clients, dtls, garbage):
    async with relay(**dtls) as service:
        stranger = await clients(service)
        if garbage:
            await Client.send(stranger, garbage)
        client = await (await clients(service)).shake()
        await client.allocate()
        await Client.send(client, garbage or b"x")  # in the middle of a session, too
        reply = await client.request(Method.REFRESH)
        assert not reply.has(registry.ERROR_CODE)


@pytest.mark.parametrize("behind", [b"\x17" * 20_000, None], ids=["garbage", "another hello"])
async def test_what_is_behind_a_long_hello_is_not_the_next_clients(clients, dtls, behind):
    """All first flights go through one connection: nothing of one may be left for another."""
    async with relay(**dtls) as service:
        stranger = await clients(service)
        hello = stranger.first_flight()
        more = hello.ljust(16384 + 13, b"\0") + (behind or hello + hello)
        for _ in range(3):
            await Client.send(stranger, more)
        client = await clients(service)
        await Client.send(client, client.first_flight())
        client.connection.bio_write(await Client.receive(client))
        with pytest.raises(SSL.WantReadError):
            client.connection.do_handshake()
        (second,) = datagrams_of(client.connection)
        await Client.send(client, second)
        await until(lambda: len(sessions_of(service)) == 1)


async def test_who_has_let_go_of_an_allocation_is_a_stranger_again(clients, dtls):
    async with relay(**dtls, max_unauthenticated_per_address=2) as service:
        made = []
        for _ in range(3):
            made.append(await (await clients(service)).shake())
            await made[-1].allocate()
        for client in made:
            assert not (await client.request(Method.REFRESH, (registry.LIFETIME, 0))).has(
                registry.ERROR_CODE
            )
        await until(lambda: len(sessions_of(service)) == 2)
        assert service.stats.drops[DropReason.TOO_MANY_CONNECTIONS] == 1
        await made[0].allocate()
        service._engine.close_all()
        sessions_of(service).tick()
        assert len(sessions_of(service)) == 2
        assert service._listeners._stream_shared.strangers.open == 2


class Full:
    """A socket whose buffer is full."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def sendto(self, _: bytes, __: object) -> int:
        raise BlockingIOError

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)


async def test_a_reply_that_the_kernel_does_not_take_ends_no_session(clients, dtls):
    """A full buffer of the socket, which all clients share, would end calls at the worst moment."""
    async with relay(**dtls) as service:
        client = await (await clients(service)).shake()
        await client.allocate()
        (session,) = sessions_of(service)._sessions.values()
        sock, session._sock = session._sock, Full(session._sock)
        again = client.encode(Method.REFRESH)
        await client.send(again)
        await until(lambda: service.stats.drops == {DropReason.SEND_FAILED: 1})
        session._sock = sock
        await client.send(again)
        assert not parse_untrusted(await client.receive()).has(registry.ERROR_CODE)
        assert service.ports_in_use == 1


async def test_a_handshake_goes_on_where_a_flight_of_ours_is_lost(clients, dtls):
    async with relay(**dtls) as service:
        client = await clients(service)
        await Client.send(client, client.first_flight())
        client.connection.bio_write(await Client.receive(client))
        listener = sessions_of(service)
        sock, listener._sock = listener._sock, Full(listener._sock)
        await Client.send(client, client.first_flight())
        await until(lambda: len(listener) == 1)
        listener._sock = sock
        (session,) = listener._sessions.values()
        session._sock = sock
        await asyncio.sleep(1.1)  # OpenSSL waits so long before it sends a flight again
        listener.tick()
        await client.shake()
        await client.allocate()


async def test_a_client_that_says_goodbye_takes_its_allocation_with_it(clients, dtls):
    async with relay(**dtls) as service:
        client = await (await clients(service)).shake()
        await client.allocate()
        assert service.ports_in_use == 1
        client.connection.shutdown()
        await client.flush()
        await until(lambda: service.ports_in_use == 0)
        assert len(sessions_of(service)) == 0


async def test_a_client_that_begins_anew_on_its_port_is_let_in(clients, dtls):
    async with relay(**dtls) as service:
        client = await (await clients(service)).shake()
        await client.allocate()
        again = DtlsClient()
        again.sock, again._framer = client.sock, None
        again.begin_anew()
        await again.shake()
        await again.allocate()
        assert len(sessions_of(service)) == 1


async def test_a_client_that_gives_up_in_the_middle_may_begin_anew_on_its_port(clients, dtls):
    async with relay(**dtls) as service:
        client = await clients(service)
        await client.prove_address()
        with suppress(TimeoutError):
            while await Client.receive(client, 0.1):
                pass  # nobody is there any more to hear of it
        assert len(sessions_of(service)) == 1
        client.begin_anew()
        await asyncio.wait_for(client.shake(), PATIENCE)
        await client.allocate()
        assert len(sessions_of(service)) == 1


async def test_a_hello_that_comes_twice_ends_no_session(clients, dtls):
    """Networks do that, and whoever has recorded it can: its cookie is good for a while."""
    async with relay(**dtls) as service:
        client = await clients(service)
        hello = await client.prove_address()
        await client.shake()
        await client.allocate()
        (session,) = sessions_of(service)._sessions.values()
        for _ in range(3):
            await Client.send(client, hello)
        assert not (await client.request(Method.REFRESH)).has(registry.ERROR_CODE)
        assert [*sessions_of(service)._sessions.values()] == [session]


async def test_a_forged_hello_ends_no_session(clients, dtls):
    async with relay(**dtls) as service:
        client = await (await clients(service)).shake()
        await client.allocate()
        await Client.send(client, (await clients(service)).first_flight())
        while (await Client.receive(client))[0] != 22:
            pass
        reply = await client.request(Method.REFRESH)
        assert not reply.has(registry.ERROR_CODE)


async def test_a_handshake_that_stalls_and_a_session_without_a_purpose_end(clients, dtls):
    async with relay(**dtls, first_request_timeout=60) as service:
        client = await clients(service)
        await client.prove_address()
        await until(lambda: len(sessions_of(service)) == 1)
        sessions_of(service).tick()
        (session,) = sessions_of(service)._sessions.values()
        session.created -= 60
        sessions_of(service).tick()
        assert len(sessions_of(service)) == 0


async def test_strangers_of_one_address_are_bounded(clients, dtls):
    async with relay(**dtls, max_unauthenticated_per_address=2) as service:
        for _ in range(2):
            await (await clients(service)).shake()
        third = await clients(service)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(third.shake(), 0.5)
        assert service.stats.drops[DropReason.TOO_MANY_CONNECTIONS] >= 1


async def test_binding_works_without_an_allocation(clients, dtls):
    async with relay(**dtls) as service:
        client = await (await clients(service)).shake()
        await client.send(client.encode(Method.BINDING))
        reply = parse_untrusted(await client.receive())
        mapped = reply.get(registry.XOR_MAPPED_ADDRESS)
        assert mapped == Address(*client.sock.getsockname())


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([], b""),
        ([b"stun.turn"], b"stun.turn"),
        ([b"h2", b"stun.nat-discovery"], b"stun.nat-discovery"),
        ([b"h2"], b""),
    ],
)
async def test_a_protocol_may_be_asked_for_by_name(dtls, offered, chosen):
    async with relay(**dtls) as service:
        context = SSL.Context(SSL.DTLS_CLIENT_METHOD)
        if offered:
            context.set_alpn_protos(offered)
        client = await DtlsClient().connect(port_of(service, "dtls"), context=context)
        await client.shake()
        assert client.connection.get_alpn_proto_negotiated() == chosen
        await client.allocate()
        client.close()


async def test_a_port_that_another_has_for_udp_is_no_start(dtls):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        with pytest.raises(ListenError, match=rf"127.0.0.1:{port} \(dtls\)"):
            async with relay(**dtls | {"listen": [], "listen_dtls": [f"127.0.0.1:{port}"]}):
                pass
