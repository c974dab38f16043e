"""A relay behind 1:1 NAT that finds its public address by coturn, and is reached by it.

relay 10.0.0.5 --- 10.0.0.1 [NAT] 20.0.0.7, then 20.0.0.8 --- 20.0.0.2 coturn, client, peer

And behind one that maps ports too, where it is told that this will not do.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.conftest import need, need_root
from tests.interop.process import running
from tests.namespaces import cable, ip, namespaces, run, set_kernel
from tests.patience import PATIENCE, wait_until
from tests.turn.kernel.hosts import Host, HostClient, Relay
from turn.codec import registry
from turn.codec.channel import encode
from turn.codec.registry import Method
from turn.codec.values import Address
from turn.external import watch

# They look public, as the relay refuses to relay to others; no packet leaves the namespaces.
FIRST, SECOND = "20.0.0.7", "20.0.0.8"
STUN = ("20.0.0.2", 3478)
RULES = """
table ip one {
    chain in { type nat hook prerouting priority dstnat; }
    chain out { type nat hook postrouting priority srcnat; }
}
"""
WARNING = "the NAT is not 1:1: it maps ports too"


class Site:
    """The three hosts, and what the NAT makes of the one in the middle."""

    def __init__(self, name: str) -> None:
        self.relay = Host(f"{name}-relay", "eth0", "10.0.0.5", "fd00::5")
        self.nat = f"{name}-nat"
        self.world = Host(f"{name}-world", "eth0", STUN[0], "fd00:1::2")

    def attach(self) -> None:
        """Join them."""
        cable((self.relay.namespace, "eth0"), (self.nat, "in0"))
        cable((self.world.namespace, "eth0"), (self.nat, "out0"))
        ip(self.relay.namespace, "addr add 10.0.0.5/24 dev eth0", "link set eth0 up",
           "route add default via 10.0.0.1")  # fmt: skip
        ip(self.world.namespace, f"addr add {STUN[0]}/24 dev eth0", "link set eth0 up")
        ip(self.nat, "addr add 10.0.0.1/24 dev in0", "addr add 20.0.0.1/24 dev out0",
           f"addr add {FIRST}/24 dev out0", f"addr add {SECOND}/24 dev out0",
           "link set in0 up", "link set out0 up")  # fmt: skip
        set_kernel(self.nat, {"net/ipv4/ip_forward": "1"})
        self._nft(RULES)

    def public(self, host: str) -> None:
        """Have the world see the relay at this address from now on; both of them lead to it."""
        self._translate(f"ip daddr {{ {FIRST}, {SECOND} }} dnat to 10.0.0.5",
                        f"ip saddr 10.0.0.5 snat to {host}")  # fmt: skip

    def map_ports(self, host: str) -> None:
        """Hide the relay behind an address, by ports; only where it listens is led to it."""
        self._translate(f"ip daddr {host} udp dport 3478 dnat to 10.0.0.5",
                        f"udp sport != 3478 snat to {host}:20000-29999")  # fmt: skip

    def _translate(self, inward: str, outward: str) -> None:
        self._nft(
            "flush chain ip one in\nflush chain ip one out\n"
            f"add rule ip one in {inward}\nadd rule ip one out oifname out0 {outward}\n"
        )

    def _nft(self, lines: str) -> None:
        run("ip", "netns", "exec", self.nat, "nft", "-f", "-", given=lines)

    @contextmanager
    def coturn(self, folder: Path) -> Iterator[None]:
        """The STUN server that is asked."""
        with self.world.inside(), running(
            need("turnserver"), "-n", "--stun-only", "--no-cli", "--no-tls", "--no-dtls",
            "-L", STUN[0], "--log-file", "stdout", "--pidfile", str(folder / "pid"),
        ):  # fmt: skip
            wait_until(lambda: f"{STUN[0]}:{STUN[1]}" in self.world.run("ss", "-Hlun"))
            yield


@pytest.fixture(name="site", scope="module")
def site_fixture() -> Iterator[Site]:
    need_root("network namespaces")
    need("nft")
    made = Site(f"ie{os.getpid()}")
    with namespaces([made.relay.namespace, made.nat, made.world.namespace]):
        made.attach()
        yield made


@contextmanager
def behind(site: Site) -> Iterator[Relay]:
    one = Relay(
        site.relay, listen=["10.0.0.5:3478"], allow_peers=[],
        external_addresses=[f"stun:{STUN[0]}:{STUN[1]}"],
    )  # fmt: skip
    try:
        yield one
    finally:
        one.stop()


class Call:
    """A client that has come by a public address, and a peer of its."""

    def __init__(self, site: Site, public: str) -> None:
        self.peer = site.world.udp()
        self.client = HostClient(site.world, (public, 3478))
        self.relayed: Address = self.client.do(self.client.allocate())
        reply = self.client.do(
            self.client.request(
                Method.CHANNEL_BIND,
                (registry.CHANNEL_NUMBER, 0x4000),
                (registry.XOR_PEER_ADDRESS, Address(*self.peer.getsockname())),
            )
        )
        assert not reply.has(registry.ERROR_CODE)
        self.client.sock.setblocking(True)
        self.client.sock.settimeout(PATIENCE)

    def goes_through(self) -> None:
        """See that the peer reaches the client where it says it is, and is reached."""
        self.peer.sendto(b"to the client", self.relayed)
        assert self.client.sock.recv(2048) == encode(0x4000, b"to the client", padded=False)
        self.client.sock.send(encode(0x4000, b"to the peer", padded=False))
        assert self.peer.recv(2048) == b"to the peer"

    def close(self) -> None:
        self.peer.close()
        self.client.sock.close()


def test_it_is_found_and_followed(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch, "EVERY", 0.1)
    site.public(FIRST)
    with capture_logs() as told, site.coturn(tmp_path), behind(site) as one:
        old = Call(site, FIRST)
        assert old.relayed.host == FIRST
        old.goes_through()
        site.public(SECOND)
        wait_until(lambda: one.call(lambda: one.service.relay_addresses) == [SECOND])
        new = Call(site, SECOND)
        assert new.relayed.host == SECOND
        new.goes_through()
        old.goes_through()
        for call in (old, new):
            call.close()
        (entry,) = one.call(lambda: one.service.figures().external)
        assert entry.keeps_ports
    assert WARNING not in [line["event"] for line in told]


def test_a_nat_that_maps_ports_is_told_once_and_lets_no_peer_in(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch, "EVERY", 0.05)
    site.map_ports(FIRST)
    with capture_logs() as told, site.coturn(tmp_path), behind(site) as one:

        def confirmed() -> float:
            (entry,) = one.call(lambda: one.service.figures().external)
            assert (entry.local, entry.public, entry.keeps_ports) == ("10.0.0.5", FIRST, False)
            return float(entry.confirmed)

        first = confirmed()
        call = Call(site, FIRST)
        assert call.relayed.host == FIRST
        call.peer.connect(call.relayed)
        call.peer.settimeout(PATIENCE)
        call.peer.send(b"to the client")
        with pytest.raises(ConnectionRefusedError):  # the NAT has nobody at that port
            call.peer.recv(2048)
        call.close()
        wait_until(lambda: confirmed() > first + 0.2)  # several rounds have passed
    (warning,) = [line for line in told if line["event"] == WARNING]
    assert (warning["log_level"], warning["local"]) == ("warning", "10.0.0.5")
    assert (warning["public"], "turn.relay_ports" in warning["next"]) == (FIRST, True)


def test_coturn_is_away_at_the_start_and_comes(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch, "EVERY", 0.2)
    monkeypatch.setattr(watch, "FIRST_PAUSE", 0.1)
    site.public(FIRST)
    with capture_logs() as told, behind(site) as one:

        def warnings() -> list[str]:
            return [line["meanwhile"] for line in told if line["log_level"] == "warning"]

        def clients_are_told() -> list[str]:
            found: list[str] = one.call(lambda: one.service.relay_addresses)
            return found

        assert warnings() == ["clients are told the local one"]
        assert told[-1]["reason"] == "stun:20.0.0.2:3478: Connection refused"
        assert clients_are_told() == ["10.0.0.5"]
        with site.coturn(tmp_path):
            wait_until(lambda: clients_are_told() == [FIRST])
            call = Call(site, FIRST)
            call.goes_through()
            call.close()
        wait_until(lambda: len(warnings()) == 2)
        assert warnings()[1] == "the last one stays"
        assert clients_are_told() == [FIRST]
