"""What passes between a relayed address and a peer elsewhere, which is this machine."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from turn.codec import registry
from turn.codec.values import Address, family_of
from turn.doctor.client import Forged, NotStun, Refused, Relayed, Silent, TurnClient
from turn.doctor.probe import binding_over
from turn.doctor.report import Section
from turn.doctor.wire import Inbox

TRIES, BETWEEN = 15, 0.1
"""Packets until one has arrived, and seconds between. Where a quarter is lost by chance, fifteen in
a row are not seen, but five are: a port is not called closed for that."""
SMALL, LARGE = 12, 1200
"""Bytes of a packet; the large one is what browsers make of a picture, and of a certificate."""
MORE_PORTS = 5
"""Relayed ports that are tried beside the first one; half a range closed is so found in 97 %."""
MTU = (
    "look for a tunnel or a link with a small MTU, or a firewall that drops fragments, at the "
    "server's side: calls will connect and show no picture"
)
Allocate = Callable[[], Awaitable[tuple[TurnClient, Relayed]]]
"""Makes another allocation, on a way of its own."""


class Outside(NamedTuple):
    """A UDP socket of ours, as a peer that is not behind the relay."""

    transport: asyncio.DatagramTransport
    inbox: Inbox
    mapped: Address
    """Where the server sees it."""


async def open_outside(host: str, *ports: int) -> Outside | None:
    """A peer on this machine; None where the server answers no STUN over UDP at any port."""
    loop = asyncio.get_running_loop()
    everywhere = "::" if ":" in host else "0.0.0.0"  # noqa: S104 - whichever way leads there
    transport, inbox = await loop.create_datagram_endpoint(Inbox, local_addr=(everywhere, 0))
    for port in dict.fromkeys(ports):
        reply = await binding_over(transport, inbox, Address(host, port))
        mapped = reply.get(registry.XOR_MAPPED_ADDRESS) if reply else None
        if mapped is not None:
            return Outside(transport, inbox, mapped)
    transport.close()
    return None


# There and back ------------------------------------------------------------------------------


async def echo(
    section: Section, client: TurnClient, relayed: Relayed, host: str, outside: Outside | None
) -> bool:
    """Send to the relayed address from outside, and back; whether both ways are open."""
    if outside is None:
        section.skip(
            "echo", "the server answers no STUN over UDP, so there is no peer here to try with"
        )
        return False
    if family_of(outside.mapped) != family_of(relayed.address):
        section.skip("echo", "the relayed address is of another family than this machine's")
        return False
    try:
        # As Chromium does; what goes out below goes as Firefox sends it.
        await client.bind(outside.mapped)
    except Refused as refusal:
        _tell_refused(section, refusal, outside.mapped.host, {relayed.address.host, host})
        return False
    except (Silent, NotStun, Forged, OSError) as error:
        section.fail("echo", f"ChannelBind was not answered ({error})", "look at its log")
        return False
    seen = await _in(client, relayed, outside, SMALL)
    went_out = await _out(client, outside, seen or outside.mapped, SMALL)
    if seen is None or not went_out:
        _tell_closed(section, relayed, host, came_in=seen is not None)
        return False
    large_in = await _in(client, relayed, outside, LARGE)
    large_out = await _out(client, outside, seen, LARGE)
    _tell_open(section, relayed, into=large_in is not None, out=large_out)
    return True


def _tell_refused(section: Section, refusal: Refused, us: str, server: set[str]) -> None:
    if us in server:
        section.skip(
            "echo",
            f"this is the relay's own machine, which it rightly refuses as a peer ({refusal})",
            "run the doctor on another machine: only from there are the firewalls in the way",
        )
    else:
        section.skip(
            "echo",
            f"the server does not relay to this machine, {us} ({refusal}), so nothing can be sent "
            "there and back from here",
            "run the doctor on a machine with a public address; where the server relays to chosen "
            "peers only (turn.only_allowed_peers), on one of these",
        )


def _tell_open(section: Section, relayed: Relayed, *, into: bool, out: bool) -> None:
    if into and out:
        section.ok("echo", f"packets pass from outside to {relayed.address} and back, large too")
        return
    section.ok("echo", f"small packets pass from outside to {relayed.address} and back")
    way = "reach the relayed address" if not into else "come out of the relay"
    section.fail("size", f"packets of {LARGE:,} bytes do not {way}, small ones do", MTU)


def _tell_closed(section: Section, relayed: Relayed, host: str, *, came_in: bool) -> None:
    if came_in:
        section.fail(
            "echo",
            "packets reach the relayed address, and none comes out of the relay",
            "see what keeps the relay's UDP from leaving: its firewall, its routes",
        )
        return
    if relayed.address.host != host:
        section.fail(
            "echo",
            f"no packet arrives at the relayed address {relayed.address}, while the server is at "
            f"{host}: is that its public address?",
            "mend turn.external_addresses (coturn: external-ip), or open turn.relay_ports for UDP",
        )
        return
    section.fail(
        "echo",
        f"no packet arrives at the relayed address {relayed.address}: its port is closed from "
        "outside",
        "open turn.relay_ports (coturn: min-port to max-port; 49152-65535 if not set) for UDP in "
        "the server's firewalls",
    )


# The other ports -----------------------------------------------------------------------------


async def more_ports(section: Section, allocate: Allocate, outside: Outside) -> None:
    """Try further relayed addresses: a firewall may let in a part of their ports only."""
    tried: list[Address] = []
    closed: list[Address] = []
    for _ in range(MORE_PORTS):
        try:
            client, relayed = await allocate()
        except (Refused, Silent, NotStun, Forged, OSError):
            break  # of quotas, "loss" tells
        try:
            await client.bind(outside.mapped)
            tried.append(relayed.address)
            if await _in(client, relayed, outside, SMALL) is None:
                closed.append(relayed.address)
        except (Refused, Silent, NotStun, Forged, OSError):
            break
        finally:
            await client.close()
    if closed:
        names = ", ".join(str(address) for address in closed)
        section.fail(
            "range",
            f"of {len(tried)} more relayed ports, {len(closed)} are closed from outside: {names}",
            "the firewall lets in a part of them: open all of turn.relay_ports (coturn: min-port "
            "to max-port; 49152-65535 if not set) for UDP",
        )
    elif tried:
        ports = sorted(address.port for address in tried)
        section.ok(
            "range", f"{len(tried)} more relayed ports are open too, {ports[0]} to {ports[-1]}"
        )


# Packets -------------------------------------------------------------------------------------


async def _in(client: TurnClient, relayed: Relayed, outside: Outside, size: int) -> Address | None:
    """Send to the relayed address; where the relay saw it come from, None: it did not arrive."""
    payload = b"doctor in".ljust(size)
    arrived = asyncio.ensure_future(_came(client, payload))
    try:
        for _ in range(TRIES):
            outside.transport.sendto(payload, relayed.address)
            await asyncio.wait({arrived}, timeout=BETWEEN)
            if arrived.done():
                return arrived.result()
        return None
    finally:
        arrived.cancel()


async def _came(client: TurnClient, wanted: bytes) -> Address:
    while True:
        peer, payload = await client.data.get()
        if payload == wanted:
            return peer


async def _out(client: TurnClient, outside: Outside, peer: Address, size: int) -> bool:
    payload = b"doctor back".ljust(size)
    arrived = asyncio.ensure_future(_heard(outside.inbox, payload))
    try:
        for _ in range(TRIES):
            await client.send(peer, payload)
            await asyncio.wait({arrived}, timeout=BETWEEN)
            if arrived.done():
                return True
        return False
    except OSError:
        return False
    finally:
        arrived.cancel()


async def _heard(inbox: Inbox, wanted: bytes) -> None:
    while True:
        try:
            if (await inbox.next())[0] == wanted:
                return
        except OSError:
            continue
