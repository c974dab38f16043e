"""What the doctor tries of both services: this machine, signaling, and the relays it hands out."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from cli.machine import relay_urls
from config.schema import Settings
from signaling.auth import Tokens
from signaling.examine import IceServer, examine_own, examine_redis, examine_signaling
from signaling.rehearsal import NAME, room_of
from turn.auth.ephemeral import name_in
from turn.doctor import host, prometheus
from turn.doctor.examine import Options, examine, examine_all
from turn.doctor.report import Section
from turn.doctor.target import Credentials, Target, parse_url

NAMELESS = "doctor"
TOKEN_LIFE = 120
"""Seconds that a token of the doctor's own opens its room."""


class Wanted(NamedTuple):
    """What is to be tried."""

    pages: list[str]
    """Signaling, by the address of its pages."""
    targets: list[Target]

    @classmethod
    def of(cls, urls: Sequence[str]) -> Self:
        """Read URLs. :raises ValueError: one is none; the message says what would be."""
        pages = [url for url in urls if _is_page(url)]
        return cls(pages, [parse_url(url) for url in urls if url not in pages])

    @classmethod
    def own(cls, settings: Settings) -> Self:
        """Our own relay. :raises ValueError: its host is no name that a URL could have."""
        return cls.of([url for group in relay_urls(settings.turn) for url in group])


def _is_page(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def credentials(settings: Settings, name: str = "", tenant: str = "") -> Credentials:
    """What our own relay takes: of a tenant, or of the first one where there is nothing else."""
    turn = settings.turn
    if not (tenant or turn.secret or turn.users):
        tenant = next(iter(turn.tenants), "")
    if secret := turn.secret_of(tenant):
        return Credentials(name_in(tenant, name or NAMELESS), "", secret)
    for user, password in (turn.tenants[tenant] if tenant else turn).users.items():
        return Credentials(name_in(tenant, user), password.get_secret_value())
    return Credentials()


def join_token(settings: Settings) -> str:
    """What opens a room of its own for a moment, where we know the secret; else nothing."""
    secrets = [secret.get_secret_value() for secret in settings.signaling.token_secret]
    claims = {"room": room_of(""), "name": NAME, "exp": int(time.time()) + TOKEN_LIFE}
    return Tokens(secrets).mint(claims) if secrets else ""


async def examine_here(settings: Settings) -> list[Section]:
    """What this machine lacks, and the signaling that runs on it."""
    machine = Section("this machine", "has what it needs")
    host.relay(machine, settings.turn)
    await host.external(machine, settings.turn)
    machine.take([await examine_redis(settings.redis)])
    place, findings = await examine_own(settings.signaling, join_token(settings))
    pages = Section(place)
    pages.take(findings)
    return [machine, pages]


async def examine_wanted(wanted: Wanted, token: str, options: Options) -> list[Section]:
    """Try signaling with what it hands out, then relays. :param token: shown to signaling."""
    sections = []
    for page in wanted.pages:
        sections += await _examine_signaling(page, token, options)
    return sections + await examine_all(wanted.targets, options)


async def _examine_signaling(page: str, token: str, options: Options) -> list[Section]:
    """Signaling, and each ICE server that it hands out, with the credentials that it gives."""
    section, ice_servers = await _examine_page(page, token, options.authority)
    sections = [section]
    for server in ice_servers:
        shown = Credentials(server.username, server.credential)
        try:
            targets = [parse_url(url) for url in server.urls]
        except ValueError as error:
            section.fail("ice-servers", str(error), "mend signaling.ice_servers")
            continue
        sections += await examine_all(targets, options._replace(credentials=shown))
    return sections


async def _examine_page(
    page: str, token: str, authority: Path | None = None
) -> tuple[Section, list[IceServer]]:
    """Signaling, and the ICE servers that it hands out."""
    examined = await examine_signaling(page, token, authority)
    section = Section(page)
    section.take(examined.findings)
    return section, examined.ice_servers


async def probe(url: str, settings: Settings) -> bytes:
    """What a scrape asks for: signaling or a relay, tried with what our own take.

    :returns: the page that Prometheus reads.
    """
    return await prometheus.probe(_probe(url, settings))


async def _probe(url: str, settings: Settings) -> Section:
    if _is_page(url):
        section, _ = await _examine_page(url, join_token(settings))
        return section
    return await examine(parse_url(url), Options(credentials(settings), load=False))
