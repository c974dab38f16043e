"""The order of things: what is tried after what, and what is left out where it cannot be."""

import asyncio
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from turn.codec.errors import Malformed
from turn.codec.values import Address, Family, family_of
from turn.doctor import admission, certificate, ice, nat, outside, reach, relaying
from turn.doctor.client import Forged, NotStun, Refused, Relayed, Silent, TurnClient
from turn.doctor.report import Section
from turn.doctor.target import Credentials, Target
from turn.doctor.wire import StreamWire, Wire
from turn.routes import Transport

USUAL_PORT = 3478


class Options(NamedTuple):
    """What the doctor is told."""

    credentials: Credentials = Credentials()
    authority: Path | None = None
    """PEM file with an authority that is trusted beside the system's."""
    load: bool = True
    """Send a video call's packets through the relay for a second, and try more of its ports."""
    beside: tuple[Target, ...] = ()
    """Other servers, over UDP: two of them tell what NAT is before us."""
    patience: float = 4.0
    """Seconds that a port or an answer may take."""


async def examine_all(targets: Sequence[Target], options: Options) -> list[Section]:
    """Try each server, one after the other: they must not take each other's quota or bandwidth."""
    over_udp = [target for target in targets if target.transport is Transport.UDP]
    sections = []
    for target in targets:
        beside = tuple(other for other in over_udp if other.host != target.host)
        sections.append(await examine(target, options._replace(beside=beside)))
    return sections


async def examine(target: Target, options: Options) -> Section:
    """Try a server as its clients do."""
    section = Section(target.url)
    if target.transport is Transport.DTLS and find_spec("OpenSSL") is None:
        section.skip("port", "DTLS needs pyOpenSSL here", "pip install 'icebroker[dtls]'")
        return section
    hosts = await reach.resolve(section, target)
    if not hosts:
        return section
    try:
        await _examine_address(section, target, hosts[0], options)
    except Malformed as error:
        section.fail(
            "stun", f"an answer is malformed: {error}", "update the server, or tell its makers"
        )
    except OSError as error:
        section.fail(
            "port",
            f"the server takes no more connections: {error.strerror or 'no answer in time'}",
            "does a limit of its own keep us out? Look at its log",
        )
    for host in hosts[1:]:
        await reach.try_other(section, target, host, options.patience)
    return section


async def _examine_address(section: Section, target: Target, host: str, options: Options) -> None:
    wire = await reach.open_wire(section, target, host, options.patience)
    if wire is None:
        return
    await _judge_certificate(section, target, host, wire, options)
    client = TurnClient(wire, options.patience)
    try:
        if not await reach.answers(section, target, host, client):
            return
        if target.transport is Transport.UDP:
            another = await _another(options.beside, host)
            await nat.tell_kind(section, target, host, another)
        if target.relays:
            await _Relay(section, target, host, options).examine(client)
    finally:
        await client.close()


async def _another(beside: Sequence[Target], host: str) -> Address | None:
    """Where another server is, in the same family of addresses; None where there is none."""
    for target in beside:
        for other in await reach.resolve(Section(target.url), target):
            if other != host and (":" in other) == (":" in host):
                return Address(other, target.port)
    return None


async def _judge_certificate(
    section: Section, target: Target, host: str, wire: Wire, options: Options
) -> None:
    if isinstance(wire, StreamWire) and wire.tls is not None:
        certificate.judge(section, target, wire.tls.getpeercert(binary_form=True))
        await certificate.judge_trust(section, target, host, options.authority)
    elif target.transport is Transport.DTLS:
        from turn.doctor.dtls import DtlsWire  # noqa: PLC0415 - an extra, as OpenSSL is

        if isinstance(wire, DtlsWire):
            certificate.judge(section, target, wire.certificate())


class _Relay:
    """The checks of a server that relays."""

    def __init__(self, section: Section, target: Target, host: str, options: Options) -> None:
        self._section = section
        self._target = target
        self._host = host
        self._options = options

    async def examine(self, client: TurnClient) -> None:
        """Allocate, echo, measure, and try what must not be."""
        section, options = self._section, self._options
        relayed = await admission.admit(section, client, options.credentials, self._connect)
        if relayed is None:
            return
        if relaying.look_at_address(section, relayed, self._host):
            await self._echo(client, relayed)
        else:
            section.skip("echo", "nobody can send to that address")
        await relaying.private_peers(section, client, relayed, self._host)
        if options.load and not await self._measure(client, relayed):
            section.skip("ice", "it takes two allocations at a time")
            return
        await self._meet(client, relayed)

    async def _echo(self, client: TurnClient, relayed: Relayed) -> None:
        async def allocate() -> tuple[TurnClient, Relayed]:
            return await self._allocate(family_of(relayed.address))

        peer = await outside.open_outside(self._host, USUAL_PORT, self._target.port)
        try:
            passes = await outside.echo(self._section, client, relayed, self._host, peer)
            if passes and peer is not None and self._options.load:
                await outside.more_ports(self._section, allocate, peer)
        finally:
            if peer is not None:
                peer.transport.close()

    async def _measure(self, client: TurnClient, relayed: Relayed) -> bool:
        """Send a load from one allocation to another; whether there was another."""
        try:
            other, second = await self._allocate(family_of(relayed.address))
        except (Refused, Silent, NotStun, Forged, OSError) as error:
            self._section.warn("loss", f"a second allocation was refused ({error})",
                               "a call wants several at a time: raise the quota")  # fmt: skip
            return False
        try:
            await relaying.measure(self._section, client, relayed, other, second)
        finally:
            await other.close()
        return True

    async def _meet(self, client: TurnClient, relayed: Relayed) -> None:
        section, target = self._section, self._target
        if family_of(relayed.address) is Family.IPV6:
            section.skip("ice", "aioice asks for relayed addresses of IPv4 only")
            return
        if target.transport is Transport.DTLS:
            section.skip("ice", "aioice speaks no DTLS to a relay, and no browser does")
        elif target.transport is Transport.TLS and self._options.authority is not None:
            section.skip("ice", "aioice trusts the system's authorities only, and not --ca")
        elif not section.works:
            section.skip("ice", "it would fail for what is said above")
        elif await ice.may_meet(section, client, relayed):
            await ice.meet(section, target, self._host, self._shown())

    def _shown(self) -> Credentials:
        credentials = self._options.credentials
        return credentials.at(time.time() + admission.TTL) if credentials.secret else credentials

    async def _allocate(self, family: Family) -> tuple[TurnClient, Relayed]:
        """Another allocation. :raises Refused, Silent, NotStun, Forged, OSError: there is none."""
        client = await self._connect()
        try:
            return client, await client.allocate(self._shown(), family)
        except BaseException:
            await client.close()
            raise

    async def _connect(self) -> TurnClient:
        """Another way to the same server. :raises OSError: there is none any more."""
        patience = self._options.patience
        async with asyncio.timeout(patience):
            return TurnClient(await reach.open_quietly(self._target, self._host), patience)
