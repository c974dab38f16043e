"""Everything that clients can do wrong to a node, each from an address that has few others."""

import asyncio
import base64
import contextlib
import itertools
import json
import secrets
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from signaling.auth import Tokens
from tests.threats.forged import FORGED, SECRET

ROOM = 50
"""Stalled readers in a room, with one member who keeps writing to them."""
AN_ADDRESS = 15
"""Sockets of one address, which may have twenty that have not said hello."""
ORIGINS = [
    "https://evil.example", "http://app.example.org", "https://app.example.org:8443",
    "https://app.example.org.evil.example", "https://evil.example/app.example.org",
    "https://app.example.org@evil.example", "https://xapp.example.org",
    "https://sub.app.example.org", "https://example.org", "null", "file://",
    "https://app.example.org, https://evil.example",
]  # fmt: skip
ALLOWED = "https://app.example.org"


def token(room: str) -> str:
    """A good one."""
    return Tokens([SECRET]).mint({"room": room, "exp": time.time() + 600})


def frame(text: bytes, length: int | None = None) -> bytes:
    """A masked text frame, of whatever length it says (RFC 6455 §5.2)."""
    size = len(text) if length is None else length
    if size < 126:
        head = struct.pack("!BB", 0x81, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x81, 0xFE, size)
    else:
        head = struct.pack("!BBQ", 0x81, 0xFF, size)
    return head + bytes(4) + text


class Crowd:
    """Sockets of many addresses to one node, and what they came to."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._numbers = itertools.count()
        self._forged, self._origins = itertools.cycle(FORGED.values()), itertools.cycle(ORIGINS)
        self._writers: list[asyncio.StreamWriter] = []
        self.answers: Counter[str] = Counter()
        """Of handshakes, by status."""
        self.codes: Counter[int] = Counter()
        """With which the server closed sockets; 0: without a word."""

    # One of each kind ----------------------------------------------------------------------

    async def silent(self, _: int) -> None:
        """Who never says hello."""
        await self.open()

    async def stalled(self, number: int) -> None:
        """Who is in a room and never reads what it is told there."""
        room = f"stalled {number // ROOM}"
        _, writer = await self.open({"token": token(room)}, small=True)
        writer.write(frame(json.dumps({"type": "join", "id": "1", "room": room}).encode()))

    async def noisy(self, number: int) -> None:
        """Who keeps writing to those."""
        room = f"stalled {number}"
        await asyncio.sleep(number / 20)  # clients keep no step with each other
        reader, writer = await self.open({"token": token(room)})
        writer.write(frame(json.dumps({"type": "join", "id": "1", "room": room}).encode()))
        reading = asyncio.ensure_future(self._end(reader))
        for request in itertools.count():
            if reading.done():
                return
            text = {"type": "message", "id": f"m{request}", "data": "x" * 8000}
            writer.write(frame(json.dumps(text).encode()))
            await asyncio.sleep(1)

    async def flood(self) -> None:
        """Who writes a thousand messages at once."""
        reader, writer = await self.open({"token": token("flood")})
        writer.write(frame(b'{"type":"ping","t":1}') * 1000)
        self.codes[await self._end(reader)] += 1

    async def long_header(self) -> None:
        """Who announces a message of four exbibytes."""
        reader, writer = await self.open({"token": token("long")})
        writer.write(frame(b"", length=1 << 62))
        self.codes[await self._end(reader)] += 1

    async def forge(self) -> None:
        """Who has a token that is none of ours."""
        reader, _ = await self.open({"token": next(self._forged)})
        self.codes[await self._end(reader)] += 1

    async def cross_site(self) -> None:
        """A page of another site."""
        _, writer = await self.open(origin=next(self._origins))
        writer.close()

    @property
    def had_enough(self) -> bool:
        """Whether each was turned away as it should be: every origin, every token, some floods."""
        return (
            self.answers["403"] >= len(ORIGINS)
            and self.codes[4503] >= len(FORGED)
            and self.codes[4504] > 0
            and self.codes[1009] > 0
        )

    # Inside --------------------------------------------------------------------------------

    async def open(
        self, hello: dict[str, object] | None = None, *, origin: str = "", small: bool = False
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A WebSocket. :param small: its side takes in very little."""
        place = next(self._numbers) // AN_ADDRESS
        made = socket.socket()
        if small:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.setblocking(False)
        made.bind((f"127.{1 + place // 40_000}.{place // 200 % 200}.{2 + place % 200}", 0))
        try:
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", self._port))
            reader, writer = await asyncio.open_connection(sock=made, limit=4096)
        except BaseException:  # cancelled, as the crowd is in the end
            made.close()
            raise
        self._writers.append(writer)
        lines = [
            "GET /ws HTTP/1.1", f"Host: 127.0.0.1:{self._port}", "Upgrade: websocket",
            "Connection: Upgrade", "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(secrets.token_bytes(16)).decode()}",
        ]  # fmt: skip
        lines += [f"Origin: {origin}"] if origin else []
        writer.write("\r\n".join([*lines, "", ""]).encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).split(maxsplit=2)[1].decode()
        self.answers[answer] += 1
        if answer == "101" and hello is not None:
            writer.write(frame(json.dumps({"type": "hello", **hello}).encode()))
        return reader, writer

    async def _end(self, reader: asyncio.StreamReader) -> int:
        """Read until the server closes; its code."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                first, second = await reader.readexactly(2)
                size = second & 0x7F
                if size == 126:
                    size = int.from_bytes(await reader.readexactly(2))
                body = await reader.readexactly(size)
                if first & 0xF == 8:
                    return int.from_bytes(body[:2])
        return 0

    def close(self) -> None:
        """All go without a word."""
        for writer in self._writers:
            writer.transport.abort()


async def many(count: int, one: Callable[[int], Awaitable[None]], at_once: int = 100) -> None:
    """Do something so many times, a few at a time."""
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(some() for _ in range(at_once)))


async def keep(doing: Callable[[], Awaitable[None]]) -> None:
    """Do something again and again, whatever becomes of it."""
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await doing()
        await asyncio.sleep(0.05)
