"""Faults: how each is planted on either server, what is asked, and what has to be said."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.certificates import certificate
from tests.doctor.lab import (
    NOWHERE,
    PASSWORD,
    SECRET,
    SERVER,
    USER,
    Lab,
    coturn,
    icebroker,
)
from turn.auth.ephemeral import mint
from turn.doctor.report import Section, Status
from turn.doctor.target import Credentials

SERVERS = ("ours", "coturn")
GOOD = Credentials(secret=SECRET)
UDP, TCP, TLS = f"turn:{SERVER}", f"turn:{SERVER}?transport=tcp", f"turns:{SERVER}"
DTLS = f"turns:{SERVER}?transport=udp"
NONE: dict[str, Any] = {}


class Plant(NamedTuple):
    """A fault on either server."""

    name: str
    ours: dict[str, Any] | None = NONE
    coturn: tuple[str, ...] | None = ()
    url: str = UDP
    credentials: Credentials = GOOD
    firewall: tuple[str, ...] = ()
    found: tuple[str, Status, str] = ("", Status.OK, "")
    """Check, how it went, and words that it has to be told with."""
    then: str = ""
    """Words of the next step."""
    held: int = 0
    """Allocations that are held by others meanwhile."""
    options: dict[str, Any] = NONE
    tls: dict[str, Any] | None = None
    """What is special about the certificate; None: the server has no TLS."""


F, W = Status.FAIL, Status.WARN


def expired(secret: str) -> Credentials:
    return Credentials(*mint(secret, "anna", int(time.time()) - 7200))


def fresh(secret: str) -> Credentials:
    return Credentials(*mint(secret, "anna", int(time.time()) + 7200))


NO_EXTERNAL = ("-X", f"{NOWHERE}/{SERVER}")
PORTS = "udp dport 49152-65535"
FIRST_PORT = f"{PORTS} meter first size 1 {{ udp dport limit rate 100000/second }} accept"
"""Lets in what is for the first relayed port that anything is for, and for no other."""
PLANTS = [
    Plant("the shared secret is another", credentials=Credentials(secret="another secret 16+"),
          found=("credentials", F, "refuses credentials made with our secret"), then="same secret"),
    Plant("a wrong password", coturn=("--lt-cred-mech", "-u", f"{USER}:{PASSWORD}"),
          credentials=Credentials(USER, "wrong"),
          found=("credentials", F, "refuses the user name or the password"), then="case-sensitive"),
    Plant("expired credentials", credentials=expired(SECRET),
          found=("credentials", F, "expired 2 hours ago"), then="fetch fresh ones"),
    Plant("credentials of another secret", credentials=fresh("another secret 16+"),
          found=("credentials", F, "by our clock they are good"), then="another secret made them"),
    Plant("UDP is blocked", firewall=("udp dport 3478 drop",),
          found=("port", F, "TCP on the same port does: UDP is blocked"),
          then="open UDP port 3478"),
    Plant("TCP is blocked", url=TCP, firewall=("tcp dport 3478 drop",),
          found=("port", F, "does not answer"), then="open TCP port 3478"),
    Plant("nothing listens there, UDP", url=f"turn:{SERVER}:4000",
          found=("port", F, "nothing listens on UDP"), then="start the server"),
    Plant("nothing listens there, TCP", url=f"turn:{SERVER}:4000?transport=tcp",
          found=("port", F, "nothing listens on TCP"), then="start the server"),
    Plant("the server is gone altogether", ours=None, coturn=None, url=f"turn:{NOWHERE}",
          found=("port", F, "does not answer"), then="start the server"),
    Plant("the relay's ports are closed", firewall=(f"{PORTS} drop",),
          found=("echo", F, "its port is closed from outside"), then="open turn.relay_ports"),
    Plant("a part of the relay's ports is closed", firewall=(FIRST_PORT, f"{PORTS} drop"),
          options={"load": True}, found=("range", F, "more relayed ports, 5 are closed from"),
          then="open all of turn.relay_ports"),
    Plant("large packets are lost", firewall=(f"{PORTS} meta length > 1200 drop",),
          found=("size", F, "packets of 1,200 bytes do not reach the relayed address"),
          then="a small MTU"),
    Plant("a wrong external address", ours={"external_addresses": [NOWHERE]}, coturn=NO_EXTERNAL,
          found=("echo", F, f"while the server is at {SERVER}"), then="turn.external_addresses"),
    Plant("a private relayed address", ours={"external_addresses": ["10.1.2.3"]},
          coturn=("-X", f"10.1.2.3/{SERVER}"),
          found=("allocation", F, "private, though the server is at"), then="external_addresses"),
    Plant("the certificate has expired", url=TLS, tls={"days": -1},
          found=("certificate", F, "the certificate expired on"), then="renew it"),
    Plant("the certificate expires soon", url=TLS, tls={"days": 5.5},
          found=("certificate", W, "expires in 5 days"), then="renew it"),
    Plant("the certificate is another's", url=TLS, tls={"host": "other.example.org"},
          found=("name", F, f"is for other.example.org, not for {SERVER}"), then="turn.hostname"),
    Plant("nobody knows the authority", url=TLS, tls={"trusted": False},
          found=("trust", F, "do not trust the certificate: self-signed"), then="fullchain.pem"),
    Plant("turns: at a port without TLS", url=f"turns:{SERVER}:3478",
          found=("tls", F, "does not speak TLS"), then="use turn: for this port"),
    # coturn serves both on one port.
    Plant("turn: at the port of TLS", url=f"turn:{SERVER}:5349?transport=tcp", tls={}, coturn=None,
          found=("stun", F, "speaks TLS"), then="use turns:"),
    Plant("private networks are relayed to", ours={"open_private_peers": True},
          coturn=("un--denied-peer-ip=10.0.0.0-10.255.255.255",),
          found=("private", F, "10.0.0.0/8"), then="denied-peer-ip"),
    Plant("the cloud's metadata can be reached", ours={"allow_peers": ["169.254.0.0/16"]},
          coturn=("un--denied-peer-ip=169.254.0.0-169.254.255.255",),
          found=("private", F, "the cloud's metadata (169.254.169.254)"), then="allow_peers"),
    Plant("it is for a media server alone",
          ours={"only_allowed_peers": True, "allow_peers": ["10.1.2.3"]},
          coturn=("--denied-peer-ip=0.0.0.0-255.255.255.255",),
          found=("ice", W, "do not meet"), then="turn.only_allowed_peers"),
    Plant("the user has its quota", ours={"max_allocations_per_user": 1},
          coturn=("--user-quota=1",), held=1,
          found=("allocation", F, "as many allocations as it may (486)"), then="release"),
    Plant("no relay port is left", ours={"relay_ports": "50000-50001"},
          coturn=("un---min-port", "--min-port", "50000", "--max-port", "50001"), held=2,
          found=("allocation", F, "no relay port left"), then="widen turn.relay_ports"),
    Plant("packets are lost", firewall=(f"{PORTS} numgen random mod 100 < 25 drop",),
          options={"load": True}, found=("loss", F, "packets lost at"), then="busy"),
    # By a count, not by chance: five in a row are lost, and that is no closed port.
    Plant("most packets are lost", coturn=None, firewall=(f"{PORTS} numgen inc mod 6 < 5 drop",),
          options={"load": True}, found=("loss", F, "packets lost at"), then="busy"),
    Plant("the server lets anyone relay", ours=None, coturn=("--no-auth",),
          found=("open", F, "it asks for no credentials"), then="at once"),
    Plant("a STUN server without TURN", ours=None, coturn=("--stun-only",),
          found=("turn", F, "TURN"), then="TURN"),
    Plant("only SHA-256 is taken", ours={"auth_minimum": "sha256"}, coturn=None,
          found=("credentials", F, "no browser speaks"), then='auth_minimum = "sha1"'),
    Plant("no such name", ours=None, coturn=None, url="turn:no-such-host.invalid",
          found=("dns", F, "has no address"), then="add an A"),
]  # fmt: skip


@contextmanager
def serving(hosts: Lab, folder: Path, plant: Plant, server: str) -> Iterator[dict[str, Any]]:
    """That server with that fault; gives what the doctor is told besides."""
    options = dict(plant.options)
    changes, arguments = dict(plant.ours or {}), list(plant.coturn or ())
    if plant.tls is not None:
        special = dict(plant.tls)
        trusted = special.pop("trusted", True)
        host = special.pop("host", SERVER)
        made = certificate(folder, host, **{"days": 90, "authority": True} | special)
        options |= {"authority": made[0]} if trusted else {}
        pem, key = map(str, made)
        places = [f"{SERVER}:5349"]
        changes |= {"listen_tls": places, "tls_certificate": pem, "tls_key": key}
        arguments += ["--cert", pem, "--pkey", key]
    if server == "nobody":
        yield options
    elif server == "ours":
        with icebroker(hosts, folder, **changes):
            yield options
    else:
        with coturn(hosts, folder, *arguments):
            yield options


def examined(hosts: Lab, folder: Path, plant: Plant, server: str) -> Section:
    """What the doctor finds at that server with that fault."""
    with ExitStack() as stack:
        options = stack.enter_context(serving(hosts, folder, plant, server))
        credentials = plant.credentials
        if plant.held:  # by the same user, whose quota it is
            credentials = fresh(SECRET)
            stack.enter_context(hosts.held(credentials, plant.held))
        if plant.firewall:
            hosts.firewall(*plant.firewall)
        return hosts.examine(plant.url, credentials, **options)


def tell(section: Section) -> str:
    """All of a section, for whoever reads why a test has failed."""
    return "\n".join(f"{f.status} {f.check}: {f.says} -> {f.next}" for f in section.findings)
