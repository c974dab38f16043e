"""SIGHUP: a configuration is applied whole or refused whole, and what runs goes on."""

import json
import signal
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.certificates import certificate
from tests.interop.process import samples
from tests.namespaces import looping
from tests.patience import PATIENCE
from tests.shell import NO_DRAIN, Ports, Shell
from tests.turn.external.mirror import Mirror, mirror

SECRET, OTHER = "the first secret of the tests", "the second secret of the tests"


def configuration(ports: Ports, *, secret=SECRET, turn="", signaling="", port=0) -> str:
    return (
        f'[turn]\nlisten = "127.0.0.1:{port or ports.turn}"\nsecret = "{secret}"\n{turn}\n'
        f'[signaling]\nlisten = "127.0.0.1:{ports.signaling}"\n{signaling}\n'
        f'[admin]\nlisten = "127.0.0.1:{ports.admin}"\n'
    )


def ice(ports: Ports) -> dict[str, object]:
    with urllib.request.urlopen(f"http://127.0.0.1:{ports.signaling}/ice") as page:
        found: dict[str, object] = json.load(page)
        return found


def reloaded(ports: Ports) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{ports.admin}/metrics") as page:
        return samples(page.read().decode())["icebroker_config_reloaded"]


async def test_what_may_change_changes_and_sessions_go_on(shell: Shell, ports: Ports):
    shell.write(configuration(ports))
    with shell.running("serve") as service:
        service.banner()
        url = f"http://127.0.0.1:{ports.signaling}"
        async with aiohttp.ClientSession() as http, http.ws_connect(f"{url}/ws") as ws:
            await ws.send_json({"type": "hello"})
            assert (await ws.receive_json())["type"] == "welcome"
            before = ice(ports)
            assert before["ttl"] == 3600
            shell.write(configuration(ports, secret=OTHER, signaling='ice_ttl = "10m"'))
            service.process.send_signal(signal.SIGHUP)
            service.wait_for(lambda: ice(ports)["ttl"] == 600)
            await ws.send_json({"type": "join", "id": "1", "room": "r"})
            assert (await ws.receive_json())["type"] == "joined"
        assert service.end(signal.SIGTERM) < NO_DRAIN


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"turn": "no_such_key = 1"}, "icebroker.toml:4: turn.no_such_key: no such key"),
        ({"turn": 'allow_peers = ["10.0.0.1/8"]'}, "icebroker.toml:4: turn.allow_peers"),
        ({"port": 1}, "icebroker.toml:2: turn.listen: only a restart can change this"),
        ({"signaling": "pages = false"}, "signaling.pages: only a restart can change this"),
    ],
)
def test_what_is_wrong_is_refused_and_the_old_one_stays(
    shell: Shell, ports: Ports, change: dict[str, object], words: str
):
    shell.write(configuration(ports))
    with shell.running("serve") as service:
        service.banner()
        before = ice(ports)["ttl"]
        merged = {"signaling": "ice_ttl = 600", **change}
        if "signaling" in change:
            merged["signaling"] = f"{change['signaling']}\nice_ttl = 600"
        shell.write(configuration(ports, **merged))
        service.process.send_signal(signal.SIGHUP)
        service.wait_for(lambda: "configuration refused" in service.log.read_text())
        assert words in service.log.read_text()
        assert ice(ports)["ttl"] == before
        assert reloaded(ports) == 0
        shell.write(configuration(ports, signaling="ice_ttl = 700"))
        service.process.send_signal(signal.SIGHUP)
        service.wait_for(lambda: ice(ports)["ttl"] == 700)
        assert reloaded(ports) == 1
        assert service.end(signal.SIGTERM) < NO_DRAIN


def not_after(ports: Ports, trust: Path) -> tuple[str, float]:
    """When the certificate of the pages ends: as a browser sees it, and as the metrics say."""
    context = ssl.create_default_context(cafile=trust)
    with (
        socket.create_connection(("127.0.0.1", ports.signaling), PATIENCE) as tcp,
        context.wrap_socket(tcp, server_hostname="127.0.0.1") as tls,
        urllib.request.urlopen(f"http://127.0.0.1:{ports.admin}/metrics") as page,
    ):
        metrics = samples(page.read().decode())
        shown = (tls.getpeercert() or {})["notAfter"]
        return str(shown), metrics[
            "icebroker_signaling_tls_certificate_not_after_timestamp_seconds"
        ]


def test_the_certificate_of_the_pages_is_renewed(shell: Shell, ports: Ports, tmp_path: Path):
    pem, key = certificate(tmp_path, days=9)
    files = f'tls_certificate = "{pem}"\ntls_key = "{key}"'
    shell.write(configuration(ports, signaling=files))
    with shell.running("serve") as service:
        service.banner()
        shown, told = not_after(ports, pem)
        assert ssl.cert_time_to_seconds(shown) == int(told)
        certificate(tmp_path, days=99)
        service.process.send_signal(signal.SIGHUP)
        service.wait_for(lambda: "configuration reloaded" in service.log.read_text())
        later, told_later = not_after(ports, pem)
        assert ssl.cert_time_to_seconds(later) == int(told_later)
        assert 89 * 86400 < told_later - told < 91 * 86400
        assert service.end(signal.SIGTERM) < NO_DRAIN


def test_a_certificate_for_the_lan_that_cannot_be_renewed_ends_nothing(shell: Shell, ports: Ports):
    with shell.running("serve", "--lan", **ports.variables()) as service:
        service.banner()
        cache = shell.folder / "cache" / "icebroker"
        cache.rename(shell.folder / "before")
        cache.write_text("no folder")
        service.process.send_signal(signal.SIGHUP)
        service.wait_for(lambda: "configuration refused" in service.log.read_text())
        assert "the certificate for --lan cannot be kept" in service.log.read_text()
        assert service.end(signal.SIGTERM) < NO_DRAIN


def test_what_is_open_to_the_lan_is_reloaded_too(shell: Shell, ports: Ports):
    with shell.running("serve", "--lan", **ports.variables()) as service:
        service.banner()
        service.process.send_signal(signal.SIGHUP)
        service.wait_for(lambda: "configuration re" in service.log.read_text())
        assert "configuration reloaded" in service.log.read_text()
        assert service.end(signal.SIGTERM) < NO_DRAIN


@contextmanager
def stun_server(public: str) -> Iterator[Mirror]:
    """Somebody else's STUN server, in a thread of its own."""
    opened = mirror(public)
    with looping() as start:
        made = start(opened.__aenter__()).result(PATIENCE)
        try:
            yield made
        finally:
            start(opened.__aexit__(None, None, None)).result(PATIENCE)


def test_the_relay_in_the_same_process_tells_signaling_its_public_address(
    shell: Shell, ports: Ports
):
    def hosts() -> set[str]:
        servers = ice(ports)["iceServers"]
        assert isinstance(servers, list)
        return {url.split(":")[1] for server in servers for url in server["urls"]}

    with stun_server("203.0.113.7") as one:
        asked = f'external_addresses = ["{one.server}"]'
        shell.write(configuration(ports, turn=asked))
        with shell.running("serve") as service:
            assert "turn:203.0.113.7:" in service.banner()
            assert hosts() == {"203.0.113.7"}
            one.public = "203.0.113.8"
            service.process.send_signal(signal.SIGHUP)
            service.wait_for(lambda: hosts() == {"203.0.113.8"})
            shell.write(configuration(ports))
            service.process.send_signal(signal.SIGHUP)
            service.wait_for(lambda: hosts() == {"127.0.0.1"})
            service.end(signal.SIGTERM)
