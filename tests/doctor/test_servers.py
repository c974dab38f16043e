"""What the doctor says of servers without a fault, of their clocks, and of the way to them."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.doctor.lab import SECOND, SERVER, Lab, coturn, icebroker, lab, need_lab, skewed_icebroker
from tests.doctor.plants import DTLS, GOOD, SERVERS, TCP, TLS, UDP, F, Plant, W, serving, tell
from tests.turn.kernel.hosts import Host
from turn.doctor.report import Status


@pytest.fixture(scope="module")
def hosts() -> Iterator[Lab]:
    need_lab()
    with lab() as found:
        yield found


@pytest.fixture(autouse=True)
def _open_again(hosts: Lab) -> Iterator[None]:
    yield
    hosts.open_firewall()


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("url", [UDP, TCP, TLS, DTLS])
def test_a_server_without_a_fault_has_none(
    hosts: Lab, tmp_path: Path, server: str, url: str
) -> None:
    plant = Plant("none", tls={}, ours={"listen_dtls": [f"{SERVER}:5349"]})
    with serving(hosts, tmp_path, plant, server) as options:
        section = hosts.examine(url, GOOD, load=True, **options)
    assert section.passed, tell(section)
    assert not section.of(Status.WARN), tell(section)
    done = {one.check for one in section.of(Status.OK)}
    assert {"stun", "credentials", "allocation", "echo", "range", "private"} <= done, tell(section)
    (loss,) = (one for one in section.findings if one.check == "loss")
    assert loss.status is Status.OK or "too busy" in loss.says, tell(section)
    assert ("ice" in done) == (url in {UDP, TCP})


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("shift", "status", "words"),
    [("+3h", F, "is ahead of ours by 1 hour to 6 hours"), ("-1h", W, "is behind ours")],
)
def test_a_clock_that_is_wrong(
    hosts: Lab, tmp_path: Path, server: str, shift: str, status: Status, words: str
) -> None:
    start = (
        skewed_icebroker(hosts, tmp_path, shift)
        if server == "ours"
        else coturn(hosts, tmp_path, shift=shift)
    )
    with start:
        section = hosts.examine(UDP, GOOD)
    found = [one for one in section.findings if one.check == "clock"]
    assert [one.status for one in found] == [status], tell(section)
    assert words in found[0].says
    assert "NTP" in found[0].next


def test_a_relay_that_refuses_itself_is_not_called_closed(hosts: Lab, tmp_path: Path) -> None:
    with icebroker(hosts, tmp_path):
        section = hosts.examine(UDP, GOOD, at_server=True)
    assert section.passed, tell(section)
    (echo,) = (one for one in section.findings if one.check == "echo")
    assert echo.status is Status.SKIP
    assert "the relay's own machine" in echo.says
    assert "on another machine" in echo.next


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_kind_of_nat(hosts: Lab, tmp_path: Path, server: str, *, symmetric: bool) -> None:
    places = [f"{SERVER}:3478", f"{SECOND}:3479"]
    start = (
        icebroker(hosts, tmp_path, nat_discovery=places)
        if server == "ours"
        else coturn(hosts, tmp_path, "un--no-rfc5780", "-L", SECOND)
    )
    if symmetric:
        hosts.symmetric_nat()
    with start:
        section = hosts.examine(UDP, GOOD)
    assert section.passed, tell(section)
    (nat,) = (one for one in section.findings if one.check == "nat")
    if symmetric:
        assert (nat.status, "(symmetric)" in nat.says) == (W, True), tell(section)
    else:
        assert (nat.status, "one mapping" in nat.says) == (Status.OK, True), tell(section)


@pytest.mark.parametrize("symmetric", [False, True])
def test_two_servers_tell_the_kind_of_nat(hosts: Lab, tmp_path: Path, *, symmetric: bool) -> None:
    if symmetric:
        hosts.symmetric_nat()
    with icebroker(hosts, tmp_path, listen=[f"{SERVER}:3478", f"{SECOND}:3478"]):
        sections = hosts.examine_all(f"stun:{SERVER}", f"stun:{SECOND}")
        (alone,) = hosts.examine_all(f"stun:{SERVER}")
    kinds = [one.status for section in sections for one in section.findings if one.check == "nat"]
    assert kinds == [W if symmetric else Status.OK] * 2, [tell(section) for section in sections]
    assert [one.status for one in alone.findings if one.check == "nat"] == [Status.SKIP]


def test_a_relay_of_ipv6_alone(hosts: Lab, tmp_path: Path) -> None:
    address = hosts.server.ipv6
    with icebroker(
        hosts,
        tmp_path,
        listen=[f"[{address}]:3478"],
        relay_addresses=[address],
        allow_peers=["fd00::/8"],
    ):
        section = hosts.examine(f"turn:[{address}]", GOOD, load=True)
    found = {one.check: one for one in section.findings}
    assert found["echo"].status is Status.OK, tell(section)
    assert (found["private"].status, "fc00::/7" in found["private"].says) == (F, True)
    assert (found["family"].status, "IPv6 addresses only" in found["family"].says) == (W, True)
    assert "turn.default_address_family" in found["family"].next


def test_a_relay_of_ipv6_alone_that_browsers_can_use(hosts: Lab, tmp_path: Path) -> None:
    address = hosts.server.ipv6
    changes = {"relay_addresses": [address], "default_address_family": "client"}
    with icebroker(hosts, tmp_path, listen=[f"[{address}]:3478"], **changes):
        section = hosts.examine(f"turn:[{address}]", GOOD, load=True)
    assert section.passed, tell(section)
    found = {one.check: one for one in section.findings}
    assert "family" not in found
    loss = found["loss"]
    assert loss.status is Status.OK or "too busy" in loss.says, tell(section)


class Page(http.server.BaseHTTPRequestHandler):
    """A web server, to be taken for a relay."""

    def log_message(self, *_: object) -> None:
        pass


def test_a_web_server_is_told_from_a_relay(hosts: Lab) -> None:
    with web_server(hosts.server) as port:
        section = hosts.examine(f"turn:{SERVER}:{port}?transport=tcp", GOOD)
    (failed,) = section.of(F)
    assert (failed.check, "it is a web server" in failed.says) == ("stun", True), tell(section)


@contextmanager
def web_server(host: Host) -> Iterator[int]:
    with host.inside():
        server = http.server.ThreadingHTTPServer((SERVER, 0), Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
