"""TCP and TLS on one port: the first byte of a client says which it is."""

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Any

import pytest

from config.certificate import self_signed
from tests.interop.process import free_port
from tests.patience import PATIENCE, until
from tests.turn.codec.test_proxy import header
from tests.turn.live import relay
from tests.turn.secure import TlsClient
from turn.codec import registry
from turn.codec.message import parse_untrusted
from turn.codec.registry import Method
from turn.server import TurnService
from turn.stats import DropReason

GONE = (EOFError, ConnectionResetError)
ALERT = bytes.fromhex("15 03 01 00 02 02 46")
"""Of TLS: it is no version that the server speaks (RFC 8446 §6.2)."""
PROXY = "127.0.0.9"
BINDING = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + b"transaction."


@pytest.fixture(name="both")
def both_fixture(tmp_path) -> dict[str, Any]:
    """Settings of a relay with one port for both."""
    certificate, key = self_signed(["127.0.0.1"], tmp_path)
    place = [f"127.0.0.1:{free_port()}"]
    files = {"tls_certificate": str(certificate), "tls_key": str(key)}
    return {"listen": [], "listen_tcp": place, "listen_tls": place, **files}


def the_port(service: TurnService) -> int:
    """That of both."""
    tls, tcp = service.addresses
    assert (tls.protocol, tcp.protocol, tls.port) == ("tls", "tcp", tcp.port)
    return tls.port


async def rest(client) -> bytes:
    """What a client still gets."""
    found, loop = b"", asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE):
        try:
            while data := await loop.sock_recv(client.sock, 1000):
                found += data
        except ConnectionResetError:
            pass
    return found


async def served(connect, port: int) -> None:
    """Ask, again where the connection is closed, until there is an answer."""
    async with asyncio.timeout(PATIENCE):
        while True:
            client = await connect(port, tcp=True)
            with suppress(*GONE):
                await client.request(Method.BINDING)
                return


async def shake_hands(port: int, times: int) -> None:
    """Connect by TLS, and go."""
    for _ in range(times):
        (await TlsClient().connect(port)).close()


async def test_each_client_is_served_as_it_begins(connect, both):
    async with relay(**both) as service:
        port = the_port(service)
        plain, secure = await connect(port, tcp=True), await TlsClient().connect(port)
        for client in (plain, secure):
            await client.allocate()
        assert service.stats.allocations_created == {("tcp", "ipv4"): 1, ("tls", "ipv4"): 1}
        secure.close()
        plain.close()
        await until(lambda: service.ports_in_use == 0)


async def test_a_message_that_comes_in_pieces(connect, both):
    async with relay(**both) as service:
        client = await connect(the_port(service), tcp=True)
        for byte in client.encode(Method.BINDING):
            await client.send(bytes((byte,)))
        assert (await client.receive())[:2] == b"\x01\x01"


@pytest.mark.parametrize("garbage", [b"\x16" * 40, b"\x16\x03\x01\x00\x05hello"])
async def test_what_only_begins_like_tls_is_closed(connect, both, garbage):
    async with relay(**both) as service:
        client = await connect(the_port(service), tcp=True)
        await client.send(garbage)
        assert await rest(client) in (b"", ALERT)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x80" * 40, b"\x17\x03\x03" * 9])
async def test_anything_else_is_for_tcp_and_closed_without_a_word(connect, both, garbage):
    async with relay(**both) as service:
        client = await connect(the_port(service), tcp=True)
        await client.send(garbage)
        assert not await rest(client)
        assert service.stats.drops[DropReason.MALFORMED] == 1


async def test_who_says_nothing_or_goes_is_forgotten(connect, both):
    settings = both | {"first_request_timeout": 0.2, "max_unauthenticated_per_address": 2}
    async with relay(**settings) as service:
        port = the_port(service)
        silent, gone = [await connect(port, tcp=True) for _ in range(2)]
        gone.close()
        with pytest.raises(GONE):
            await silent.receive()
        await served(connect, port)  # there is room again


async def test_strangers_who_say_nothing_count(connect, both):
    async with relay(**both, max_unauthenticated_per_address=2) as service:
        port = the_port(service)
        silent = [await connect(port, tcp=True) for _ in range(2)]
        third = await connect(port, tcp=True)
        with pytest.raises(GONE):
            await third.receive()
        assert service.stats.drops[DropReason.TOO_MANY_CONNECTIONS] == 1
        silent[0].close()
        await served(connect, port)


async def test_only_tls_costs_handshakes(connect, both):
    async with relay(**both, max_tls_handshakes_per_second=1) as service:
        port = the_port(service)
        for _ in range(30):
            await (await connect(port, tcp=True)).request(Method.BINDING)
        assert not service.stats.drops[DropReason.TOO_MANY_HANDSHAKES]
        (await TlsClient().connect(port)).close()
        with pytest.raises((OSError, ssl.SSLError)):
            await shake_hands(port, 30)
        assert service.stats.drops[DropReason.TOO_MANY_HANDSHAKES]


@pytest.mark.parametrize("secure", [False, True])
async def test_a_proxy_brings_both(both, secure):
    async with relay(**both, proxy_protocol_from=[f"{PROXY}/32"]) as service:
        sock = socket.socket()
        sock.bind((PROXY, 0))
        sock.connect(("127.0.0.1", the_port(service)))
        sock.sendall(header(kind=0x11))
        trust = ssl.create_default_context(cafile=both["tls_certificate"])
        how: dict[str, Any] = {"ssl": trust, "server_hostname": "127.0.0.1"} if secure else {}
        reader, writer = await asyncio.open_connection(sock=sock, **how)
        writer.write(BINDING)
        reply = parse_untrusted(await reader.readexactly(32))
        assert reply.get(registry.XOR_MAPPED_ADDRESS) == ("192.0.2.7", 40000)
        writer.close()


async def test_a_relay_that_stops_leaves_nobody_waiting(connect, both):
    async with relay(**both) as service:
        client = await connect(the_port(service), tcp=True)
        await asyncio.sleep(0.05)
    with pytest.raises(GONE):
        await client.receive()
