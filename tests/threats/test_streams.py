"""TCP clients that hold on to us, or try to confuse where one message ends and the next begins."""

import asyncio
import socket
import ssl

import pytest

from config.certificate import self_signed
from tests.patience import PATIENCE, until
from tests.turn.live import UDP, Client, port_of, relay, settings
from turn.codec import registry
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address
from turn.stats import DropReason
from turn.transport.limits import ReplyLimit

GONE = (EOFError, ConnectionError)
"""How a client learns that the connection is closed."""


@pytest.fixture
def tls(tmp_path):
    """Settings of a relay that speaks TLS."""
    certificate, key = self_signed(["127.0.0.1"], tmp_path)
    return {
        "listen_tls": ["127.0.0.1:0"],
        "tls_certificate": str(certificate),
        "tls_key": str(key),
    }


async def chatter(client):
    """Send Binding indications for longer than a stranger has, and see whether it lives."""
    for _ in range(40):
        await client.send(b"\x00\x11\x00\x00\x21\x12\xa4\x42" + bytes(12))
        await asyncio.sleep(0.02)
    await client.receive()


@pytest.mark.parametrize("sent", [b"", b"\x00", b"\x00\x01\x00\x00\x21\x12"])
async def test_a_connection_that_does_not_come_to_the_point_is_closed(connect, sent):
    """Half-open and slow: each byte that trickles in buys no time."""
    async with relay(first_request_timeout=0.3) as service:
        client = await connect(port_of(service, "tcp"), tcp=True)
        await client.send(sent)
        with pytest.raises(GONE):
            await client.receive()
        assert service.stats.requests.total() == 0


async def test_messages_that_are_no_requests_buy_no_time(connect):
    """Indications get no reply, so they cost a liar nothing: they are no sign of life."""
    async with relay(first_request_timeout=0.3) as service:
        client = await connect(port_of(service, "tcp"), tcp=True)
        with pytest.raises(GONE):
            await chatter(client)


async def test_half_open_connections_do_not_keep_a_good_client_out(connect):
    """They come from many addresses; one that works is served at once beside them."""
    async with relay(max_unauthenticated_per_address=10) as service:
        port = port_of(service, "tcp")
        idle = []
        for number in range(300):
            sock = socket.socket()
            sock.setblocking(False)
            sock.bind((f"127.2.{number // 10}.1", 0))
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            idle.append(sock)
        client = await connect(port, tcp=True)
        await client.allocate()
        (listener,) = service._listeners._streams
        await until(lambda: len(listener.connections) == 301)
        for sock in idle:
            sock.close()


async def test_an_address_has_so_many_connections_that_proved_nothing(connect):
    """64 by default; asking is no proof, an allocation is."""
    async with relay(max_unauthenticated_per_address=3) as service:
        port = port_of(service, "tcp")
        strangers = [await connect(port, tcp=True) for _ in range(3)]
        for client in strangers:
            assert (await client.request(Method.BINDING)).message_class == MessageClass.SUCCESS
        over = await connect(port, tcp=True)
        with pytest.raises(GONE):
            await over.receive()
        assert service.stats.drops[DropReason.TOO_MANY_CONNECTIONS] == 1
        strangers[0].close()
        await until(lambda: service._listeners._stream_shared.strangers.open == 2)
        again = await connect(port, tcp=True)
        await again.allocate()
        more = await connect(port, tcp=True)
        assert (await more.request(Method.BINDING)).message_class == MessageClass.SUCCESS


async def test_a_tls_handshake_that_never_ends_is_cut(connect, tls):
    async with relay(first_request_timeout=0.3, **tls) as service:
        for sent in (b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
            client = await connect(port_of(service, "tls"), tcp=True)
            await client.send(sent)
            with pytest.raises(GONE):
                await client.receive()


async def test_tls_handshakes_are_of_an_addresss_share_of_strangers(connect, tls):
    """Else half-open TLS would be the door past the limit, and the most expensive one."""
    async with relay(max_unauthenticated_per_address=3, **tls) as service:
        port = port_of(service, "tls")
        for _ in range(3):
            await connect(port, tcp=True)
        over = await connect(port, tcp=True)
        with pytest.raises(GONE):
            await over.receive()
        await until(lambda: service.stats.drops[DropReason.TOO_MANY_CONNECTIONS] == 1)


async def test_one_address_makes_us_shake_so_many_hands_a_second(tls):
    """A handshake is the dearest thing that strangers can ask for, and each place comes free."""
    trust = ssl.create_default_context(cafile=tls["tls_certificate"])

    async def shake(port: int, source: str) -> bool:
        try:
            _, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=trust, local_addr=(source, 0)
            )
        except OSError:
            return False
        writer.transport.abort()
        return True

    async with relay(**tls, max_tls_handshakes_per_second=3) as service:
        port = port_of(service, "tls")
        limit, clock = service._listeners._stream_shared.handshakes, 1000.0
        with pytest.MonkeyPatch.context() as stopped:
            allow = limit.allow
            stopped.setattr(ReplyLimit, "allow", lambda _, host, __: allow(host, clock))
            assert [await shake(port, "127.3.0.1") for _ in range(5)] == [True] * 3 + [False] * 2
            assert await shake(port, "127.3.0.2")  # another one's share
            clock += 0.34
            assert [await shake(port, "127.3.0.1") for _ in range(2)] == [True, False]
        assert service.stats.drops == {DropReason.TOO_MANY_HANDSHAKES: 3}
        await until(lambda: not service._listeners._stream_shared.strangers.open)
        service.reload(settings(**tls, max_tls_handshakes_per_second=1000))
        assert [await shake(port, "127.3.0.3") for _ in range(5)] == [True] * 5


