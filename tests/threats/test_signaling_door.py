"""Who connects to signaling and asks for nothing, or for what makes no sense."""

import asyncio
import logging
import re
import socket
import struct

import pytest

from config.certificate import self_signed
from signaling import door
from tests.signaling.live import signaling, sockets
from tests.threats.half_open import half_a_hello
from tests.threats.test_signaling_frames import FIN, HELLO, PING, TEXT, frame, upgrade

ICE = b"GET /ice HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture
def hurried(monkeypatch):
    """Doors that wait no longer than a test does."""
    monkeypatch.setattr(door, "FIRST_REQUEST", 0.5)


def silent_at(service):
    """How many have connected and not asked for anything."""
    (site,) = service._runner.sites
    return site.silent.total()


class Caller:
    """Connects; hangs up in the end."""

    def __init__(self):
        self._writers = []

    async def __call__(self, service, source="127.0.0.1"):
        """A reader and a writer."""
        reader, writer = await asyncio.open_connection(
            *service.addresses[0], local_addr=(source, 0)
        )
        self._writers.append(writer)
        return reader, writer

    def close(self):
        """Hang up."""
        for writer in self._writers:
            writer.close()


@pytest.fixture
async def connected():
    caller = Caller()
    yield caller
    caller.close()


async def ended(reader):
    """Wait until the server hangs up; what it said before."""
    async with asyncio.timeout(5):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


@pytest.mark.parametrize("first", [b"", b"GET /ws HTTP/1.1\r\nHost: h\r\nX: "], ids=["", "half"])
async def test_who_asks_for_nothing_has_to_go(first, hurried, connected):
    """Descriptors: a connection is held by a request, not by the promise of one."""
    async with signaling() as service:
        held = [await connected(service) for _ in range(20)]
        for _, writer in held:
            writer.write(first)
        for _ in range(4):  # a byte now and then is no request either
            await asyncio.sleep(0.05)
            for _, writer in held:
                writer.write(first[-1:])
        for reader, _ in held:
            assert await ended(reader) == b""
        assert silent_at(service) == 0


async def test_one_address_has_a_share_of_silence(connected):
    """Whoever opens thousands of connections takes no other address's place, and not all of his."""
    async with signaling() as service:
        held = [await connected(service) for _ in range(door.LEAST_SILENT)]
        reader, _ = await connected(service)
        assert await ended(reader) == b""
        # Another address is served; and who asks is silent no more, and keeps the connection.
        for reader, writer in (await connected(service, "127.0.0.2"), held[0]):
            for _ in range(2):
                writer.write(ICE)
                head = await reader.readuntil(b"\r\n\r\n")
                assert b" 200 " in head
                (length,) = re.findall(rb"Content-Length: (\d+)", head)
                await reader.readexactly(int(length))
        assert silent_at(service) == door.LEAST_SILENT - 1


async def test_more_may_be_silent_where_more_may_be_without_a_hello(connected):
    """Else the setting that an operator raises, for a school or a storm, would change nothing."""
    async with signaling(max_unauthenticated_per_address=door.LEAST_SILENT + 2) as service:
        held = [await connected(service) for _ in range(door.LEAST_SILENT + 2)]
        reader, _ = await connected(service)
        assert await ended(reader) == b""
        _, writer = held[-1]
        writer.write(ICE)
        assert b" 200 " in await held[-1][0].readline()


async def test_a_proxy_of_ours_is_many(connected):
    """What comes by way of it is not one client's."""
    async with signaling(trusted_proxies=["127.0.0.1"]) as service:
        held = [await connected(service) for _ in range(door.LEAST_SILENT + 1)]
        _, writer = held[-1]
        writer.write(ICE)
        assert b" 200 " in await held[-1][0].readline()


async def test_who_was_gone_before_he_was_let_in_takes_no_place():
    """The socket of one that has been reset tells no address any more."""
    async with signaling() as service:
        (site,) = service._runner.sites
        assert isinstance(site, door.Door)
        for _ in range(2 * door.LEAST_SILENT):
            site.forget(site.let_in("") or "")
        assert silent_at(service) == 0


