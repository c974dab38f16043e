"""Clients for the signaling bench: WebSockets that cost next to nothing, in icebroker.v1 or PeerJS.

They check what they get no further than counting needs; that it is right is the tests' business.
"""

import asyncio
import gc
import json
import random
import struct
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import uvloop

from signaling.client import LONGEST_DELAY
from tests.bench.running import OURS, OURS_PEERJS, THEIRS

CANDIDATE = {
    "candidate": "candidate:842163049 1 udp 1677729535 203.0.113.7 46154 typ srflx raddr 0.0.0.0 "
    "rport 0 generation 0 ufrag EsAw network-cost 999",
    "sdpMid": "0",
    "sdpMLineIndex": 0,
}
ACK_EVERY = 16
"""As our browser client has it."""
PATIENCE = 60.0
ASK_AGAIN = 0.2


class Socket(asyncio.Protocol):
    """A WebSocket over a bare TCP connection."""

    def __init__(self, target: str, headers: str, heard: Callable[[bytes], None]) -> None:
        self._request = f"GET {target} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\n"
        self._request += "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        self._request += f"Sec-WebSocket-Version: 13\r\n{headers}\r\n"
        self._heard = heard
        self._buffer = b""
        self._upgraded = False
        self._out: list[bytes] = []
        self.transport: asyncio.Transport | None = None
        self.opened = asyncio.get_running_loop().create_future()
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Ask for the upgrade."""
        self.transport = transport
        transport.write(self._request.encode())

    def connection_lost(self, _: Exception | None) -> None:
        """Say so."""
        for future in (self.opened, self.closed):
            if not future.done():
                future.set_result(False)

    def data_received(self, data: bytes) -> None:
        """Hand on every text frame that is whole."""
        data = self._buffer + data
        at = 0
        if not self._upgraded:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            self._upgraded = data.startswith(b"HTTP/1.1 101")
            at = end + 4
            self.opened.set_result(self._upgraded)
        while len(data) - at >= 2:
            length, head = data[at + 1], 2
            if length == 126:
                length, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
            elif length == 127:
                length, head = int.from_bytes(data[at + 2 : at + 10], "big"), 10
            if len(data) - at < head + length:
                break
            opcode = data[at] & 15
            if opcode == 1:
                self._heard(data[at + head : at + head + length])
            elif opcode == 9:
                self.send(data[at + head : at + head + length], 10)
            at += head + length
        self._buffer = data[at:]

    def send(self, payload: bytes, opcode: int = 1) -> None:
        """Send a frame; its mask is zero, so that masking it costs the generator nothing."""
        size = len(payload)
        length = struct.pack(">B", size | 128) if size < 126 else struct.pack(">BH", 254, size)
        if not self._out:  # what one turn of the loop brings goes out together
            asyncio.get_running_loop().call_soon(self._flush)
        self._out += (bytes((128 | opcode,)), length, b"\0\0\0\0", payload)

    def _flush(self) -> None:
        assert self.transport is not None
        self.transport.write(b"".join(self._out))
        self._out.clear()


async def dial(
    url: str, headers: str, heard: Callable[[bytes], None], delay: float = 0.0
) -> Socket:
    """Open a WebSocket; a busy server is asked again.

    :param delay: seconds before the first try, and doubled before each further one, less up to a
        half; 0: at once, and then at a steady rate.
    :raises OSError: nobody listens.
    :raises TimeoutError: it stays busy.
    """
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE):
        pause = delay
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            _, socket = await loop.create_connection(
                lambda: Socket(target, headers, heard), parts.hostname or "", parts.port or 0
            )
            if await socket.opened:
                return socket
            pause = min(2 * pause, LONGEST_DELAY) if delay else ASK_AGAIN


class Caller:
    """One end of a pair. ``start`` may be called when both are ready."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.received = 0
        self.delays: list[float] = []
        """Seconds from sending to receiving, where ``paced`` messages were sent."""
        self.socket: Socket | None = None
        self.ready = asyncio.get_running_loop().create_future()
        self.answering = False
        """Whether each message that comes is answered with another one."""

    async def open(self, room: str) -> None:
        """Connect, and be where the other one is."""
        raise NotImplementedError

    def say(self) -> None:
        """Send one message to the other one."""
        raise NotImplementedError

    def _got(self, sent: float) -> None:
        self.received += 1
        self.delays.append(time.perf_counter() - sent)
        if self.answering:
            self.say()


