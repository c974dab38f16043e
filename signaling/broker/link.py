"""The link to Redis: one connection for scripts, one for wake-ups, both to the same server.

Scripts go out as they come and are answered in that order: nobody waits for anybody else's
round trip, and what one node asks is done in the order in which it was asked. What cannot wait
(the lease) goes first: however much there is to ask, it is behind no more than what is on its way.
When either connection fails, all that was asked and not answered is ``Unavailable``, and the
primary is looked for again.
"""

import asyncio
import math
import random
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any

import structlog
from redis.asyncio.connection import Connection
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)

from signaling.broker.base import Unavailable
from signaling.broker.primary import Finder, Unfit, ask, identify
from signaling.broker.scripts import load_scripts

log = structlog.get_logger("signaling.redis")

FIRST_DELAY, LONGEST_DELAY = 0.1, 1.0
"""Seconds before the first and the later tries to reconnect, before jitter."""
NOT_THE_ONE = (
    AskError, BusyLoadingError, ClusterDownError, MovedError, NoScriptError, ReadOnlyError,
    TryAgainError,
)  # fmt: skip
"""Replies by which a server says that it is not (or not yet) the one to ask."""
FIRST = frozenset({"enlist"})
"""Scripts that go before all that is not written yet: a node that has much to ask is not dead."""
FAREWELL = 0.5
"""Seconds until what was cancelled is cancelled again."""
MOST_AT_ONCE = 256
"""Scripts that are written together."""
MOST_ON_THE_WAY = 1024
"""Scripts that are written and not answered. Many times what fills the way there and back; the
lease is behind so many at most."""
FAILURES = (RedisError, OSError, TimeoutError, Unfit, Unavailable)