async def test_half_a_handshake_has_to_go(hurried, connected, tmp_path):
    certificate, key = self_signed(["127.0.0.1"], tmp_path)
    async with signaling(tls_certificate=str(certificate), tls_key=str(key)) as service:
        reader, writer = await connected(service)
        writer.write(half_a_hello())
        assert await ended(reader) == b""


@pytest.mark.parametrize(
    "nonsense",
    [b"GET /ice?token=sesame HTTP/1.1\r\nHost: h\r\nAuthorization : Bearer sesame\r\n\r\n",
     b"GET /ice HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer sesame\x00\r\n\r\n",
     b"GET /ice?token=sesame" + b"x" * 9000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
     b"\x16\x03\x01sesame\r\n\r\n"],
)  # fmt: skip
async def test_nonsense_is_not_quoted_in_the_log(nonsense, connected, caplog, capsys):
    """A token may be in it; and for whoever asks a line with a traceback would fill a disk."""
    caplog.set_level(logging.DEBUG)
    async with signaling() as service:
        reader, writer = await connected(service)
        writer.write(nonsense)
        answer = await ended(reader)
        assert b" 400 " in answer
        assert b"aiohttp" not in answer
    written = caplog.text + "".join(capsys.readouterr())
    assert "sesame" not in written
    assert "Traceback" not in written


@pytest.mark.parametrize("opcode", [PING, 0xA], ids=["ping", "pong"])
@pytest.mark.parametrize("first", [b"", frame(FIN | TEXT, HELLO)], ids=["before hello", "after"])
async def test_a_flood_of_control_frames_ends_the_socket(first, opcode):
    """A library that answers pings by itself answers any number of them, and nobody else."""
    async with signaling() as service, sockets(service) as connect:
        good = await connect()
        await good.hello()
        wire = await upgrade(service)
        wire.writer.write(first + frame(FIN | opcode, b"") * 2000)
        assert await wire.end() == 4504
        wire.writer.close()
        await good.say(type="ping", t=1)
        await good.hear("pong")


async def test_a_ping_is_answered_with_what_it_says():
    async with signaling() as service:
        for first in (b"", frame(FIN | TEXT, HELLO)):
            wire = await upgrade(service)
            wire.writer.write(first + frame(FIN | PING, b"x" * 125))
            async with asyncio.timeout(3):
                await wire.reader.readuntil(b"\x8a\x7d" + b"x" * 125)
            wire.writer.close()


async def test_who_pings_and_is_gone_is_no_error_of_ours(caplog):
    async with signaling() as service:
        for _ in range(5):
            wire = await upgrade(service)
            wire.writer.write(frame(FIN | TEXT, HELLO) + frame(FIN | PING, b"x" * 100) * 90)
            wire.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            await asyncio.sleep(0.01)
            wire.writer.close()
        async with sockets(service) as connect:
            await (await connect()).hello()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    "piece", [frame(0, b""), frame(FIN | 0xA, b"")], ids=["fragments", "pongs"]
)
async def test_frames_without_end_end_the_socket(piece):
    """A message that never ends is never counted, and its empty pieces take a processor to read."""
    async with signaling(max_messages_per_second=1, max_message_bytes=1024) as service:
        wire = await upgrade(service)
        wire.writer.write(frame(FIN | TEXT, HELLO) + frame(TEXT, b""))
        sent = 0
        try:
            while sent < 64 << 20:
                wire.writer.write(piece * 5000)
                sent += len(piece) * 5000
                await wire.writer.drain()
        except ConnectionError:
            pass
        wire.writer.close()
        # What the server takes, and what the kernel's buffers hold.
        assert sent < 32 << 20


async def test_messages_as_long_and_as_many_as_allowed_are_no_flood():
    async with signaling() as service, sockets(service) as connect:
        one = await connect()
        await one.hello()
        for number in range(95):
            await one.say(type="ping", t=number, x="x" * 65_000)
            await one.hear("pong")