class IcebrokerCaller(Caller):
    """Speaks icebroker.v1, acknowledgements and all."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._number = 0
        self._seq = 0
        self.other = ""
        self.session: dict[str, Any] = {}
        self.welcomed = asyncio.get_running_loop().create_future()

    async def open(self, room: str) -> None:
        """Connect and join a room of two."""
        await self.begin()
        await self.welcomed
        self._tell({"type": "join", "id": "join", "room": room})
        await self.ready

    async def begin(self, delay: float = 0.0) -> None:
        """Connect, and go on with the session where there was one. :param delay: as of ``dial``."""
        self.welcomed = asyncio.get_running_loop().create_future()
        headers = "Sec-WebSocket-Protocol: icebroker.v1\r\n"
        self.socket = await dial(self.url, headers, self._heard, delay)
        hello: dict[str, Any] = {"type": "hello"}
        if self.session:
            hello["resume"] = {**self.session, "seq": self._seq}
        self._tell(hello)

    def say(self) -> None:
        self._number += 1
        assert self.socket is not None
        self.socket.send(
            b'{"type":"signal","id":"%d","to":"%s","candidate":%s}'
            % (self._number, self.other.encode(), _body())
        )

    def _tell(self, message: dict[str, Any]) -> None:
        assert self.socket is not None
        self.socket.send(json.dumps(message).encode())

    def _heard(self, frame: bytes) -> None:
        if frame.startswith(b'{"type":"signal"'):
            self._seq += 1
            if self._seq % ACK_EVERY == 0:
                assert self.socket is not None
                self.socket.send(b'{"type":"ack","seq":%d}' % self._seq)
            self._got(_when(frame))
        elif not frame.startswith(b'{"type":"ok"'):
            self._other_frame(json.loads(frame))

    def _other_frame(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        self._seq = message.get("seq", self._seq)
        if kind == "welcome":
            self.session = {"session": message["session"], "secret": message["secret"]}
            self.welcomed.set_result(message["resumed"])
        elif kind in {"joined", "peer"}:
            for peer in message.get("peers", [message]):
                if peer.get("event", "join") == "join":
                    self.other = peer["id"]
            if self.other and not self.ready.done():
                self.ready.set_result(True)
        else:
            assert kind in {"pong", "goaway", "ice"}, message


class PeerJsCaller(Caller):
    """Speaks as the PeerJS client 1.5 does."""

    def __init__(self, url: str, name: str, other: str) -> None:
        super().__init__(f"{url}?key=peerjs&id={name}&token=t{name}&version=1.5.5")
        self._head = b'{"type":"CANDIDATE","dst":"%s","payload":{"candidate":' % other.encode()

    async def open(self, room: str) -> None:
        """Connect; whom to send to is known beforehand."""
        del room
        self.socket = await dial(self.url, "", self._heard)
        await self.ready

    def say(self) -> None:
        assert self.socket is not None
        self.socket.send(self._head + _body() + b',"type":"data","connectionId":"dc_k2m7x9q4w1"}}')

    def _heard(self, frame: bytes) -> None:
        if b'"CANDIDATE"' in frame:
            self._got(_when(frame))
        elif b'"OPEN"' in frame and not self.ready.done():
            self.ready.set_result(True)
        else:
            assert b'"OPEN"' in frame, frame


def url_of(port: int, name: str) -> str:
    """Where a server is. :param name: what is spoken there."""
    paths = {OURS: "/ws", OURS_PEERJS: "/peerjs/peerjs", THEIRS: "/peerjs"}
    return f"ws://127.0.0.1:{port}{paths[name]}"


async def open_pairs(name: str, port: int, pairs: int, tag: str = "p") -> list[Caller]:
    """Callers of so many pairs, ready to talk."""
    url = url_of(port, name)
    callers: list[Caller] = []
    for number in range(pairs):
        if name == OURS:
            callers += [IcebrokerCaller(url), IcebrokerCaller(url)]
        else:
            a, b = f"{tag}{number}a", f"{tag}{number}b"
            callers += [PeerJsCaller(url, a, b), PeerJsCaller(url, b, a)]
    await in_steps([partial(c.open, f"{tag}{n // 2}") for n, c in enumerate(callers)], 100)
    return callers


async def in_steps(jobs: Sequence[Callable[[], Any]], at_once: int) -> list[Any]:
    """Do jobs, no more than so many at a time."""
    slots = asyncio.Semaphore(at_once)

    async def one(job: Callable[[], Any]) -> Any:
        async with slots:
            return await job()

    return await asyncio.gather(*map(one, jobs))


def run(work: Any) -> Any:
    """Run a coroutine on a loop that costs little."""
    gc.collect()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


_TAIL = json.dumps(CANDIDATE, separators=(",", ":")).encode()[1:]


def _body() -> bytes:
    """A candidate that says when it was sent."""
    return b'{"usernameFragment":"%.6f",' % time.perf_counter() + _TAIL


def _when(frame: bytes) -> float:
    at = frame.index(b'"usernameFragment":"') + 20
    return float(frame[at : frame.index(b'"', at)])
