"""Whatever a server answers, the doctor ends with a report."""

import asyncio
import random
from typing import Any

import pytest

from tests.doctor.lab import PASSWORD, USER
from tests.turn.live import port_of, relay
from turn.admin.journal import Journal
from turn.codec.errors import Malformed
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass
from turn.doctor import reach
from turn.doctor.examine import Options, examine
from turn.doctor.report import Section, Status
from turn.doctor.target import Credentials, parse_url

OPTIONS = Options(Credentials(USER, PASSWORD), load=False, patience=0.2)
NUMBERS = (0x0009, 0x0014, 0x0015, 0x0016, 0x0020, 0x0013, 0x0012, 0x8022, 0x802C, 0x8002)


class Babbler(asyncio.DatagramProtocol):
    """A server that answers with the right transaction, and nonsense in it."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        try:
            asked = parse_untrusted(data)
        except Malformed:
            return
        kind = self._random.choice([MessageClass.SUCCESS, MessageClass.ERROR])
        reply = bytearray(build(asked.method, kind, asked.transaction_id, ()))
        for _ in range(self._random.randrange(4)):
            value = self._random.randbytes(self._random.choice([0, 1, 4, 8, 20]))
            number = self._random.choice(NUMBERS)
            reply += number.to_bytes(2) + len(value).to_bytes(2) + value + bytes(-len(value) % 4)
        reply[2:4] = (len(reply) - 20).to_bytes(2)
        self._transport.sendto(bytes(reply), addr)


async def test_who_got_no_allocation_gives_none_back() -> None:
    journal = Journal()
    journal.switch(on=True)
    async with relay(journal.tell) as service:
        await service.drain(0)
        options = OPTIONS._replace(credentials=Credentials("alice", "pw"))
        section = await examine(parse_url(f"turn:127.0.0.1:{port_of(service)}"), options)
    assert section.of(Status.FAIL)
    # An operator who reads why clients are refused finds nothing that is the doctor's own doing.
    assert [event.facts["code"] for event in journal.refusals()] == [508]


@pytest.mark.parametrize("seed", range(12))
async def test_nonsense_over_udp(seed: int) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: Babbler(seed), local_addr=("127.0.0.1", 0)
    )
    port = transport.get_extra_info("sockname")[1]
    try:
        section = await examine(parse_url(f"turn:127.0.0.1:{port}"), OPTIONS)
    finally:
        transport.close()
    assert section.of(Status.FAIL)


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x00\x01", bytes(64),
     b"SSH-2.0-OpenSSH_9.2\r\n", b"\x40\x00\xff\xff"],
)  # fmt: skip
async def test_nonsense_over_tcp(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        section = await examine(parse_url(f"turn:127.0.0.1:{port}?transport=tcp"), OPTIONS)
    (failed,) = section.of(Status.FAIL)
    assert failed.check == "stun"


async def test_an_address_of_the_name_where_nothing_answers() -> None:
    section = Section("turn:relay.example.org")
    target = parse_url("turn:relay.example.org:9?transport=tcp")
    await reach.try_other(section, target, "127.0.0.1", 1)
    (warning,) = section.findings
    assert (warning.check, warning.status) == ("ipv4", Status.WARN)
    assert "relay.example.org is also 127.0.0.1, where nothing answers" in warning.says
