"""Does the relay carry what it should: from and to peers, fast enough, and to nobody else."""

import asyncio
import statistics
import struct
import time
from collections.abc import Sequence
from ipaddress import ip_address
from typing import NamedTuple

from turn.codec import registry
from turn.codec.values import Address, family_of
from turn.doctor.client import Forged, NotStun, Refused, Relayed, Silent, TurnClient
from turn.doctor.probe import binding_over
from turn.doctor.report import Section
from turn.doctor.wire import Inbox

FORBIDDEN = {
    "127.0.0.1": "the server itself (127.0.0.1)",
    "169.254.169.254": "the cloud's metadata (169.254.169.254)",
    "10.0.0.1": "10.0.0.0/8",
    "172.16.0.1": "172.16.0.0/12",
    "192.168.0.1": "192.168.0.0/16",
    "100.64.0.1": "100.64.0.0/10",
}
"""Peers that no stranger should reach through a relay."""
FORBIDDEN_IPV6 = {
    "::1": "the server itself (::1)",
    "::ffff:169.254.169.254": "the cloud's metadata (169.254.169.254, as IPv6)",
    "fd00::1": "fc00::/7",
    "fe80::1": "fe80::/10",
    "64:ff9b::a00:1": "10.0.0.0/8, by NAT64",
}
DISCARD = 9
"""A port that nothing bad can come of."""
WORST = ("127.0.0.1", "169.254.169.254", "::1", "::ffff:169.254.169.254")
TRIES, BETWEEN, WAIT = 5, 0.1, 1.0
PACKETS, PAYLOAD, PAUSE = 200, 1000, 0.005
"""Of the measurement: 1.6 Mbit/s for a second, what a video call takes."""
LATE = 1.0
"""Seconds after which a packet is lost."""
BUSY, OURS = 0.1, 0.15
"""Seconds behind the plan after which a loss up to this share may be our own."""
SOME_LOSS, MUCH_LOSS = 0.01, 0.05
MARK = struct.Struct("!4sId")
MAGIC = b"ibdr"


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


def look_at_address(section: Section, relayed: Relayed, host: str) -> bool:
    """Whether peers elsewhere can have a path to a relayed address, by its looks."""
    given, server = ip_address(relayed.address.host), ip_address(host)
    if given.is_unspecified or given.is_loopback != server.is_loopback:
        section.fail(
            "allocation",
            f"the relayed address is {relayed.address}, which no peer can reach",
            "set turn.relay_addresses (coturn: relay-ip) to an address of the machine",
        )
    elif given.is_private and not server.is_private:
        section.fail(
            "allocation",
            f"the relayed address is {relayed.address}: private, though the server is at {host}",
            f'set turn.external_addresses = ["{host}"] (coturn: external-ip={host})',
        )
    else:
        section.ok("allocation", f"is {relayed.address}, for {relayed.lifetime} s")
        return True
    return False


async def echo(
    section: Section, client: TurnClient, relayed: Relayed, host: str, outside: Outside | None
) -> None:
    """Send to the relayed address from outside, and back."""
    if outside is None:
        section.skip(
            "echo", "the server answers no STUN over UDP, so there is no peer here to try with"
        )
        return
    if family_of(outside.mapped) != family_of(relayed.address):
        section.skip("echo", "the relayed address is of another family than this machine's")
        return
    try:
        # As Chromium does; what goes out below goes as Firefox sends it.
        await client.bind(outside.mapped)
    except Refused as refusal:
        _tell_refused(section, refusal, outside.mapped.host, {relayed.address.host, host})
        return
    except (Silent, NotStun, Forged, OSError) as error:
        section.fail("echo", f"ChannelBind was not answered ({error})", "look at its log")
        return
    seen = await _in(client, relayed, outside)
    went_out = await _out(client, outside, seen or outside.mapped)
    _judge_echo(section, relayed, host, came_in=seen is not None, went_out=went_out)


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
            "run the doctor on a machine with a public address",
        )


def _judge_echo(
    section: Section, relayed: Relayed, host: str, *, came_in: bool, went_out: bool
) -> None:
    if came_in and went_out:
        section.ok("echo", f"packets pass from outside to {relayed.address} and back")
        return
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


async def _in(client: TurnClient, relayed: Relayed, outside: Outside) -> Address | None:
    """Send to the relayed address; where the relay saw it come from, None: it did not arrive."""
    for number in range(TRIES):
        outside.transport.sendto(b"doctor %d" % number, relayed.address)
        await asyncio.sleep(BETWEEN)
        if not client.data.empty():
            break
    try:
        async with asyncio.timeout(WAIT):
            peer, _ = await client.data.get()
    except TimeoutError:
        return None
    return peer


