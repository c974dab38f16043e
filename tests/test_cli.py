"""The command itself, as a person runs it: what it prints, where, and how it ends."""

import asyncio
import base64
import hashlib
import hmac
import json
import signal
import ssl
import time
import urllib.error
from importlib.metadata import version
from typing import Any

import aiohttp
import jwt
import pytest

from tests.interop.process import free_port
from tests.patience import PATIENCE
from tests.shell import NO_DRAIN, Done, Ports, Shell, answers, get

SECRET = "the relay's secret, of this test"
TOKEN_SECRET = "the short one of tokens"  # shorter than PyJWT likes it, long enough for us


# What needs no configuration -----------------------------------------------------------------


def test_version(shell: Shell):
    assert shell.run("--version") == Done(0, f"icebroker {version('icebroker')}\n", [])


def test_help_names_every_command(shell: Shell):
    done = shell.run("--help")
    assert done.code == 0
    for command in ("serve", "turn", "signaling", "check", "credentials", "token", "doctor"):
        assert f" {command} " in done.out


@pytest.mark.parametrize("arguments", [("dance",), ("check", "--nope"), ("token",)])
def test_a_mistake_in_the_command_is_not_a_crash(shell: Shell, arguments: tuple[str, ...]):
    done = shell.run(*arguments)
    assert done.code == 2
    assert "Traceback" not in "".join(done.problems)


# check ---------------------------------------------------------------------------------------


def test_check_says_which_file_is_good(shell: Shell):
    shell.write(f'[turn]\nsecret = "{SECRET}"\n[signaling]\ntoken_secret = "{TOKEN_SECRET}"')
    assert shell.run("check") == Done(0, "ok: icebroker.toml\n", [])
    path = str(shell.folder / "icebroker.toml")
    assert shell.run("check", "--config", path) == Done(0, f"ok: {path}\n", [])


def test_check_tells_every_problem_on_a_line(shell: Shell):
    shell.write("[turn]\nworkers = 0\n\n\nlisten = 3478")
    assert shell.run("check") == Done(
        1,
        "",
        [
            "icebroker: icebroker.toml:5: turn.listen: expected a list",
            "icebroker: icebroker.toml:2: turn.workers: input should be greater than or equal to 1",
        ],
    )


def test_check_of_a_stun_server_that_is_none(shell: Shell):
    shell.write('[turn]\nexternal_addresses = ["203.0.113.7", "stun:stun.example.org:99999"]')
    (line,) = shell.run("check").problems
    assert line.startswith("icebroker: icebroker.toml:2: turn.external_addresses")
    assert "'stun:stun.example.org:99999' is no STUN server over UDP; write" in line


def test_check_of_one_service_leaves_the_dangers_of_the_other(shell: Shell):
    shell.write(f'[turn]\nsecret = "{SECRET}"')
    assert shell.run("check", "--only", "turn").code == 0
    done = shell.run("check", "--only", "signaling")
    assert done.code == 1
    assert done.problems[0].startswith("icebroker: icebroker.toml: signaling.token_secret: ")
    assert shell.run("check").problems == done.problems
    assert shell.run("check", "--only", "serve").problems == done.problems


def test_check_of_no_service(shell: Shell):
    assert shell.run("check", "--only", "redis") == Done(
        1, "", ["icebroker: --only is turn, signaling or serve"]
    )


def test_check_of_a_file_that_is_missing(shell: Shell):
    assert shell.run("check", "-c", "gone.toml") == Done(
        1, "", ["icebroker: gone.toml: cannot be read: No such file or directory"]
    )


# credentials ---------------------------------------------------------------------------------


def test_credentials_are_what_the_relay_expects(shell: Shell):
    shell.write(f'[turn]\nlisten = "127.0.0.1:3478"\nsecret = ["{SECRET}", "an older one"]')
    before = int(time.time())
    done = shell.run("credentials", "alice", "--ttl", "15m")
    after = int(time.time())
    assert (done.code, done.problems) == (0, [])
    document = json.loads(done.out)
    stun, relay = document["iceServers"]
    assert stun == {"urls": ["stun:127.0.0.1:3478"]}
    assert relay["urls"] == document["uris"]
    assert relay["urls"][0] == "turn:127.0.0.1:3478?transport=udp"
    # draft-uberti-behave-turn-rest-00 §2.2, put together by hand
    expiry, _, name = relay["username"].partition(":")
    assert name == "alice"
    assert before + 900 <= int(expiry) <= after + 900
    mac = hmac.new(SECRET.encode(), relay["username"].encode(), hashlib.sha1).digest()
    assert relay["credential"] == base64.b64encode(mac).decode()
    assert document["ttl"] == 900
    assert (document["username"], document["password"]) == (relay["username"], relay["credential"])


