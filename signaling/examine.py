"""What ``icebroker doctor`` says of signaling: is it there, does it let in, can the nodes meet."""

import asyncio
import json
import ssl
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from config.redis import RedisAddress
from config.schema import RedisSettings
from config.signaling import SignalingSettings
from config.values import Endpoint
from signaling.broker.primary import Finder, Unfit, identify
from signaling.broker.rights import lacking
from signaling.client import SignalingError
from signaling.protocol import SUBPROTOCOL
from signaling.rehearsal import NotLetIn, meet

PATIENCE = aiohttp.ClientTimeout(total=8, sock_connect=4)
ANSWER = 4.0
LOCKED = "answers, and lets in holders of a token only"
MOST_ANSWER = 1 << 18
"""Bytes of ``GET /ice``."""
SKEW = 60.0
"""Seconds; time-limited credentials bear less than their lifetime."""
RIGHTS = (
    "give the user the line of deploy/redis/users.acl, for the prefix that redis.prefix says, and "
    "have it read: ACL LOAD"
)
SHOW_ONE = (
    "Where it wants to see a certificate of ours (tls-auth-clients, on by default), set "
    "redis.tls_certificate and redis.tls_key"
)
HOW_TO_JOIN = (
    "--token TOKEN (icebroker token ROOM makes one), or -c with the service's configuration, whose "
    "signaling.token_secret makes one for this"
)
NTP = "set both clocks by NTP (timedatectl set-ntp true)"


class Finding(NamedTuple):
    """How it is; ``next`` says what to do where it is not well."""

    check: str
    status: str
    """ok · warn · fail · skip"""
    says: str
    next: str = ""


class IceServer(NamedTuple):
    """An entry of ``RTCConfiguration.iceServers``."""

    urls: list[str]
    username: str
    credential: str


class Examined(NamedTuple):
    """What came of a signaling server."""

    findings: list[Finding]
    ice_servers: list[IceServer]
    """As it hands them to browsers."""