async def test_handshakes_that_fail_give_their_places_back(connect, tls):
    trust = ssl.create_default_context(cafile=tls["tls_certificate"])
    async with relay(max_unauthenticated_per_address=1, **tls) as service:
        port = port_of(service, "tls")
        strangers = service._listeners._stream_shared.strangers
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x00" * 40):
            client = await connect(port, tcp=True)
            await client.send(garbage)
            client.sock.shutdown(socket.SHUT_WR)
            await until(lambda: not strangers.open)
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
            writer.write(Client().encode(Method.BINDING))
            assert (await reader.readexactly(20))[:2] == b"\x01\x01"
            writer.close()
            await writer.wait_closed()
            await until(lambda: not strangers.open)


class TestLengths:
    """Length tricks: a length that lies must not shift where the next message is read."""

    @pytest.mark.parametrize("length", [65532, 65533, 65534, 65535])
    async def test_the_longest_messages_are_cut_out_exactly(self, connect, length):
        """Padding of the longest ChannelData reaches beyond 65,535."""
        async with relay() as service:
            client = await connect(port_of(service, "tcp"), tcp=True)
            await client.allocate()
            smuggled = client.encode(Method.REFRESH, (registry.LIFETIME, 0))
            payload = (smuggled * (length // len(smuggled) + 1))[:length]
            await client.send(
                b"\x40\x00" + length.to_bytes(2) + payload + bytes(-length & 3)
                + client.encode(Method.BINDING)
            )  # fmt: skip
            assert (await client.receive())[:2] == b"\x01\x01"
            assert service.ports_in_use == 1
            assert service.stats.drops == {DropReason.NO_CHANNEL: 1}

    async def test_a_message_inside_a_payload_is_a_payload(self, connect):
        """Smuggling: requests in what is relayed are nobody's requests."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            peer.settimeout(PATIENCE)
            async with relay() as service:
                client = await connect(port_of(service, "tcp"), tcp=True)
                await client.allocate()
                await client.request(
                    Method.CHANNEL_BIND,
                    (registry.CHANNEL_NUMBER, 0x4000),
                    (registry.XOR_PEER_ADDRESS, Address(*peer.getsockname())),
                )
                inner = client.encode(Method.REFRESH, (registry.LIFETIME, 0))
                await client.send(b"\x40\x00" + len(inner).to_bytes(2) + inner)
                await client.request(Method.BINDING)
                assert peer.recv(65536) == inner
                assert service.ports_in_use == 1

    @pytest.mark.parametrize(
        "bad",
        [
            pytest.param(b"\x00\x01\x00\x02" + bytes(40), id="no multiple of four"),
            pytest.param(b"\x00\x01\xff\xff" + bytes(40), id="no multiple of four, longest"),
            pytest.param(b"\x00\x01\x00\x00" + bytes(16), id="no cookie"),
            pytest.param(
                b"\x00\x01\x00\x08\x21\x12\xa4\x42" + bytes(12) + b"\x00\x06\xff\xff" + bytes(4),
                id="attribute beyond the message",
            ),
            pytest.param(b"\x16\x03\x01\x00\x05hello", id="TLS"),
            pytest.param(b"\xff" * 8, id="ones"),
        ],
    )
    async def test_what_is_no_message_closes_the_stream_without_a_word(self, connect, bad):
        """No way to find the next message; and no answer that a browser could be made to read."""
        async with relay() as service:
            client = await connect(port_of(service, "tcp"), tcp=True)
            await client.send(client.encode(Method.BINDING) + bad + client.encode(Method.BINDING))
            assert (await client.receive())[:2] == b"\x01\x01"
            with pytest.raises(GONE):
                await client.receive()
            assert service.stats.requests["binding", "tcp"] == 1
            assert service.stats.drops == {DropReason.MALFORMED: 1}

    @pytest.mark.parametrize("verb", [b"GET", b"POST", b"PUT", b"OPTIONS", b"CONNECT"])
    async def test_http_draws_no_reply(self, connect, verb):
        """A web page can send such a request to any port; it must read nothing from us."""
        async with relay() as service:
            client = await connect(port_of(service, "tcp"), tcp=True)
            await client.send(
                verb + b" / HTTP/1.1\r\nHost: x\r\n\r\n" + client.encode(Method.BINDING)
            )
            with pytest.raises(GONE):
                await client.receive()
            assert service.stats.requests.total() == 0

    async def test_a_stream_that_breaks_takes_its_allocation_with_it(self, connect):
        async with relay() as service:
            client = await connect(port_of(service, "tcp"), tcp=True)
            assert (await client.request(Method.ALLOCATE, UDP)).message_class == (
                MessageClass.SUCCESS
            )
            await client.send(b"\xff" * 8)
            await until(lambda: service.ports_in_use == 0)
            assert service.stats.allocations_closed == {"disconnected": 1}