def test_no_secret_no_credentials(shell: Shell):
    assert shell.run("credentials", "alice") == Done(
        1,
        "",
        [
            (
                "icebroker: turn.secret is not set here, so there is nothing to make credentials "
                "with: set it, or name the relay's configuration with -c"
            )
        ],
    )


TENANTS = f"""
[turn]
listen = "127.0.0.1:3478"
[turn.tenants.shop]
secret = "{SECRET}"
[turn.tenants.bare]
users = {{carol = "pw"}}
"""


NOTHING = "is not set here, so there is nothing to make credentials with"
SET_IT = "set it, or name the relay's configuration with -c"


def test_a_tenants_credentials_are_made_with_its_secret_and_say_its_name(shell: Shell):
    shell.write(TENANTS)
    done = shell.run("credentials", "alice", "--tenant", "shop")
    assert (done.code, done.problems) == (0, [])
    document = json.loads(done.out)
    assert document["username"].partition(":")[2] == "shop/alice"
    mac = hmac.new(SECRET.encode(), document["username"].encode(), hashlib.sha1).digest()
    assert document["password"] == base64.b64encode(mac).decode()


@pytest.mark.parametrize(
    ("tenant", "problem"),
    [
        ((), f"turn.secret {NOTHING}: name one of turn.tenants with --tenant"),
        (("--tenant", "bare"), f"turn.tenants.bare.secret {NOTHING}: {SET_IT}"),
        (("--tenant", "shed"), "--tenant: turn.tenants has no 'shed' here: there are shop, bare"),
    ],
)
def test_a_tenant_that_cannot_be(shell: Shell, tenant: tuple[str, ...], problem: str):
    shell.write(TENANTS)
    assert shell.run("credentials", "alice", *tenant) == Done(1, "", [f"icebroker: {problem}"])


@pytest.mark.parametrize("command", ["credentials", "token"])
def test_a_time_that_is_none(shell: Shell, command: str):
    shell.write(f'[turn]\nsecret = "{SECRET}"\n[signaling]\ntoken_secret = "{TOKEN_SECRET}"')
    assert shell.run(command, "x", "--ttl", "soon") == Done(
        1,
        "",
        ["""icebroker: --ttl: 'soon' is not a time; write seconds, or "90s", "15m", "1h", "7d\""""],
    )


# token ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "claims"),
    [
        ((), {"room": "standup"}),
        (("--name", "Ann"), {"room": "standup", "name": "Ann", "sub": "Ann"}),
    ],
)
@pytest.mark.filterwarnings("ignore:The HMAC key is")
def test_a_token_lets_its_holder_into_one_room(
    shell: Shell, arguments: tuple[str, ...], claims: dict[str, Any]
):
    shell.write(f'[signaling]\ntoken_secret = ["{TOKEN_SECRET}", "an older one"]')
    before = int(time.time())
    done = shell.run("token", "standup", "--ttl", "90s", *arguments)
    after = int(time.time())
    assert (done.code, done.problems) == (0, [])
    token = done.out.strip()
    said = jwt.decode(token, TOKEN_SECRET, algorithms=["HS256"])
    assert before + 90 <= said.pop("exp") <= after + 90
    assert said == claims


def test_no_secret_no_token(shell: Shell):
    assert shell.run("token", "standup") == Done(
        1,
        "",
        [
            (
                "icebroker: signaling.token_secret is not set here: name the service's "
                "configuration with -c; if it has none, rooms are open, and no token is needed"
            )
        ],
    )


# serve ---------------------------------------------------------------------------------------


def test_serve_without_a_configuration(shell: Shell, ports: Ports):
    with shell.running("serve", **ports.variables()) as service:
        banner = service.banner()
        page, admin = f"http://127.0.0.1:{ports.signaling}", f"http://127.0.0.1:{ports.admin}"
        for said in (f"{page}/", f"{page}/trickle", f"curl {page}/ice", f"{admin}/metrics",
                     f"turn:127.0.0.1:{ports.turn}", "Only this machine"):  # fmt: skip
            assert said in banner
        assert "<html" in get(f"{page}/").lower()
        assert "<html" in get(f"{page}/trickle").lower()
        assert json.loads(get(f"{page}/ice"))["uris"]
        assert json.loads(get(f"{admin}/healthz")) == {"alive": True}
        assert json.loads(get(f"{admin}/readyz"))["ready"]
        assert "# TYPE icebroker_" in get(f"{admin}/metrics")
        assert service.end(signal.SIGTERM) < NO_DRAIN