class Link:
    """Keeps itself open. Everything happens on one event loop."""

    def __init__(
        self,
        finder: Finder,
        prefix: str,
        node: str,
        limits: tuple[int, int, int],
        on_wake: Callable[[bytes], None],
        live: Callable[[], Awaitable[None]],
        *,
        webhooks: bool | None = False,
    ) -> None:
        """Prepare to connect.

        :param prefix: what every key begins with, hash tag included.
        :param limits: what every script is told: messages and bytes of a mailbox, ms of a key.
        :param on_wake: hears what is published to this node.
        :param live: runs while the link is open, and may end it by failing.
        :param webhooks: have the scripts keep what becomes of rooms and peers.
        """
        self._finder = finder
        self._tag = prefix
        self._header = (node, *limits)
        self._node = node
        self._on_wake = on_wake
        self._live = live
        self._scripts = load_scripts(webhooks=webhooks)
        self.run = ""
        """The run id of the server that it is, or was, open to."""
        self._prefix = ""
        self._open = False
        self._outgoing: deque[tuple[tuple[Any, ...], asyncio.Future[Any]]] = deque()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        """The answers to what was written, in that order."""
        self.answers = self.wakes = 0
        """How many answers and wake-ups have come."""
        self._more = asyncio.Event()
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._was_away = False
        self._at = finder.asked
        self._told: set[str] = set()

    async def start(self) -> None:
        """Begin to connect; returns when it was tried once."""
        self._task = asyncio.create_task(self._keep_open())
        await self._tried.wait()

    async def stop(self) -> None:
        """Close both connections."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def tried(self) -> None:
        """Whoever waits for the first try may go on; ``live`` says so when it is ready."""
        self._tried.set()
        if self._was_away:
            self._was_away = False
            log.warning("redis is back")

    async def call(self, script: str, *arguments: Any) -> Any:
        """Run a script; gives its reply. :raises Unavailable:"""
        if not self._open:
            raise Unavailable("Redis is away")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        asked = self._command(script, self._prefix, *arguments), answer
        if script in FIRST:
            self._outgoing.appendleft(asked)
        else:
            self._outgoing.append(asked)
        self._more.set()
        return await answer

    def _command(self, script: str, prefix: str, *arguments: Any) -> tuple[Any, ...]:
        return ("EVALSHA", self._scripts[script].sha, 1, prefix, *self._header, *arguments)

    # Inside --------------------------------------------------------------------------------

    async def _keep_open(self) -> None:
        delay = FIRST_DELAY
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._connect()
            except FAILURES as error:
                self._away(error)
            except Exception:  # a fault of ours must not end the link for good
                log.exception("the link to redis failed")
            self._tried.set()
            lasted = asyncio.get_running_loop().time() - began
            delay = FIRST_DELAY if lasted > 10 else min(delay * 2, LONGEST_DELAY)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load

    def _away(self, error: Exception) -> None:
        if not self._was_away:
            self._was_away = True
            log.error("redis is away", at=self._at, reason=str(error) or type(error).__name__)

    def _refused(self, reason: str) -> None:
        kind = reason.partition(" ")[0]  # one line a kind: a fault of every call is told once
        if kind not in self._told:
            self._told.add(kind)
            log.error("redis refuses a script", reason=reason)

    async def _connect(self) -> None:
        """Both connections from beginning to end. :raises FAILURES: one ended."""
        self._at = self._finder.asked
        host = await self._finder.find()
        self._at = str(host)
        name = f"icebroker-{self._node}"
        async with (
            self._finder.open(host, name) as scripts,
            self._finder.open(host, f"{name}-wake") as wakes,
        ):
            identity = await identify(scripts)
            if not identity.keeps:
                log.warning("redis may forget keys: set its maxmemory-policy to noeviction")
            for script in self._scripts.values():
                await ask(scripts, "SCRIPT", "LOAD", script.text)
            self.run = identity.run
            # Another generation is another world: data that may have been rolled back is not read.
            begin = self._command("generation", f"{self._tag}:", identity.run, secrets.token_hex(6))
            generation: bytes = await ask(scripts, *begin)
            self._prefix = f"{self._tag}:{generation.decode()}:"
            await ask(wakes, "SSUBSCRIBE", f"{self._prefix}n:{self._node}")
            try:
                self._open = True
                await _until_one_ends(
                    self._write(scripts), self._read(scripts), self._listen(wakes), self._live()
                )
            finally:
                self._close()

    def _close(self) -> None:
        self._open = False
        self._more.clear()
        for answer in [*self._waiting, *(answer for _, answer in self._outgoing)]:
            if not answer.done():
                answer.set_exception(Unavailable("Redis went away"))
        self._waiting.clear()
        self._outgoing.clear()

    async def _write(self, connection: Connection) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while batch := self._next():
                if not connection.is_connected:  # it would connect anew, to whomever
                    raise RedisConnectionError("the connection is closed")
                packed = connection.pack_commands(batch)
                try:
                    await connection.send_packed_command(packed, check_health=False)
                except RuntimeError as error:  # uvloop's word for a connection that was just reset
                    raise RedisConnectionError(str(error)) from None

    def _next(self) -> list[tuple[Any, ...]]:
        """What is written now; their answers are waited for from here on."""
        room = min(MOST_AT_ONCE, MOST_ON_THE_WAY - len(self._waiting), len(self._outgoing))
        batch = []
        for _ in range(room):
            command, answer = self._outgoing.popleft()
            batch.append(command)
            self._waiting.append(answer)
        return batch

    async def _read(self, connection: Connection) -> None:
        while True:
            reply: Any
            failure: Exception | None = None
            try:
                reply = await connection.read_response(disable_decoding=True, timeout=math.inf)
            except NOT_THE_ONE:
                raise
            except OutOfMemoryError:
                reply, failure = None, Unavailable("Redis is at its maxmemory")
            except ResponseError as error:
                self._refused(str(error))
                reply, failure = None, Unavailable("Redis refused a script")
            self.answers += 1
            answer = self._waiting.popleft()
            if self._outgoing and len(self._waiting) <= MOST_ON_THE_WAY - MOST_AT_ONCE:
                self._more.set()  # there is room for many at once again
            if answer.done():
                continue  # whoever asked does not wait any more
            if failure is None:
                answer.set_result(reply)
            else:
                answer.set_exception(failure)

    async def _listen(self, connection: Connection) -> None:
        while True:
            kind, _, data = await connection.read_response(disable_decoding=True, timeout=math.inf)
            self.wakes += 1
            if kind == b"smessage":
                self._on_wake(data)
            elif kind == b"sunsubscribe":  # our slot moved to another server
                raise RedisConnectionError("unsubscribed by the server")


async def _until_one_ends(*parts: Any) -> None:
    """Run all until one ends; then none runs any more. :raises Exception: what that one raised."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        await _end(tasks)


async def _end(tasks: Collection[asyncio.Future[Any]]) -> None:
    """Cancel until all are over: a library may swallow a cancellation, and the link must go on."""
    while tasks:
        for task in tasks:
            task.cancel()
        over, tasks = await asyncio.wait(tasks, timeout=FAREWELL)
        for task in over:
            with suppress(asyncio.CancelledError):
                task.exception()  # looked at, or asyncio complains of it
