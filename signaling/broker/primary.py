"""Finding the Redis server that holds our keys, and making sure that it may be relied on.

Whatever the URL names, there is one such server at a time: a plain one, the primary that the
Sentinels have agreed on, or the owner of our hash slot in a Cluster. No redirect is followed:
when it is no longer the one, the link to it ends and it is looked for again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from config.redis import RedisAddress, RedisHost, RedisTls

OLDEST = (7, 0)
"""The first version with sharded pub/sub and the script flags that we use."""
DIAL_TIMEOUT = 3.0
"""Seconds until a server that is asked while the link opens counts as away."""


class Unfit(Exception):
    """A server that cannot be used; the text says what to change."""


class Identity(NamedTuple):
    """What a server says of itself."""

    run: str
    """Another one after each of its starts."""
    keeps: bool
    """Whether it rather refuses a write than forgets a key."""


class Finder:
    """Finds and opens the primary."""

    def __init__(self, address: RedisAddress, tag: str, tls: RedisTls) -> None:
        """Prepare to look.

        :param tag: a key with our hash tag; in a Cluster its slot's owner is the primary.
        """
        self._address = address
        self._slot = key_slot(tag.encode())
        files = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
        self._tls: dict[str, Any] = dict(zip(files, tls, strict=True))
        self._tls["ssl_password"] = ""  # or OpenSSL would ask a terminal for it

    @property
    def asked(self) -> str:
        """Whom the URL names: for people, without secrets."""
        return ", ".join(map(str, self._address.hosts))

    async def find(self) -> RedisHost:
        """Where the primary is now.

        :raises RedisError, OSError: nobody could be asked.
        :raises Unfit: whoever was asked does not know.
        """
        if self._address.kind == "plain":
            return self._address.hosts[0]
        failure: Exception = Unfit("nobody answers")
        for host in self._address.hosts:
            try:
                if self._address.kind == "sentinel":
                    return await self._ask_sentinel(host)
                return await self._ask_cluster(host)
            except (RedisError, OSError, TimeoutError, Unfit) as error:
                failure = error
        raise failure

    @asynccontextmanager
    async def open(self, host: RedisHost, name: str) -> AsyncIterator[Connection]:
        """An open connection, with our credentials and database. :raises RedisError, OSError:"""
        async with self._dial(host, name, self._credentials(), self._address.database) as opened:
            yield opened

    def _credentials(self) -> dict[str, str | None]:
        address = self._address
        return {"username": address.username or None, "password": address.password or None}

    @asynccontextmanager
    async def _dial(
        self, host: RedisHost, name: str, credentials: dict[str, Any], database: int = 0
    ) -> AsyncIterator[Connection]:
        options: dict[str, Any] = {
            "host": host.name, "port": host.port, "db": database, "client_name": name,
            # No socket_timeout: redis-py would hold each send to it by asyncio.wait_for, which on
            # Python 3.11 swallows a cancellation that comes as the send ends.
            "socket_connect_timeout": DIAL_TIMEOUT, "socket_timeout": None,
            "retry": Retry(NoBackoff(), 0), "protocol": 2, "driver_info": None, **credentials,
        }  # fmt: skip
        if self._address.tls:
            connection: Connection = SSLConnection(**self._tls, **options)
        else:
            connection = Connection(**options)
        transport: asyncio.WriteTransport | None = None
        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                await connection.connect()  # type: ignore[no-untyped-call]  # it has no types
            transport = connection._writer.transport  # type: ignore[union-attr]  # noqa: SLF001
            yield connection
        finally:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                await connection.disconnect(nowait=True)
            # Closing alone would first send what a server that hangs does not take, and over TLS
            # wait for its word; redis-py has no other way to drop a connection.
            if transport is not None:
                transport.abort()

    async def _ask_sentinel(self, host: RedisHost) -> RedisHost:
        username, password = self._address.sentinel
        if password:
            own = {"username": username or None, "password": password}
            return await self._ask_sentinel_as(host, own)
        # Most let anybody ask; others know our user too, or have one password for all.
        known_as: list[dict[str, Any]] = [{}]
        if self._address.password:
            known_as += [self._credentials(), {"password": self._address.password}]
        for credentials in known_as[:-1]:
            with contextlib.suppress(AuthenticationError, NoPermissionError):
                return await self._ask_sentinel_as(host, credentials)
        return await self._ask_sentinel_as(host, known_as[-1])

    async def _ask_sentinel_as(self, host: RedisHost, credentials: dict[str, Any]) -> RedisHost:
        async with self._dial(host, "icebroker", credentials) as sentinel:
            question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.service)
            answer = await ask(sentinel, *question)
        if not answer:
            raise Unfit(f"the Sentinel {host} knows no primary named {self._address.service!r}")
        return RedisHost(answer[0].decode(), int(answer[1]))

    async def _ask_cluster(self, host: RedisHost) -> RedisHost:
        async with self._dial(host, "icebroker", self._credentials()) as node:
            for first, last, primary, *_ in await ask(node, "CLUSTER", "SLOTS"):
                if first <= self._slot <= last:
                    # An empty name means: the node that was asked, or its address.
                    return RedisHost((primary[0] or b"").decode() or host.name, primary[1])
        raise Unfit(f"no node of the Cluster at {host} holds slot {self._slot}")


async def ask(connection: Connection, *command: Any) -> Any:
    """One command and its reply. :raises RedisError, OSError, TimeoutError:"""
    async with asyncio.timeout(DIAL_TIMEOUT):
        await connection.send_command(*command)
        return await connection.read_response(disable_decoding=True)


async def identify(connection: Connection) -> Identity:
    """Ask a server who it is. :raises Unfit: it is too old, or no primary. :raises RedisError:"""
    lines = (await ask(connection, "INFO")).decode().splitlines()
    info = dict(line.split(":", 1) for line in lines if ":" in line)
    version = info.get("redis_version", "0.0")
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise Unfit(f"Redis {version} is too old: 7.0 or newer is needed")
    if info.get("role") != "master":
        raise Unfit("it is a replica; name the primary, or its Sentinels")
    if info.get("loading", "0") != "0":
        raise Unfit("it is still loading its data")
    run = info.get("run_id", "") or info.get("master_replid", "")
    return Identity(run, info.get("maxmemory_policy", "noeviction") == "noeviction")