async def _out(client: TurnClient, outside: Outside, peer: Address) -> bool:
    arrived = asyncio.ensure_future(_heard(outside.inbox, b"doctor back"))
    try:
        for _ in range(TRIES):
            await client.send(peer, b"doctor back")
            await asyncio.wait({arrived}, timeout=BETWEEN)
            if arrived.done():
                return True
        await asyncio.wait({arrived}, timeout=WAIT)
        return arrived.done()
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


async def private_peers(section: Section, client: TurnClient, relayed: Relayed, host: str) -> None:
    """Whether the relay keeps its users out of the networks behind it."""
    allowed: list[str] = []
    is_ipv6 = ":" in relayed.address.host
    forbidden = FORBIDDEN_IPV6 if is_ipv6 else FORBIDDEN
    for peer in forbidden:
        try:
            # A channel, not a permission: that is for an address whatever the port, and a relay
            # whose own address it is may grant it and carry nothing there but relayed traffic.
            await client.bind(Address(peer, DISCARD))
        except Refused:
            continue
        except (Silent, NotStun, Forged, OSError):
            section.warn("private", "the server stopped answering while it was asked for "
                         "private peers", "look at its log")  # fmt: skip
            return
        allowed.append(peer)
    if not allowed:
        section.ok("private", "private networks, the server itself and cloud metadata are refused")
        return
    names = ", ".join(forbidden[peer] for peer in allowed)
    says = f"users can reach {names} through the relay"
    then = (
        "take them out of turn.allow_peers and set turn.open_private_peers = false (coturn: "
        "denied-peer-ip=10.0.0.0-10.255.255.255 and so on)"
    )
    on_a_lan = ip_address(host).is_private and not set(allowed) & set(WORST)
    if on_a_lan:
        then = f"as it should be for a laptop or a LAN; on the internet, {then}"
    (section.warn if on_a_lan else section.fail)("private", says, then)


async def measure(
    section: Section, client: TurnClient, relayed: Relayed, other: TurnClient, second: Relayed
) -> None:
    """What arrives of a video call's packets, from one allocation to another, and how late."""
    try:
        channel = await client.bind(second.address)
        await other.permit(relayed.address.host)
        await other.bind(relayed.address)
    except Refused as refusal:
        section.skip("loss", f"the server does not relay to its own relayed addresses ({refusal}), "
                     "so no load was sent through it")  # fmt: skip
        return
    except (Silent, NotStun, Forged, OSError):
        section.warn("loss", "the server stopped answering before the load", "look at its log")
        return
    _drain(other.data)
    began, late = time.monotonic(), 0.0
    delays: dict[int, float] = {}
    collecting = asyncio.ensure_future(_collect(other, delays))
    for number in range(PACKETS):
        head = MARK.pack(MAGIC, number, time.monotonic())
        try:
            await client.send_channel(channel, head + bytes(PAYLOAD - len(head)))
        except OSError:
            break
        ahead = began + (number + 1) * PAUSE - time.monotonic()
        late = max(late, -ahead)
        await asyncio.sleep(max(0.0, ahead))
    await asyncio.wait({collecting}, timeout=LATE)
    collecting.cancel()
    if late > BUSY and len(delays) > PACKETS * (1 - OURS):
        section.skip("loss", f"this machine is too busy to measure: it was {late:.1f} s behind")
    else:
        _judge_loss(section, list(delays.values()))


async def _collect(other: TurnClient, arrived: dict[int, float]) -> None:
    while len(arrived) < PACKETS:
        _, payload = await other.data.get()
        if len(payload) >= MARK.size and payload[:4] == MAGIC:
            _, number, sent = MARK.unpack_from(payload)
            arrived.setdefault(number, time.monotonic() - sent)


def _judge_loss(section: Section, delays: Sequence[float]) -> None:
    loss = 1 - len(delays) / PACKETS
    if not delays:
        section.fail("loss", "not one packet came from one relayed address to the other",
                     "two users of this relay will not hear each other: are the relay's ports open "
                     "to itself?")  # fmt: skip
        return
    rate = PAYLOAD * 8 / PAUSE / 1e6
    way = f"{statistics.median(delays) * 1000:.1f} ms"
    jitter = statistics.pstdev(delays) * 1000
    lost = f"{loss:.1%} of {PACKETS}" if loss else f"none of {PACKETS}"
    says = f"{lost} packets lost at {rate:.1f} Mbit/s, through two relayed addresses"
    if loss > MUCH_LOSS:
        section.fail("loss", says, "look for a full link, or a relay or a firewall that is busy")
    elif loss > SOME_LOSS:
        section.warn("loss", says, "calls will have gaps; look for a full link or a busy relay")
    else:
        section.ok("loss", f"{says}; {way} on the way, jitter {jitter:.1f} ms")


def _drain(queue: "asyncio.Queue[tuple[Address, bytes]]") -> None:
    while not queue.empty():
        queue.get_nowait()
