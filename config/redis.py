"""Where Redis is, from one URL: a server, whom Sentinels name, or whoever owns us in a Cluster."""

import re
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlsplit

Kind = Literal["plain", "sentinel", "cluster"]
SCHEMES: dict[str, tuple[Kind, bool]] = {
    "redis": ("plain", False),
    "rediss": ("plain", True),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
"""Scheme: (what answers there, whether over TLS)."""
DEFAULT_PORTS: dict[Kind, int] = {"plain": 6379, "sentinel": 26379, "cluster": 6379}
WANTED = (
    "write redis://HOST, rediss://HOST (TLS), redis+sentinel://HOST,HOST/SERVICE or "
    "redis+cluster://HOST,HOST"
)


class RedisHost(NamedTuple):
    """A name or an address, and a port."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


class RedisAddress(NamedTuple):
    """What a URL says. Secret, because of the password."""

    kind: Kind
    tls: bool
    hosts: tuple[RedisHost, ...]
    username: str
    password: str
    database: int
    """Of a plain server or behind Sentinels; a Cluster has the one."""
    service: str
    """The name that Sentinels know the primary by."""
    sentinel: tuple[str, str] = ("", "")
    """User and password for the Sentinels alone; empty: see ``primary``."""


class RedisTls(NamedTuple):
    """PEM files for ``rediss://``; None: the system's authorities, no certificate of our own."""

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


def parse_redis_url(url: str) -> RedisAddress:
    """Read a URL, as ``redis://user:password@redis.example.org:6379/0``.

    :raises ValueError: with a sentence that tells nothing of the URL's secrets.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ValueError(WANTED)
    kind, tls = SCHEMES[scheme]
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ValueError("options behind ? are not read; TLS and the prefix have keys of their own")
    userinfo, _, hosts = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    service, database = _path(kind, [part for part in parts.path.split("/") if part])
    return RedisAddress(
        kind,
        tls,
        tuple(_host(text, DEFAULT_PORTS[kind]) for text in hosts.split(",")),
        unquote(username),
        unquote(password),
        database,
        service,
    )


def _path(kind: Kind, parts: list[str]) -> tuple[str, int]:
    service = ""
    if kind == "sentinel":
        if not parts:
            raise ValueError(
                "Sentinels need the primary's name: redis+sentinel://HOST,HOST/SERVICE"
            )
        service = unquote(parts.pop(0))
    if kind == "cluster" and parts:
        raise ValueError("a Cluster has one database; leave the path out")
    if len(parts) > 1 or not all(re.fullmatch(r"[0-9]{1,4}", part) for part in parts):
        raise ValueError("the path is the number of a database, as in redis://HOST/0")
    return service, int(parts[0]) if parts else 0


def _host(text: str, default_port: int) -> RedisHost:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?", text)
    port = int(match[3] or default_port) if match else 0
    if not match or not 1 <= port <= 65535:
        raise ValueError(f"a host of it is no HOST or HOST:PORT; {WANTED}")
    return RedisHost(match[1] or match[2], port)