async def examine_signaling(base: str, token: str = "", authority: Path | None = None) -> Examined:
    """Fetch the ICE servers, say hello and have two peers meet in a room, as pages do.

    :param base: "https://icebroker.example.org", with whatever path the proxy has it under.
    :param token: its room is entered for a moment; a new room where no token is needed.
    :param authority: PEM file of an authority that is trusted; None: the system's.
    """
    base = base.rstrip("/")
    findings: list[Finding] = []
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    tls = ssl.create_default_context(cafile=authority)
    connector = aiohttp.TCPConnector(ssl=tls)
    async with aiohttp.ClientSession(timeout=PATIENCE, connector=connector) as http:
        try:
            async with http.get(f"{base}/ice", headers=headers) as answer:
                findings += _clock(answer.headers.get("Date", ""))
                found, servers = await _ice(answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Examined([_unreachable(base, error)], [])
        findings.append(found)
        if found.status != "fail":
            findings.append(hello := await _hello(http, base, token))
            if hello.status == "ok":
                findings.append(await _join(base, token, tls, locked=hello.says == LOCKED))
    if urlsplit(base).scheme == "http" and not _is_here(base):
        findings.append(
            Finding(
                "https",
                "warn",
                "pages from there get no camera and no microphone: it is not HTTPS",
                "put an HTTPS proxy before it, or set signaling.tls_certificate and tls_key",
            )
        )
    return Examined(findings, servers)


async def examine_own(settings: SignalingSettings, token: str = "") -> tuple[str, list[Finding]]:
    """The same for the signaling of this machine, if it runs; where it is, and how."""
    host = settings.listen.host
    if settings.listen.is_wildcard:
        host = "::1" if ":" in host else "127.0.0.1"
    place = Endpoint(host, settings.listen.port)
    if settings.tls_certificate is not None:
        then = "icebroker doctor https://NAME"
        return f"https://{place}", [
            Finding("https", "skip", "its certificate is for its name, by which it is tried", then)
        ]
    base = f"http://{place}"
    findings = (await examine_signaling(base, token)).findings
    if [(one.check, one.status) for one in findings] == [("http", "fail")]:
        says = f"no signaling runs here ({findings[0].says})"
        findings = [Finding("http", "skip", says, "start it, if this machine is to have it")]
    return base, findings


def _is_here(base: str) -> bool:
    return urlsplit(base).hostname in {"localhost", "127.0.0.1", "::1"}


def _unreachable(base: str, error: Exception) -> Finding:
    host = urlsplit(base).netloc
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", str(error))
        then = "give the server the whole chain, for this name, of an authority that browsers know"
        return Finding("https", "fail", f"browsers refuse the certificate of {host}: {why}", then)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        then = "add an A and an AAAA record for it, or mend its spelling"
        return Finding("dns", "fail", f"the name {host} has no address", then)
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = error.os_error.strerror or "no connection"
        then = "start it, open its port, or mend the URL"
        return Finding("http", "fail", f"nothing answers at {host}: {reason}", then)
    then = "open its port in the firewalls between here and there, or look at the proxy's log"
    return Finding(
        "http", "fail", f"{host} does not answer: {str(error) or 'no answer in time'}", then
    )


def _clock(date: str) -> list[Finding]:
    try:
        skew = parsedate_to_datetime(date).timestamp() - time.time()
    except ValueError:
        return []
    if abs(skew) < SKEW:
        return []
    says = f"the server's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} ours"
    return [Finding("clock", "warn", says, NTP)]


async def _ice(answer: aiohttp.ClientResponse) -> tuple[Finding, list[IceServer]]:
    if answer.status == 401:
        return Finding(
            "ice-servers", "skip", "ICE servers are for holders of a token", HOW_TO_JOIN
        ), []
    try:
        servers = _servers_untrusted(json.loads(await _read_untrusted(answer)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, aiohttp.ClientError):
        says = f"GET /ice is answered by {answer.status}, and by no list of ICE servers"
        then = "is the URL that of signaling? Behind a proxy: is its path passed on?"
        return Finding("ice-servers", "fail", says, then), []
    urls = [url for server in servers for url in server.urls]
    if not any(url.startswith("turn") for url in urls):
        says = "there is no relay among the ICE servers: calls between strict networks will fail"
        return Finding("ice-servers", "warn", says, "set [turn], or signaling.ice_servers"), servers
    return Finding("ice-servers", "ok", ", ".join(urls)), servers


async def _read_untrusted(answer: aiohttp.ClientResponse) -> bytes:
    """The body. :raises ValueError: it is longer than any list of ICE servers."""
    body = b""
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > MOST_ANSWER:
            raise ValueError("too long")
    return body


def _servers_untrusted(document: Any) -> list[IceServer]:
    found = []
    for server in document["iceServers"]:
        urls = [server["urls"]] if isinstance(server["urls"], str) else list(server["urls"])
        username, credential = server.get("username", ""), server.get("credential", "")
        found.append(IceServer([str(url) for url in urls], str(username), str(credential)))
    return found


async def _hello(http: aiohttp.ClientSession, base: str, token: str) -> Finding:
    began = time.monotonic()
    try:
        async with (
            asyncio.timeout(ANSWER),
            http.ws_connect(f"{base}/ws", protocols=(SUBPROTOCOL,), compress=0) as ws,
        ):
            await ws.send_json({"type": "hello", **({"token": token} if token else {})})
            reply = dict(await ws.receive_json())
    except aiohttp.WSServerHandshakeError as error:
        then = (
            "the proxy has to pass the headers Upgrade and Connection on (nginx: "
            "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
            "proxy_set_header Connection upgrade)"
        )
        if error.status in {429, 503}:
            then = "it drains, or is full: try again, and look at its log"
        says = f"the WebSocket is answered by {error.status}: nobody can join a room"
        return Finding("websocket", "fail", says, then)
    except (
        aiohttp.ClientError, TypeError, ValueError, RecursionError, TimeoutError, OSError,
    ) as error:  # fmt: skip
        says = f"the WebSocket breaks off: {str(error) or 'no answer in time'}"
        return Finding("websocket", "fail", says, "look at the logs of signaling and of the proxy")
    seconds = time.monotonic() - began
    if reply.get("type") == "welcome":
        return Finding("websocket", "ok", f"says welcome in {seconds * 1000:.0f} ms")
    if reply.get("code") == "unauthorized" and not token:
        return Finding("websocket", "ok", LOCKED)
    says = f"hello is refused: {reply.get('message') or reply.get('code')}"
    then = (
        "use a good token (icebroker token ROOM); one that -c makes is good where "
        "signaling.token_secret there is the server's, and the clocks agree"
    )
    return Finding("websocket", "fail", says, then)


async def _join(base: str, token: str, tls: ssl.SSLContext, *, locked: bool) -> Finding:
    """Whether two peers meet. :param locked: the server has said that it takes a token."""
    if locked:
        return Finding("join", "skip", "nobody has joined a room: that takes a token", HOW_TO_JOIN)
    began = time.monotonic()
    try:
        await meet(f"ws{base.removeprefix('http')}/ws", token, tls)
    except NotLetIn as error:
        says = f"two peers of this token cannot meet and talk: {error}"
        return Finding("join", "skip", says, "give the token of a room that is free: --token")
    except (SignalingError, TimeoutError) as error:
        says = f"two peers cannot meet in a room: {str(error) or 'no answer in time'}"
        then = "look at signaling's log, and at its Redis (icebroker doctor, on its machine)"
        return Finding("join", "fail", says, then)
    seconds = time.monotonic() - began
    return Finding("join", "ok", f"two peers met in a room and talked, in {seconds * 1000:.0f} ms")


async def examine_redis(settings: RedisSettings) -> Finding:
    """Find the Redis of the settings and ask it what the broker would."""
    address = settings.address()
    if address is None:
        return Finding("redis", "ok", "none is configured: this node stands alone")
    hosts = ", ".join(str(host) for host in address.hosts)
    try:
        return await _examine_primary(settings, address)
    except AuthenticationError as error:
        says, then = f"refuses the password: {error}", "mend redis.url"
        if address.kind == "sentinel":
            then += ", or redis.sentinel_password, where the Sentinels have their own"
    except NoPermissionError as error:
        says, then = f"refuses what the broker does: {error}", RIGHTS
    except Unfit as error:
        says, then = f"is not fit: {error}", "see the comments of redis.url"
    except (RedisError, OSError) as error:
        says = f"cannot be reached: {str(error) or 'no answer'}"
        then = "start it, open its port, or mend redis.url; until then nobody can join a room"
        if address.tls and settings.tls_certificate is None:
            then += f". {SHOW_ONE}"
    return Finding("redis", "fail", f"Redis at {hosts} {says}", then)


async def _examine_primary(settings: RedisSettings, address: RedisAddress) -> Finding:
    """Whether it may be relied on. :raises RedisError, OSError, Unfit: nobody could be asked."""
    tag = "{" + settings.prefix + "}"
    finder = Finder(address, tag, settings.tls())
    primary = await finder.find()
    async with finder.open(primary, "icebroker-doctor") as connection:
        identity = await identify(connection)
        lacks = await lacking(connection, tag)
    if lacks:
        user = address.username or "default"
        says = f"Redis at {primary} does not let the user {user} run {', '.join(lacks)}"
        return Finding("redis", "fail", says, RIGHTS)
    if not identity.keeps:
        says = f"Redis at {primary} forgets keys when its memory is full"
        return Finding("redis", "warn", says, "CONFIG SET maxmemory-policy noeviction")
    return Finding("redis", "ok", f"{primary} is the primary, and fit")
