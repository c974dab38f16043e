"""Telling and asking an application's back end over HTTP, signed (Standard Webhooks 1.0).

Where it goes is the operator's to say, never a client's: a URL comes from the configuration only,
no redirect is followed, no proxy of the environment is used, and of an answer only so much is read.
"""

import base64
import hashlib
import hmac
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from config.names import look_up

MOST_ANSWER_BYTES = 16_384
MOST_AT_ONCE = 64
"""Requests at a time; others wait for one of these to end."""
LEAST_KEY_BYTES = 16
"""Of what decodes by chance to less, nobody made a key."""
BASE64_PREFIX = "whsec_"
"""Before a secret that is base64, as the specification's libraries have it."""


REFUSALS = frozenset({401, 403, 404})
"""Statuses that mean no; any other but 2xx means that nobody could decide."""


class Unreachable(Exception):
    """There was no answer that could be read; the text says why."""


class Answer(NamedTuple):
    """What the back end said."""

    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether it is a 2xx."""
        return 200 <= self.status < 300

    @property
    def refuses(self) -> bool:
        """Whether it means no, to what was asked."""
        return self.status in REFUSALS


class Poster:
    """Posts JSON, signed."""

    def __init__(self, secrets: Sequence[str], timeout: float) -> None:
        """Prepare to post.

        :param secrets: each makes a signature, so that they can be rotated.
        :param timeout: in seconds, from the first byte sent to the last one read.
        """
        self._http: aiohttp.ClientSession | None = None
        self.replace(secrets, timeout)

    def replace(self, secrets: Sequence[str], timeout: float) -> None:
        """Post with these from now on; parameters as above."""
        self._keys = [key for secret in secrets for key in keys_of(secret)]
        self.timeout = timeout

    async def stop(self) -> None:
        """Close what is open."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def post(self, url: str, event_id: str, body: bytes) -> Answer:
        """Post a body and read the answer. :raises Unreachable:

        :param event_id: the same for every try of one thing, so that it is taken once.
        """
        now = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # what inflates could be larger than it looks
            "User-Agent": "icebroker",
            "webhook-id": event_id,
            "webhook-timestamp": str(now),
            "webhook-signature": " ".join(sign(key, event_id, now, body) for key in self._keys),
        }
        total = aiohttp.ClientTimeout(total=self.timeout)
        try:
            async with self._session().post(
                url, data=body, headers=headers, timeout=total, allow_redirects=False
            ) as response:
                return Answer(response.status, await _read(response))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(_why(error)) from None

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MOST_AT_ONCE, resolver=_Resolver()),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._http


class _Resolver(AbstractResolver):
    """Finds the back end by its name."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Its addresses. :raises OSError: there is no such host."""
        how = {"type": socket.SOCK_STREAM, "family": family, "flags": socket.AI_ADDRCONFIG}
        return [
            ResolveResult(
                hostname=host, host=place[0], port=place[1], family=found, proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found, _, proto, _, place in await look_up(host, port, **how)
        ]  # fmt: skip

    async def close(self) -> None:
        """Nothing is kept."""


def keys_of(secret: str) -> list[bytes]:
    """The keys that a secret stands for; the specification's has the prefix, and one.

    Without it, it is text; where that is base64, too, libraries take it for that, and a request is
    signed by either key.

    :raises ValueError: it is not the base64 that its prefix says.
    """
    if secret.startswith(BASE64_PREFIX):
        return [base64.b64decode(secret[len(BASE64_PREFIX) :], validate=True)]
    keys = [secret.encode()]
    with suppress(ValueError):
        decoded = base64.b64decode(secret, validate=True)
        if len(decoded) >= LEAST_KEY_BYTES:
            keys.append(decoded)
    return keys


def sign(key: bytes, event_id: str, timestamp: int, body: bytes) -> str:
    """One signature, as ``webhook-signature`` has it. :param timestamp: Unix time in seconds."""
    digest = hmac.new(key, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def shown(url: str) -> str:
    """A URL for the log: a query may hold what is nobody else's business."""
    return url.partition("?")[0]


def _why(error: Exception) -> str:
    """Not what is said of an answer: the whole URL, and what came, which may be a password."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it ended the connection"
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError):
        return "the answer is no HTTP, or not whole"
    return str(error) or type(error).__name__


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MOST_ANSWER_BYTES:
            raise Unreachable(f"the answer is longer than {MOST_ANSWER_BYTES} bytes")
    return body
