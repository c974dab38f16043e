"""A small Internet of namespaces: a core that knows public addresses only, sites, and Icebroker.

host --- lan [router] wan --- core --- [server: Icebroker]
"""

import itertools
import os
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.certificates import certificate
from tests.interop.process import icebroker, samples
from tests.namespaces import cable, inside, ip, namespaces, run, set_kernel
from tests.natlab.networks import PROXY, Kind
from tests.natlab.tunnel import connect_proxy, forwarder

_LABS = itertools.count()
FORWARD = {"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}
# They look public, as the relay refuses to relay to others; no packet leaves the namespaces.
PAGES = ("20.0.0.10", "2a00:20::10")
"""Where HTTPS is served."""
RELAY = ("20.0.0.11", "2a00:20::11")
"""Where STUN and TURN are, and where is relayed from."""
PROXY_PORT = 3128


class Site(NamedTuple):
    """A host in a network of some kind."""

    kind: Kind
    namespace: str
    proxy: tuple[str, int] | None
    """The only way out, where there is one."""

    @property
    def url(self) -> str:
        """Icebroker's pages, by the address family that is here."""
        return f"https://{PAGES[0]}" if self.kind.ipv4 else f"https://[{PAGES[1]}]"

    @property
    def relay(self) -> str:
        """The relay's address in the family that is here, as a URL has it."""
        return RELAY[0] if self.kind.ipv4 else f"[{RELAY[1]}]"


class Internet:
    """The core, the server, and the sites that are attached now."""

    def __init__(self, name: str, certificate: Path) -> None:
        self.name = name
        self.certificate = certificate
        self._numbers = itertools.count(1)

    @property
    def core(self) -> str:
        """The core's namespace."""
        return f"{self.name}-core"

    @property
    def server(self) -> str:
        """The server's namespace."""
        return f"{self.name}-server"

    def metrics(self) -> dict[str, float]:
        """Every sample of Icebroker's metrics page."""
        with inside(self.server), urllib.request.urlopen("http://127.0.0.1:9641/metrics") as page:
            return samples(page.read().decode())

    def trust(self) -> ssl.SSLContext:
        """A context that trusts the server's certificate."""
        return ssl.create_default_context(cafile=str(self.certificate))

    @contextmanager
    def site(self, kind: Kind, hosts: int = 1) -> Iterator[list[Site]]:
        """Attach a network with so many hosts in it."""
        number = next(self._numbers)
        names = [f"{self.name}-s{number}h{host}" for host in range(hosts)]
        with ExitStack() as stack:
            stack.enter_context(namespaces(names))
            if not kind.rules:
                self._attach(number, names[0])
                yield [Site(kind, names[0], None)]
                return
            router = f"{self.name}-s{number}r"
            stack.enter_context(namespaces([router]))
            self._attach(number, router)
            set_kernel(router, FORWARD)
            gateways = _lan(router, names, number, kind)
            if not kind.ipv4:
                ip(self.core, f"route add {_prefix(number, 1)}::/64 via {_prefix(number)}::2")
            with inside(router):
                run("nft", "-f", "-", given=f"table inet site {{\n{kind.rules}\n}}")
                proxy = (gateways[0], PROXY_PORT) if kind is PROXY else None
                if proxy:
                    stack.enter_context(connect_proxy(proxy))
            yield [Site(kind, name, proxy) for name in names]

    def _attach(self, number: int, namespace: str) -> None:
        """Give a namespace a public address of each family, and a way to the others."""
        gate = f"site{number}"
        cable((self.core, gate), (namespace, "wan"))
        ip(
            self.core,
            f"addr add 30.0.{number}.1/24 dev {gate}",
            f"addr add {_prefix(number)}::1/64 dev {gate} nodad",
            f"link set {gate} up",
        )
        ip(
            namespace,
            f"addr add 30.0.{number}.2/24 dev wan",
            f"addr add {_prefix(number)}::2/64 dev wan nodad",
            "link set wan up",
            f"route add default via 30.0.{number}.1",
            f"route add ::/0 via {_prefix(number)}::1",
        )


def _prefix(number: int, lan: int = 0) -> str:
    return f"2a00:30:{number}:{lan}"


def _lan(router: str, hosts: list[str], number: int, kind: Kind) -> list[str]:
    """Join hosts to their router; gives its address in each family."""
    families = []
    if kind.ipv4:
        families.append((f"192.168.{number}.", 24, "0.0.0.0/0"))
    if kind.ipv6:
        families.append((f"{_prefix(number, 1)}::", 64, "::/0"))
    gateways = [f"{prefix}1" for prefix, _, _ in families]
    ip(
        router,
        "link add lan type bridge",
        "link set lan up",
        *(f"addr add {prefix}1/{length} dev lan" for prefix, length, _ in families),
    )
    for place, host in enumerate(hosts, 2):
        cable((host, "eth0"), (router, f"port{place}"))
        ip(router, f"link set port{place} master lan up")
        ip(
            host,
            *(f"addr add {prefix}{place}/{length} dev eth0" for prefix, length, _ in families),
            "link set eth0 up",
            *(f"route add {everywhere} via {prefix}1" for prefix, _, everywhere in families),
        )
    return gateways


def certificate_of_the_server(folder: Path) -> tuple[Path, Path]:
    """A certificate that is good for every server of the laboratory, and its key."""
    return certificate(folder, *PAGES, *RELAY)


@contextmanager
def internet(folder: Path, certificate: Path, key: Path) -> Iterator[Internet]:
    """Make one, with ``icebroker serve`` in it as a process of its own. Needs root.

    :param folder: takes its configuration and its log.
    """
    made = Internet(f"ib{os.getpid()}n{next(_LABS)}", certificate)
    with namespaces([made.core, made.server]):
        set_kernel(made.core, FORWARD)
        cable((made.core, "server"), (made.server, "eth0"))
        ip(
            made.core,
            "addr add 20.0.0.1/24 dev server",
            "addr add 2a00:20::1/64 dev server nodad",
            "link set server up",
        )
        ip(
            made.server,
            *(f"addr add {address}/24 dev eth0" for address in (PAGES[0], RELAY[0])),
            *(f"addr add {address}/64 dev eth0 nodad" for address in (PAGES[1], RELAY[1])),
            "link set eth0 up",
            "route add default via 20.0.0.1",
            "route add ::/0 via 2a00:20::1",
        )
        file = folder / "icebroker.toml"
        file.write_text(_configuration(certificate, key))
        with ExitStack() as stack:
            with inside(made.server):
                running = icebroker(["serve", "-c", str(file)], 9641, folder / "icebroker.log")
                stack.enter_context(running)
                # Signaling listens on one address; whoever has IPv6 only comes by this way.
                stack.enter_context(forwarder((PAGES[1], 443), (PAGES[0], 443)))
            yield made


def _configuration(certificate: Path, key: Path) -> str:
    """What an operator with two public addresses writes: port 443 of one is for TURN."""
    return f"""
        [turn]
        listen = ["{RELAY[0]}:3478", "[{RELAY[1]}]:3478"]
        listen_tls = ["{RELAY[0]}:443", "[{RELAY[1]}]:443"]
        tls_certificate = "{certificate}"
        tls_key = "{key}"
        relay_addresses = ["{RELAY[0]}", "{RELAY[1]}"]
        secret = "the relay's secret in the laboratory"
        [signaling]
        listen = "{PAGES[0]}:443"
        tls_certificate = "{certificate}"
        tls_key = "{key}"
        open = true
        """
