"""The API of a whole process: what it changes, and what a restart by another configuration does."""

import json
import signal
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.interop.process import samples
from tests.patience import PATIENCE
from tests.shell import NO_DRAIN, Ports, Service, get

TOKEN = "the operator's token of the tests"


def ask(base: str, path: str, token: str, method: str = "GET", body: Any = None) -> Any:
    """What the API answers, whatever the status."""
    request = urllib.request.Request(
        f"{base}/api/v1/{path}",
        method=method,
        headers={"Authorization": f"Bearer {token}"},
        data=None if body is None else json.dumps(body).encode(),
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)


def test_without_a_configuration_the_first_screen_has_the_operators_page(shell, ports):
    with shell.running("serve", **ports.variables()) as service:
        line = next(line for line in service.banner().splitlines() if "Operator" in line)
        page, _, token = line.split()[-1].partition("#token=")
        assert "<html" in get(page)
        status = ask(page.rstrip("/"), "status", token)
        assert set(status["services"]) == {"turn", "signaling"}
        assert token not in service.log.read_text()
        assert service.end(signal.SIGTERM) < NO_DRAIN


def configuration(ports: Ports, token: str = TOKEN, extra: str = "") -> str:
    return (
        f'[turn]\nlisten = "127.0.0.1:{ports.turn}"\nsecret = "a secret of this very test"\n'
        f"{extra}\n"
        f'[signaling]\nlisten = "127.0.0.1:{ports.signaling}"\n'
        f'[admin]\nlisten = "127.0.0.1:{ports.admin}"\ntoken = "{token}"\n'
    )


@pytest.fixture
def running(shell, ports):
    shell.write(configuration(ports))
    with shell.running("serve") as service:
        service.banner()
        yield service


def test_an_operators_own_token_is_not_shown(running: Service):
    assert TOKEN not in running.out.read_text() + running.log.read_text()


def test_a_reload_by_the_api(shell, ports, running: Service):
    base = f"http://127.0.0.1:{ports.admin}"
    shell.write(configuration(ports, extra='realm = ""'))
    refused = ask(base, "reload", TOKEN, "POST")
    assert refused["error"] == "conflict"
    assert refused["problems"] == ["icebroker.toml:4: turn.realm: is empty"]
    errors = ask(base, "errors", TOKEN)["errors"]
    assert errors[0]["facts"]["problem"] == refused["problems"][0]
    shell.write(configuration(ports, token="another token of the tests"))
    assert ask(base, "reload", TOKEN, "POST") == {"reloaded": True}
    assert ask(base, "status", TOKEN)["error"] == "unauthorized"
    assert ask(base, "status", "another token of the tests")["ready"]


def test_signaling_that_needs_tokens_is_probed_with_one(shell, ports):
    pages = f"http://127.0.0.1:{ports.signaling}"
    shell.write(
        configuration(ports).replace("[admin]", 'token_secret = "a secret for tokens"\n[admin]')
        + f'probe_targets = ["{pages}"]\n'
    )
    with shell.running("serve") as service:
        service.banner()
        text = scrape(f"http://127.0.0.1:{ports.admin}/probe?target={pages}")
        found = samples(text)
        assert found["icebroker_probe_success"] == found["icebroker_probe_works"] == 1, text
        assert found['icebroker_probe_check{check="websocket"}'] == 2
        assert service.end(signal.SIGTERM) < NO_DRAIN


def scrape(url: str) -> str:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as page:
        return str(page.read(), "utf-8")


def test_the_log_level_until_a_reload(ports, running: Service):
    base = f"http://127.0.0.1:{ports.admin}"
    assert ask(base, "log", TOKEN, "PUT", {"level": "error"}) == {"level": "error"}
    lines = running.log.read_text()
    ask(base, "drain", TOKEN, "DELETE")
    assert running.log.read_text() == lines
    ask(base, "reload", TOKEN, "POST")
    assert ask(base, "log", TOKEN) == {"level": "info"}
    ask(base, "drain", TOKEN, "DELETE")
    assert '"action": "resume"' in running.log.read_text()[len(lines) :]


def test_a_watched_stream_does_not_hold_the_stop_up(ports, running: Service):
    request = urllib.request.Request(
        f"http://127.0.0.1:{ports.admin}/api/v1/events",
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as stream:
        assert stream.readline() == b": icebroker\n"
        assert running.end(signal.SIGTERM) < NO_DRAIN


@pytest.mark.parametrize("workers", [1, 2])
def test_who_was_revoked_stays_so_through_a_restart(shell, ports, workers):
    more = f'workers = {workers}\nstate_directory = "state"\n'
    shell.write(
        configuration(ports, extra=more).replace(
            "[admin]", 'token_secret = "a secret for tokens"\n[admin]'
        )
    )
    token = shell.run("token", "demo", "--name", "mallory").out.strip()
    pages = f"http://127.0.0.1:{ports.signaling}/ice?token={token}"

    def status() -> int:
        try:
            return 200 if get(pages) else 0
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    base = f"http://127.0.0.1:{ports.admin}"
    for before, method in ((200, "PUT"), (401, "DELETE"), (200, "")):
        with shell.running("serve") as service:
            service.banner()
            assert status() == before
            if method:
                ask(base, "revocations/mallory", TOKEN, method)
            assert service.end(signal.SIGTERM) < NO_DRAIN
