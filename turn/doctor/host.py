"""What the relay will lack of this machine, before a client notices it."""

import asyncio
import resource
from pathlib import Path

from config.files import user
from config.section import StartError
from config.turn import TurnSettings
from turn import assemble
from turn.doctor.report import Section
from turn.external.asking import Unanswered, ask
from turn.external.watch import MEND_PORTS, hosts_to_ask
from turn.kernel.plane import HELD
from turn.transport.addresses import is_here, local_addresses

FEW_PORTS = 1000
DESCRIPTORS_BESIDE = 200
"""What a relay holds open beside one socket an allocation."""
LARGEST_BUFFER = Path("/proc/sys/net/core/rmem_max")
SMALL_BUFFER = 1 << 20
FIRST_FREE_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
STATUS = Path("/proc/self/status")
NET_BIND_SERVICE = 1 << 10
"""Among the capabilities (linux/capability.h)."""
TRACKED = Path("/proc/sys/net/netfilter")
NEARLY_FULL = 0.75
EXTERNAL_PATIENCE = 6.0
"""Seconds for all STUN servers together."""


def relay(section: Section, settings: TurnSettings) -> None:
    """What the relay needs of this machine."""
    if not settings.stun_only:
        _ports(section, settings)
        _descriptors(section, settings)
        _addresses(section, settings)
    _rights(section, settings)
    _buffers(section)
    _tracking(section)
    if not settings.stun_only:
        _plane(section, settings)


async def external(section: Section, settings: TurnSettings) -> None:
    """What STUN servers say of its relay addresses, where the relay will ask them."""
    if settings.stun_only or not settings.external_servers:
        return
    hosts = hosts_to_ask(settings, local_addresses())
    servers = settings.external_servers
    patience = EXTERNAL_PATIENCE / len(servers)
    answers = await asyncio.gather(*(ask(host, servers, patience) for host in hosts))
    for host, answer in zip(hosts, answers, strict=True):
        if isinstance(answer, Unanswered):
            section.warn(
                "external address",
                f"nobody tells the public address of {host}: {answer.reason}",
                "let UDP through to a STUN server that runs, write the address as a pair "
                f'("PUBLIC/{host}"), or leave {host} out of turn.relay_addresses',
            )
        elif answer is not None and not answer.keeps_port:
            section.warn(
                "external address",
                f"{answer.public} for {host}, but the NAT maps ports too ({answer.server} saw "
                "another one): peers would not reach what is relayed",
                MEND_PORTS,
            )
        elif answer is not None:
            nat = f"{answer.public} for {host}" if answer.public != host else f"{host}, without NAT"
            section.ok("external address", f"{nat} ({answer.server})")


def _ports(section: Section, settings: TurnSettings) -> None:
    first, last = settings.relay_ports
    size = last - first + 1
    if size < FEW_PORTS:
        section.warn(
            "ports",
            f"turn.relay_ports has {size} ports: as many allocations at a time, and a call takes "
            "up to four",
            "widen it, and the firewall with it",
        )
        return
    section.ok("ports", f"turn.relay_ports has {size} ports: open all of them for UDP")


def _descriptors(section: Section, settings: TurnSettings) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    first, last = settings.relay_ports
    wanted = min(settings.max_allocations or last - first + 1, last - first + 1)
    if most != resource.RLIM_INFINITY and most < wanted + DESCRIPTORS_BESIDE:
        section.warn(
            "descriptors",
            f"a process may open {most} files here, and {wanted} allocations want more",
            f"raise the limit (systemd: LimitNOFILE={wanted + 4096}; shell: ulimit -Hn), or lower "
            "turn.max_allocations",
        )
    else:
        section.ok("descriptors", "there are enough for every relay port")


def _addresses(section: Section, settings: TurnSettings) -> None:
    own = local_addresses()
    families = assemble.relay_addresses(settings, own)
    hosts = [host for found in families.values() for host in found]
    missing = [host for host in hosts if not is_here(host)]
    if not hosts:
        section.fail("addresses", "this machine has no address to relay from",
                     "bring its network up, or set turn.relay_addresses")  # fmt: skip
    elif missing:
        section.fail(
            "addresses",
            f"turn.relay_addresses has {', '.join(missing)}, which this machine has not",
            "take it out, or use turn.external_addresses for a public address behind 1:1 NAT",
        )
    else:
        section.ok("addresses", f"relays from {', '.join(hosts)}")


def _rights(section: Section, settings: TurnSettings) -> None:
    try:
        first = int(FIRST_FREE_PORT.read_text())
        (held,) = (line for line in STATUS.read_text().splitlines() if line.startswith("CapEff:"))
    except (OSError, ValueError):
        return
    low = sorted({endpoint.port for endpoint in settings.doors if 0 < endpoint.port < first})
    if low and not int(held.split()[1], 16) & NET_BIND_SERVICE:
        section.warn(
            "rights",
            f"a relay run by {user()} may not listen on {', '.join(map(str, low))}: ports below "
            f"{first} are root's",
            "give it CAP_NET_BIND_SERVICE (our systemd unit does), or have it sysctl -w "
            f"net.ipv4.ip_unprivileged_port_start={low[0]}",
        )
    elif low:
        section.ok("rights", f"ports below {first} may be listened on")


def _tracking(section: Section) -> None:
    try:
        count, most = (
            int((TRACKED / f"nf_conntrack_{name}").read_text()) for name in ("count", "max")
        )
    except (OSError, ValueError):
        return  # no firewall here keeps track
    if count > most * NEARLY_FULL:
        section.warn(
            "tracking",
            f"the firewall keeps track of {count} connections, of {most} at most: once it is full, "
            "packets are lost",
            f"sysctl -w net.netfilter.nf_conntrack_max={most * 4}, or have it leave out the "
            "relay's ports (notrack)",
        )
    else:
        section.ok(
            "tracking", f"the firewall keeps track of {count} connections, of {most} at most"
        )


def _buffers(section: Section) -> None:
    try:
        most = int(LARGEST_BUFFER.read_text())
    except (OSError, ValueError):
        return
    if most < SMALL_BUFFER:
        section.warn(
            "buffers",
            f"a socket's buffer is {most >> 10} KiB at most: bursts of many calls may be lost",
            "sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304",
        )
    else:
        section.ok("buffers", f"a socket's buffer is up to {most >> 10} KiB")


def _plane(section: Section, settings: TurnSettings) -> None:
    try:
        plane = assemble.data_plane(settings)
    except StartError as error:
        if HELD in str(error):
            section.ok("plane", "the kernel carries for the relay that runs")
            return
        section.fail(
            "plane",
            str(error),
            "run it as root or with CAP_BPF and CAP_NET_ADMIN (systemd: AmbientCapabilities), or "
            'set turn.data_plane = "auto"',
        )
        return
    try:
        # Another user's relay may have other rights: what it does, it says at its start.
        says = f"a relay run by {user()} has packets go by {plane.name} ({plane.reason})"
    finally:
        plane.stop()
    if HELD in plane.reason:
        section.ok("plane", "the kernel carries for the relay that runs")
        return
    if plane.name == "userspace" and settings.data_plane == "auto":
        says += "; the kernel would carry more"
    section.ok("plane", f"{says}; what one does, its log says (data plane)")
