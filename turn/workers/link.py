"""A link between the pool and a worker: messages, and descriptors beside them.

```
length of the body 4 | descriptors that come with it 1 | body (MessagePack, ``messages``)
```
Over a Unix stream socket: the descriptors of a message arrive with its first byte, or before, and
those of two never together. A process that may open no more files has them lost on the way: then
the message comes without any, and whoever takes it refuses what was asked for.
"""

import array
import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec
import structlog

log = structlog.get_logger("turn")

HEAD = struct.Struct("!IB")
READ_BYTES = 1 << 16
MOST_DESCRIPTORS = 4
"""Of one message."""
LARGEST = 256 << 20
"""A snapshot of 65,536 allocations is far below."""
FLUSH_LOOK = 0.01
"""Seconds between looks whether it is done."""
QUIET = 60.0
"""Seconds between two lines of the log about lost descriptors."""

Received = Callable[[msgspec.Struct, list[int]], None]
"""Takes a message and its descriptors, which it owns: all of them, or none where they were lost."""


class Link:
    """One end."""

    def __init__(
        self,
        sock: socket.socket,
        decoder: msgspec.msgpack.Decoder[msgspec.Struct],
        received: Received,
        lost: Callable[[], None],
    ) -> None:
        """Take over a connected socket.

        :param decoder: what the other end may say.
        :param lost: called once, when the other end is gone or talks nonsense.
        """
        sock.setblocking(False)
        self._sock = sock
        self._decoder = decoder
        self._received = received
        self._lost = lost
        self._buffer = bytearray()
        self._descriptors: deque[list[int]] = deque()
        """Of each message that brings some; empty where they were lost."""
        self._unsent: deque[tuple[memoryview, Sequence[int]]] = deque()
        self._open = True
        self._complained = -QUIET
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._read)

    def send(self, message: msgspec.Struct, descriptors: Sequence[int] = ()) -> None:
        """Send a message; nothing happens where the other end is gone.

        :param descriptors: sent as copies: the caller keeps its own, and may close them at once.
            Where none can be made, the message goes without.
        """
        if not self._open:
            return
        body = msgspec.msgpack.encode(message)
        copies = self._copies(descriptors)
        self._unsent.append((memoryview(HEAD.pack(len(body), len(copies)) + body), copies))
        if len(self._unsent) == 1:
            self._write()

    async def flush(self) -> None:
        """Wait until everything is sent, or the other end is gone."""
        while self._open and self._unsent:  # noqa: ASYNC110 - the last thing that it does
            await asyncio.sleep(FLUSH_LOOK)

    async def end(self, patience: float) -> None:
        """Wait until everything is read that the other end has sent: it has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._open:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(FLUSH_LOOK)

    def close(self) -> None:
        """End it; ``lost`` is not called any more."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
            for _, copies in self._unsent:
                _close(copies)
            for found in self._descriptors:
                _close(found)

    def _copies(self, descriptors: Sequence[int]) -> list[int]:
        copies: list[int] = []
        try:
            copies.extend(map(os.dup, descriptors))
        except OSError:
            _close(copies)
            self._complain()
            return []
        return copies

    def _write(self) -> None:
        try:
            while self._unsent:
                data, copies = self._unsent[0]
                sent = (
                    socket.send_fds(self._sock, [data], copies)
                    if copies
                    else (self._sock.send(data))
                )
                _close(copies)
                if sent == len(data):
                    self._unsent.popleft()
                else:
                    self._unsent[0] = (data[sent:], ())
        except BlockingIOError:
            self._loop.add_writer(self._sock, self._write)
        except OSError:
            self._end()
        else:
            self._loop.remove_writer(self._sock)

    def _read(self) -> None:
        try:
            data = self._receive()
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        self._buffer += data
        try:
            while self._open and self._take():
                pass
        except (msgspec.MsgspecError, ValueError):
            self._end()

    def _receive(self) -> bytes:
        found = array.array("i")
        room = socket.CMSG_SPACE(MOST_DESCRIPTORS * found.itemsize)
        data, ancillary, flags, _ = self._sock.recvmsg(READ_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found.frombytes(content[: len(content) - len(content) % found.itemsize])
        lost = flags & socket.MSG_CTRUNC  # the kernel has closed what it could not hand over
        if lost:
            _close(found)
            self._complain()
        if found or lost:
            self._descriptors.append([] if lost else list(found))
        return data

    def _take(self) -> bool:
        """Take one message out of what was read, if it is whole. :raises ValueError: nonsense."""
        if len(self._buffer) < HEAD.size:
            return False
        length, count = HEAD.unpack_from(self._buffer)
        if length > LARGEST or count > MOST_DESCRIPTORS:
            raise ValueError("no message of ours")
        end = HEAD.size + length
        if len(self._buffer) < end:
            return False
        if count and (not self._descriptors or len(self._descriptors[0]) not in {0, count}):
            raise ValueError("descriptors are missing")
        message = self._decoder.decode(bytes(self._buffer[HEAD.size : end]))
        del self._buffer[:end]
        self._received(message, self._descriptors.popleft() if count else [])
        return True

    def _complain(self) -> None:
        """Say that descriptors were lost, and what to do; not for each."""
        now = self._loop.time()
        if now - self._complained >= QUIET:
            self._complained = now
            log.error(
                "a socket is lost between workers: too many open files; allow more "
                "(LimitNOFILE=, or ulimit -n), or set turn.max_allocations"
            )

    def _end(self) -> None:
        if self._open:
            self.close()
            self._lost()


def _close(descriptors: Sequence[int] | deque[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
