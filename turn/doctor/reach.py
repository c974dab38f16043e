"""Can the server be reached at all: names, ports, an answer, and what NAT is on the way."""

import asyncio
import errno
import socket
import ssl
import time
from ipaddress import ip_address

from turn.codec import registry
from turn.codec.errors import Malformed
from turn.codec.message import Message
from turn.codec.values import Address
from turn.doctor.client import NotStun, Refused, Silent, TurnClient
from turn.doctor.report import Section
from turn.doctor.target import Target
from turn.doctor.wire import StreamWire, UdpWire, Wire, unverified
from turn.routes import Transport

SECOND_LOOK = 4.0
"""Seconds that a further look at a silent port may take."""
NO_ROUTE = {errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
SLOW = 0.3
"""Seconds after which an answer is slow for calls."""


async def resolve(section: Section, target: Target) -> list[str]:
    """The addresses of the server's name, IPv4 first; none where it has none."""
    try:
        ip_address(target.host)
    except ValueError:
        pass
    else:
        return [target.host]
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no valid name"
        section.fail(
            "dns",
            f"the name {target.host} has no address ({reason})",
            "add an A and an AAAA record for it, or mend its spelling",
        )
        return []
    hosts = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    hosts.sort(key=lambda host: ":" in host)
    section.ok("dns", f"{target.host} is {', '.join(hosts)}")
    return hosts


async def open_wire(section: Section, target: Target, host: str, patience: float) -> Wire | None:
    """A way to the server, TLS unjudged; None where there is none, and why."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(patience):
            wire = await open_quietly(target, host)
    except (TimeoutError, OSError) as error:
        await _explain(section, target, host, error)
        return None
    if target.transport is not Transport.UDP:
        section.ok("port", f"{_place(target, host)} is open", time.monotonic() - began)
    return wire


async def open_quietly(target: Target, host: str) -> Wire:
    """A way to the server, TLS unjudged. :raises OSError:"""
    if target.transport is Transport.UDP:
        return await UdpWire.open(host, target.port)
    if target.transport is Transport.DTLS:
        from turn.doctor.dtls import DtlsWire  # noqa: PLC0415 - an extra, as OpenSSL is

        return await DtlsWire.open(host, target.port)
    tls = unverified() if target.transport is Transport.TLS else None
    return await StreamWire.open(host, target.port, tls, target.host)


async def _explain(
    section: Section, target: Target, host: str, error: TimeoutError | OSError
) -> None:
    place, over_tcp = _place(target, host), target.transport.is_stream
    if isinstance(error, ssl.SSLError) or (
        target.transport is Transport.TLS and await _tcp_answers(host, target.port)
    ):
        section.fail(
            "tls",
            f"{place} takes connections and does not speak TLS",
            "use turn: for this port, or have the server listen for TLS on it (turn.listen_tls)",
        )
    elif isinstance(error, ConnectionRefusedError):
        section.fail(
            "port",
            f"nothing listens on {place} (connection refused)",
            "start the server, or use the port that it listens on",
        )
    elif isinstance(error, TimeoutError):
        protocol = "TCP" if over_tcp else "UDP"
        section.fail(
            "port",
            f"{place} does not answer",
            f"open {protocol} port {target.port} in the firewalls between here and there, or "
            "start the server",
        )
    else:
        section.fail(
            "port",
            f"{place} cannot be reached: {error.strerror or error}",
            "see whether this machine has a route there (IPv6?)",
        )


async def answers(section: Section, target: Target, host: str, client: TurnClient) -> bool:
    """Whether it is a STUN server that answers; where it sees us, and through which NAT."""
    began = time.monotonic()
    try:
        reply = await client.binding()
    except Refused as refusal:
        section.ok("stun", f"answers, and wants credentials even for STUN ({refusal})")
        return True
    except Silent:
        await _explain_silence(section, target, host)
        return False
    except NotStun as error:
        await _explain_other(section, target, host, str(error))
        return False
    except OSError as error:
        if isinstance(error, ConnectionRefusedError):
            section.fail(
                "port",
                f"nothing listens on {_place(target, host)} (port unreachable)",
                "start the server, or use the port that it listens on",
            )
        else:
            await _explain_other(section, target, host, "it closed the connection")
        return False
    return _tell_answer(section, client, reply, time.monotonic() - began)


def _tell_answer(section: Section, client: TurnClient, reply: Message, seconds: float) -> bool:
    mapped = reply.get(registry.XOR_MAPPED_ADDRESS) or reply.get(registry.MAPPED_ADDRESS)
    software = reply.get(registry.SOFTWARE)
    by = f" ({software})" if software else ""
    if mapped is None:
        section.fail("stun", f"answers without an address{by}", "it is no STUN server (RFC 8489)")
        return False
    local = client.wire.local
    seen = (
        f"sees us as we are, {mapped}: no NAT on the way"
        if mapped == local
        else f"sees us as {mapped}; we are {local}, so there is a NAT on the way"
    )
    section.ok("stun", f"answers in {seconds * 1000:.0f} ms{by}, and {seen}", seconds)
    if seconds > SLOW:
        section.warn(
            "delay",
            f"an answer takes {seconds * 1000:.0f} ms",
            "use a relay nearer to its users: each relayed packet takes this way",
        )
    return True


async def try_other(section: Section, target: Target, host: str, patience: float) -> None:
    """Whether a further address of the name answers: clients take whichever they like."""
    check = "ipv6" if ":" in host else "ipv4"
    try:
        async with asyncio.timeout(patience):
            wire = await open_quietly(target, host)
    except OSError as error:
        if error.errno in NO_ROUTE:
            section.skip(check, f"this machine has no way to {host}")
        else:
            _tell_dead(section, check, target, host)
        return
    client = TurnClient(wire, patience)
    try:
        await client.binding()
    except Refused:
        section.ok(check, f"{host} answers too")
    except OSError as error:
        if error.errno in NO_ROUTE:
            section.skip(check, f"this machine has no way to {host}")
        else:
            _tell_dead(section, check, target, host)
    except (Silent, NotStun):
        _tell_dead(section, check, target, host)
    else:
        section.ok(check, f"{host} answers too")
    finally:
        await client.close()


def _tell_dead(section: Section, check: str, target: Target, host: str) -> None:
    section.warn(
        check,
        f"{target.host} is also {host}, where nothing answers: some clients will try it, and wait",
        "have the server listen there, open the firewall for it, or take the address out of the "
        "DNS",
    )


async def _explain_silence(section: Section, target: Target, host: str) -> None:
    place = _place(target, host)
    if target.transport is not Transport.UDP:
        says = f"{place} takes connections and answers no STUN"
        if target.transport is Transport.TCP and await _speaks_http(host, target.port):
            says = f"{place} is no STUN server: it is a web server"
        section.fail(
            "stun", says, "see what listens there, and which port the relay has; look at its log"
        )
    elif await _tcp_answers(host, target.port):
        section.fail(
            "port",
            f"{place} does not answer, and TCP on the same port does: UDP is blocked",
            f"open UDP port {target.port} in the firewalls between here and there (cloud security "
            "groups open TCP and UDP apart)",
        )
    else:
        section.fail(
            "port",
            f"{place} does not answer",
            f"open UDP port {target.port} in the firewalls between here and there, or start the "
            "server",
        )


async def _explain_other(section: Section, target: Target, host: str, why: str) -> None:
    place = _place(target, host)
    if target.transport is Transport.TCP and await _speaks_tls(host, target.port):
        section.fail("stun", f"{place} speaks TLS", "use turns: for this port")
    else:
        # To bytes that it cannot read a web server says nothing, or something, as it happens.
        if target.transport is Transport.TCP and await _speaks_http(host, target.port):
            why = "it is a web server"
        section.fail(
            "stun",
            f"{place} is no STUN server: {why}",
            "see what listens there: a web server or a proxy in the way?",
        )


async def _tcp_answers(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(SECOND_LOOK):
            wire = await StreamWire.open(host, port)
    except (TimeoutError, OSError):
        return False
    wire.close()
    return True


async def _speaks_http(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(SECOND_LOOK):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"HEAD / HTTP/1.0\r\n\r\n")
            head = await reader.read(5)
            writer.close()
    except (TimeoutError, OSError):
        return False
    return head == b"HTTP/"


async def _speaks_tls(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(SECOND_LOOK):
            wire = await StreamWire.open(host, port, unverified(), host)
    except (TimeoutError, OSError, Malformed):
        return False
    wire.close()
    return True


def _place(target: Target, host: str) -> str:
    return f"{target.transport.upper()} {Address(host, target.port)}"
