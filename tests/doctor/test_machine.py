"""What the doctor says of the machine, and the command as a person runs it."""

import json
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from config.schema import RedisSettings
from config.turn import TurnSettings
from signaling.examine import examine_redis
from tests.interop.process import free_port, relay
from tests.redis_server import redis_server
from tests.redis_sites import ACL
from tests.shell import Shell
from tests.turn.external.mirror import mirror, nobody
from turn.doctor import host
from turn.doctor.report import Finding, Section, Status
from turn.kernel.plane import Unavailable

F, W, OK = Status.FAIL, Status.WARN, Status.OK


def findings(**changes: Any) -> dict[str, Finding]:
    made = Section("this machine")
    listen = {"listen": ["127.0.0.1:3478"], "data_plane": "userspace"}
    host.relay(made, TurnSettings.model_validate(listen | changes))
    return {one.check: one for one in made.findings}


def test_a_machine_that_is_fit() -> None:
    found = findings()
    assert {one.status for one in found.values()} <= {OK, W}
    assert found["addresses"].says == "relays from 127.0.0.1"


def test_too_few_ports() -> None:
    one = findings(relay_ports="50000-50099")["ports"]
    assert (one.status, one.next) == (W, "widen it, and the firewall with it")
    assert "has 100 ports" in one.says


def test_too_few_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    one = findings()["descriptors"]
    assert (one.status, "LimitNOFILE" in one.next) == (W, True)
    assert "may open 4096 files here, and 16384 allocations want more" in one.says
    assert findings(max_allocations=2000)["descriptors"].status is OK


def test_a_port_that_is_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host, "STATUS", tmp_path / "status")
    everything = (1 << 41) - 1
    for held, status in ((everything, OK), (everything & ~(1 << 10), W)):
        (tmp_path / "status").write_text(f"Name:\tpython\nCapEff:\t{held:016x}\nSeccomp:\t0\n")
        assert findings(listen=["127.0.0.1:443"])["rights"].status is status
        assert "rights" not in findings()
    one = findings(listen=["127.0.0.1:443", "127.0.0.1:80"])["rights"]
    assert "may not listen on 80, 443: ports below 1024" in one.says
    assert "CAP_NET_BIND_SERVICE" in one.next


@pytest.mark.parametrize(("count", "status"), [(900, W), (600, OK)])
def test_a_firewall_that_forgets_soon(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int, status: Status
) -> None:
    monkeypatch.setattr(host, "TRACKED", tmp_path)
    (tmp_path / "nf_conntrack_count").write_text(f"{count}\n")
    (tmp_path / "nf_conntrack_max").write_text("1000\n")
    one = findings()["tracking"]
    assert (one.status, f"{count} connections, of 1000" in one.says) == (status, True)
    assert status is OK or "nf_conntrack_max=4000" in one.next


def test_an_address_that_is_another_machines() -> None:
    one = findings(relay_addresses=["192.0.2.7"])["addresses"]
    assert (one.status, "192.0.2.7" in one.says) == (F, True)
    assert "turn.external_addresses" in one.next


async def test_what_stun_servers_say_of_it() -> None:
    async def told(*servers: object, **changes: Any) -> list[Finding]:
        made = Section("this machine")
        given = {"listen": ["127.0.0.1:3478"], "external_addresses": list(map(str, servers))}
        await host.external(made, TurnSettings.model_validate(given | changes))
        return made.findings

    away = nobody()
    async with mirror("203.0.113.7") as one:
        (finding,) = await told(away, one.server)
        assert finding.status is OK
        assert finding.says == f"203.0.113.7 for 127.0.0.1 ({one.server})"
        one.shift = 1
        (finding,) = await told(one.server)
        assert finding.status is W
        assert finding.says.startswith("203.0.113.7 for 127.0.0.1, but the NAT maps ports too")
        assert "turn.relay_ports" in finding.next
        one.shift = 0
        one.public = "127.0.0.1"
        assert (await told(one.server))[0].says == f"127.0.0.1, without NAT ({one.server})"
        assert await told("203.0.113.7/127.0.0.1", one.server) == []
        assert await told("203.0.113.7") == await told(one.server, stun_only=True) == []
    (finding,) = await told(away)
    assert (finding.status, f"{away}: Connection refused" in finding.says) == (W, True)
    assert '"PUBLIC/127.0.0.1"' in finding.next


def test_a_kernel_plane_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("turn.kernel.bpf.call", denied)
    one = findings(data_plane="kernel")["plane"]
    assert one.status is F
    assert "CAP_BPF" in one.next


@pytest.mark.parametrize("wanted", ["auto", "kernel"])
def test_a_kernel_plane_that_the_running_relay_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wanted: str
) -> None:
    def taken(*_: object, **__: object) -> None:
        raise Unavailable(f"another process has {tmp_path}")

    monkeypatch.setattr("turn.kernel.carrier.KernelPlane", taken)
    one = findings(data_plane=wanted)["plane"]
    assert (one.status, one.says) == (OK, "the kernel carries for the relay that runs")