def test_serve_on_the_local_network(shell: Shell, ports: Ports):
    with shell.running("serve", "--lan", **ports.variables()) as service:
        banner = service.banner()
        page = f"https://127.0.0.1:{ports.signaling}"
        assert f"curl -k {page}/ice" in banner
        assert "certificate" in banner
        trusting = ssl.create_default_context(cafile=shell.folder / "cache/icebroker/lan.pem")
        assert "<html" in get(f"{page}/", trusting).lower()
        assert service.end(signal.SIGINT) < NO_DRAIN


def test_lan_is_not_for_a_configuration(shell: Shell):
    shell.write("")
    assert shell.run("serve", "--lan") == Done(
        1,
        "",
        ["icebroker: --lan is for running without a configuration; this one says who may connect"],
    )


def test_serve_with_a_configuration(shell: Shell, ports: Ports):
    shell.write(
        f'[turn]\nlisten = "127.0.0.1:{ports.turn}"\nsecret = "{SECRET}"\n'
        f'[signaling]\nlisten = "127.0.0.1:{ports.signaling}"\ntoken_secret = "{TOKEN_SECRET}"\n'
        f'[admin]\nlisten = "127.0.0.1:{ports.admin}"\n'
    )
    with shell.running("serve") as service:
        ice = f"http://127.0.0.1:{ports.signaling}/ice"
        assert f'curl "{ice}?token=$(icebroker token ROOM)"' in service.banner()
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(ice)
        refused.value.close()
        assert refused.value.code == 401
        assert json.loads(get(f"{ice}?token={shell.run('token', 'r').out.strip()}"))["uris"]
        assert service.end(signal.SIGTERM) < NO_DRAIN
        for secret in (SECRET, TOKEN_SECRET):
            assert secret not in service.log.read_text() + service.out.read_text()


@pytest.mark.parametrize("taken", ["turn", "signaling", "admin"])
def test_a_port_that_is_taken_is_told_in_one_line(shell: Shell, ports: Ports, taken: str):
    with shell.running("serve", **ports.variables()) as service:
        service.banner()
        others = Ports(free_port(), free_port(), free_port())
        port = getattr(ports, taken)
        done = shell.run("serve", **others._replace(**{taken: port}).variables())
    assert done.code == 1
    assert done.out == ""
    told = [line for line in done.problems if not line.startswith("{")]  # and lines of the log
    assert len(told) == 1
    assert told[0].startswith("icebroker: ")
    assert f"127.0.0.1:{port}" in told[0]
    assert told[0].endswith("ddress already in use")


@pytest.mark.parametrize("section", ["turn", "signaling"])
def test_each_service_by_itself(shell: Shell, ports: Ports, section: str):
    with shell.running(section, **ports.variables()) as service:
        ready = f"http://127.0.0.1:{ports.admin}/readyz"
        service.wait_for(lambda: answers(ready))
        assert json.loads(get(ready))["problems"] == {section: []}
        assert service.end(signal.SIGTERM) < NO_DRAIN


async def test_a_second_signal_does_not_wait_for_clients(shell: Shell, ports: Ports):
    patient = {"ICEBROKER_SIGNALING__DRAIN_TIMEOUT": "600"}
    with shell.running("serve", **ports.variables(), **patient) as service:
        service.banner()
        url = f"http://127.0.0.1:{ports.signaling}"
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{url}/ws", origin=url, timeout=aiohttp.ClientWSTimeout()) as ws,
        ):
            await ws.send_json({"type": "hello"})
            assert (await ws.receive_json(timeout=PATIENCE))["type"] == "welcome"
            service.process.send_signal(signal.SIGTERM)
            assert (await ws.receive_json(timeout=PATIENCE))["type"] == "goaway"
            service.wait_for(lambda: "press Ctrl-C again" in service.log.read_text())
            service.process.send_signal(signal.SIGTERM)
            assert (await ws.receive(timeout=PATIENCE)).type is aiohttp.WSMsgType.CLOSE
        assert service.process.wait(PATIENCE) == 0
        log = service.log.read_text()
        assert '"waiting_for": "connections: 1"' in log
        assert "Traceback" not in log


async def test_tabs_that_do_not_answer_hold_nobody_up(shell: Shell, ports: Ports):
    with shell.running("serve", **ports.variables()) as service:
        service.banner()
        url = f"http://127.0.0.1:{ports.signaling}"
        async with aiohttp.ClientSession() as session:
            ws = await session.ws_connect(f"{url}/ws", origin=url, autoclose=False)
            await ws.send_json({"type": "hello"})
            # Nobody reads it: it neither goes elsewhere nor closes.
            assert await asyncio.to_thread(service.end, signal.SIGINT) < NO_DRAIN
