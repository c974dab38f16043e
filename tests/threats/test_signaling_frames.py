"""WebSocket frames as no client sends them (RFC 6455 §5): the socket ends, nobody else notices.

The frames are written byte by byte over TCP, because no library would send them.
"""

import asyncio
import struct
import tracemalloc

import pytest

from tests.patience import PATIENCE
from tests.signaling.live import signaling, sockets

MASK = bytes(4)
"""Of zeros: the payload stays readable."""
TEXT, BINARY, PING, FIN, MASKED = 0x1, 0x2, 0x9, 0x80, 0x80
HELLO = b'{"type":"hello"}'


def frame(first, payload, *, length=None):
    """A masked frame whose header may claim another ``length`` than the payload has."""
    size = len(payload) if length is None else length
    if size < 126:
        head = struct.pack("!BB", first, MASKED | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, MASKED | 126, size)
    else:
        head = struct.pack("!BBQ", first, MASKED | 127, size)
    return head + MASK + payload


class Wire:
    """One WebSocket, past its handshake."""

    def __init__(self, reader, writer, handshake):
        self.reader, self.writer, self.handshake = reader, writer, handshake

    async def end(self):
        """The close code that the server sends; None where the connection just ends."""
        async with asyncio.timeout(PATIENCE):
            try:
                while True:
                    first, second = await self.reader.readexactly(2)
                    size = second & 0x7F
                    if size == 126:
                        size = int.from_bytes(await self.reader.readexactly(2))
                    payload = await self.reader.readexactly(size)
                    if first & 0xF == 8:
                        return int.from_bytes(payload[:2])
            except (asyncio.IncompleteReadError, ConnectionError):
                return None

    async def pour(self, most):
        """Send zeros until the server hangs up; gives how many bytes it took."""
        sent = 0
        try:
            while sent < most:
                self.writer.write(bytes(65536))
                async with asyncio.timeout(PATIENCE):
                    await self.writer.drain()
                sent += 65536
        except ConnectionError:
            pass
        return sent


async def upgrade(service):
    """Open a WebSocket by hand, offering compression."""
    host, port = service.addresses[0]
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(
        f"GET /ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: icebroker.v1\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n".encode()
    )
    return Wire(reader, writer, (await reader.readuntil(b"\r\n\r\n")).decode().lower())


@pytest.fixture
async def service():
    async with signaling(max_message_bytes=4096) as running:
        yield running


@pytest.fixture(params=[False, True], ids=["before hello", "after hello"])
async def wire(service, request):
    """A socket that is about to misbehave."""
    opened = await upgrade(service)
    if request.param:
        opened.writer.write(frame(FIN | TEXT, HELLO))
    yield opened
    opened.writer.close()


async def assert_others_are_served(service):
    async with sockets(service) as connect:
        one = await connect()
        await one.hello()
        await one.say(type="ping", t=1)
        assert (await one.hear("pong"))["t"] == 1


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(frame(FIN | TEXT, b"x" * 5000), id="too long"),
        pytest.param(
            frame(TEXT, b"x" * 3000) + frame(0, b"x" * 3000) + frame(FIN, b"x"),
            id="too long in pieces",
        ),
    ],
)
async def test_a_message_over_the_limit_ends_the_socket(service, wire, bad):
    """Memory: neither one frame nor many small ones add up to more than the limit."""
    wire.writer.write(bad)
    assert await wire.end() == 1009
    await assert_others_are_served(service)


@pytest.mark.parametrize(
    "length", [70_000, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1], ids=hex
)
async def test_a_length_of_64_bits_buys_no_memory(service, wire, length):
    """A header that announces 2^63 bytes: nothing is set aside, little is taken in."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        wire.writer.write(frame(FIN | TEXT, b"", length=length))
        taken = await wire.pour(64 << 20)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 16 << 20  # what the kernel's buffers held
    assert after - before < 2 << 20
    await assert_others_are_served(service)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(frame(FIN | 0x40 | TEXT, b"hello"), id="compressed"),
        pytest.param(frame(FIN | 0x20 | TEXT, b"hello"), id="reserved bit"),
        pytest.param(frame(FIN | 0x3, b"hello"), id="unknown opcode"),
        pytest.param(frame(FIN | PING, b"x" * 126), id="long control frame"),
        pytest.param(frame(PING, b"x"), id="control frame in pieces"),
        pytest.param(frame(FIN, b"x"), id="continues nothing"),
        pytest.param(frame(TEXT, b"x") + frame(FIN | TEXT, b"x"), id="begins anew in the middle"),
        pytest.param(frame(FIN | TEXT, b"\xff\xfe"), id="not UTF-8"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", id="HTTP again"),
    ],
)
async def test_a_frame_that_is_none_ends_the_socket(service, wire, bad):
    """Whatever a parser could be confused by: the socket ends with the protocol's own code."""
    wire.writer.write(bad)
    assert await wire.end() in {1002, 1007}
    await assert_others_are_served(service)
    assert service.stats.disconnects["not_text"] == 0


async def test_binary_frames_end_the_socket(service, wire):
    """There is one form of message, and it is text."""
    wire.writer.write(frame(FIN | BINARY, b"x"))
    assert await wire.end() == 4506


async def test_compression_is_not_agreed_to(service):
    """A few bytes that inflate to gigabytes cannot come in, and secrets are not compressed."""
    wire = await upgrade(service)
    assert "101 switching protocols" in wire.handshake
    assert "sec-websocket-extensions" not in wire.handshake
    wire.writer.close()


async def test_the_length_is_of_bytes_and_not_of_letters(service):
    """A limit in characters would let four times as many bytes in."""
    wire = await upgrade(service)
    wire.writer.write(frame(FIN | TEXT, "\N{SNOWMAN}".encode() * 1400))
    assert await wire.end() == 1009
    wire.writer.close()