async def test_redis_is_down() -> None:
    url = f"redis://:canary@127.0.0.1:{free_port()}"
    one = await examine_redis(RedisSettings.model_validate({"url": url}))
    assert (one.status, "cannot be reached" in one.says) == ("fail", True)
    assert "start it" in one.next
    assert "canary" not in str(one)


async def test_redis_as_it_is(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:
        server.client.config_set("requirepass", "pw")

        async def ask(password: str) -> Any:
            url = f"redis://:{password}@127.0.0.1:{server.port}"
            return await examine_redis(RedisSettings.model_validate({"url": url}))

        assert (await ask("pw")).status == "ok"
        wrong = await ask("other")
        assert (wrong.status, "refuses the password" in wrong.says) == ("fail", True)
        server.client.config_set("maxmemory-policy", "allkeys-lru")
        lossy = await ask("pw")
        assert (lossy.status, lossy.next) == ("warn", "CONFIG SET maxmemory-policy noeviction")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("", ""), "is the primary, and fit"),
        (("+zadd", "+get"), "does not let the user icebroker run zadd"),
        (("+ssubscribe", "+get"), "does not let the user icebroker run ssubscribe"),
        (("+script|load", "+get"), "refuses what the broker does"),
        (("~{icebroker}", "~{other}"), "refuses what the broker does"),
        (("&{icebroker}", "&{other}"), "does not let the user icebroker run spublish, ssubscribe"),
    ],
    ids=["shipped", "a command", "listening", "scripts", "another prefix", "channels"],
)
async def test_what_the_redis_user_may_not_do(
    tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    with redis_server(tmp_path / "redis") as server:
        _, name, *rules = ACL.read_text().replace("resetpass", ">pw").replace(*change).split()
        server.client.execute_command("ACL", "SETUSER", name, *rules)
        url = f"redis://icebroker:pw@127.0.0.1:{server.port}"
        one = await examine_redis(RedisSettings.model_validate({"url": url}))
    assert says in one.says
    assert (one.status == "ok") == (change == ("", ""))
    assert "users.acl" in one.next or one.status == "ok"


async def test_no_redis() -> None:
    assert (await examine_redis(RedisSettings())).status == "ok"


# The command ---------------------------------------------------------------------------------


def test_the_command_tells_people_and_programs(shell: Shell, tmp_path: Path) -> None:
    """On loopback the one thing to find fault with is that loopback is relayed to."""
    (tmp_path / "relay").mkdir()
    with relay(tmp_path / "relay") as running:
        url = f"turn:127.0.0.1:{running.port}"
        asked = ("doctor", url, "--username", "alice", "--no-load")
        runs = [asked, (*asked, "--json"), ("doctor", f"stun:127.0.0.1:{running.port}")]
        with ThreadPoolExecutor() as pool:  # mostly it waits
            people, program, stun = pool.map(
                lambda arguments: shell.run(*arguments, DOCTOR_PASSWORD="secretpw"), runs
            )
    assert people.code == 1
    assert "ok    echo" in people.out
    assert "FAIL  private" in people.out
    assert people.out.splitlines()[-1].startswith(f"Verdict: {url} works, and is not safe: ")
    body = json.loads(program.out)
    assert (program.code, body["passed"]) == (1, False)
    assert not program.problems
    assert "secretpw" not in people.out + program.out
    assert (stun.code, stun.out.splitlines()[-1].split()[-1]) == (0, "works")


def test_without_a_url_it_looks_at_our_own(shell: Shell) -> None:
    port = free_port()
    shell.write(
        f'[turn]\nlisten = ["127.0.0.1:{port}"]\nsecret = "a secret of this very test"\n'
        'data_plane = "userspace"\n'
        f'[signaling]\nlisten = "127.0.0.1:{free_port()}"\n'
        f'[redis]\nurl = "redis://127.0.0.1:{free_port()}"\n'
    )
    done = shell.run("doctor", "--timeout", "1")
    assert done.code == 1
    assert "FAIL  redis" in done.out
    assert "no signaling runs here" in done.out
    assert f"nothing listens on UDP 127.0.0.1:{port}" in done.out
    assert "a secret of this very test" not in done.out


@pytest.mark.parametrize("arguments", [("ftp://a.example",), ("-c", "no-such-file.toml")])
def test_what_cannot_be_tried_is_not_taken_for_ill(
    shell: Shell, arguments: tuple[str, ...]
) -> None:
    done = shell.run("doctor", *arguments)
    assert done.code == 2
    assert done.problems


def test_help_has_the_exit_codes(shell: Shell) -> None:
    text = " ".join(shell.run("doctor", "--help").out.split())
    assert "Exit code 0: nothing failed" in text
