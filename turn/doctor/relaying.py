"""Does the relay carry what it should: fast enough, and to nobody else."""

import asyncio
import statistics
import struct
import time
from collections.abc import Sequence
from ipaddress import ip_address

from turn.codec.values import Address
from turn.doctor.client import Forged, NotStun, Refused, Relayed, Silent, TurnClient
from turn.doctor.report import Section

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
PACKETS, PAYLOAD, PAUSE = 200, 1200, 0.006
"""Of the measurement: 1.6 Mbit/s for a second, what a video call takes."""
LATE = 1.0
"""Seconds after which a packet is lost."""
BUSY, OURS = 0.1, 0.15
"""Seconds behind the plan after which a loss up to this share may be our own."""
SOME_LOSS, MUCH_LOSS = 0.01, 0.05
LOSES = (
    "look for a full link, a relay or a firewall that is busy, or a limit that is lower "
    "(turn.max_bytes_per_second; coturn: max-bps)"
)
MARK = struct.Struct("!4sId")
MAGIC = b"ibdr"


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
        section.fail("loss", says, LOSES)
    elif loss > SOME_LOSS:
        section.warn("loss", says, f"calls will have gaps; {LOSES}")
    else:
        section.ok("loss", f"{says}; {way} on the way, jitter {jitter:.1f} ms")


def _drain(queue: "asyncio.Queue[tuple[Address, bytes]]") -> None:
    while not queue.empty():
        queue.get_nowait()
