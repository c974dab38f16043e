"""Two tenants on one relay: aioice, coturn's client, our command line and our doctor."""

import asyncio
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aioice
import pytest

from tests.interop import uclient
from tests.interop.process import ICEBROKER, Relay, relay
from tests.patience import PATIENCE

TOKEN = "the operator's token, of sixteen"
TENANTS = {
    "shop": {"secret": "the secret of the shop", "max_allocations": 2},
    "clinic": {"secret": "the secret of the clinic"},
}


class Place(NamedTuple):
    """A relay and its configuration."""

    server: Relay
    config: Path

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command of ours, with the relay's configuration."""
        command = [*ICEBROKER, *arguments, "-c", str(self.config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def credentials(self, tenant: str, name: str = "alice") -> tuple[str, str]:
        """What the command line makes for a user."""
        done = self.run("credentials", name, *(("--tenant", tenant) if tenant else ()))
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        return document["username"], document["password"]

    def api(self, path: str, method: str = "GET") -> Any:
        """What the operator's API says."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.server.admin_port}/api/v1/{path}",
            headers={"Authorization": f"Bearer {TOKEN}"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def agent(self, user: tuple[str, str], *, controlling: bool) -> aioice.Connection:
        """Somebody who may use nothing but the relay."""
        return aioice.Connection(
            ice_controlling=controlling,
            components=1,
            turn_server=("127.0.0.1", self.server.port),
            turn_username=user[0],
            turn_password=user[1],
            transport_policy=aioice.TransportPolicy.RELAY,
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One relay for all."""
    folder = tmp_path_factory.mktemp("relay")
    with relay(folder, admin_token=TOKEN, tenants=TENANTS) as running:
        yield Place(running, folder / "icebroker.toml")


async def test_users_of_two_tenants_meet_and_neither_is_the_other(place: Place) -> None:
    one = place.agent(place.credentials("shop"), controlling=True)
    two = place.agent(place.credentials("clinic"), controlling=False)
    await one.gather_candidates()
    await two.gather_candidates()
    for here, there in ((one, two), (two, one)):
        for candidate in there.local_candidates:
            await here.add_remote_candidate(candidate)
        await here.add_remote_candidate(None)
        here.remote_username, here.remote_password = there.local_username, there.local_password
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(one.connect(), two.connect())
    await one.send(b"from the shop")
    assert await asyncio.wait_for(two.recv(), PATIENCE) == b"from the shop"
    listed = place.api("allocations")["allocations"]
    assert {(each["user"], each["tenant"]) for each in listed} == {
        ("shop/alice", "shop"),
        ("clinic/alice", "clinic"),
    }
    (shops,) = place.api("allocations?tenant=shop")["allocations"]
    assert shops["user"] == "shop/alice"
    metrics = place.server.metrics()
    assert metrics['icebroker_turn_tenant_allocations{tenant="shop"}'] == 1
    name = 'icebroker_turn_tenant_relay_bytes_total{direction="to_peer",tenant="shop"}'
    assert metrics[name] >= len(b"from the shop")
    place.api("revocation?user=shop/alice", "PUT")
    left = place.api("allocations")["allocations"]
    assert [each["user"] for each in left] == ["clinic/alice"]
    place.api("revocation?user=shop/alice", "DELETE")
    await one.close()
    await two.close()


async def test_no_more_than_a_tenant_may(place: Place) -> None:
    agents = [
        place.agent(place.credentials("shop", name), controlling=True)
        for name in ("anna", "bert", "carl")
    ]
    for agent in agents:
        await agent.gather_candidates()
    assert [len(agent.local_candidates) for agent in agents] == [1, 1, 0]
    refused = place.api("refusals?code=486&tenant=shop")["refusals"]
    assert {event["facts"]["user"] for event in refused} == {"shop/carl"}
    assert place.api("refusals?tenant=clinic")["refusals"] == []
    for agent in agents:
        await agent.close()


@pytest.mark.parametrize(
    ("secret", "user", "works"),
    [
        ("the secret of the clinic", "clinic/bob", True),
        ("the shared secret of the tests", "bob", True),
        ("the secret of the clinic", "shop/bob", False),
        ("the shared secret of the tests", "shop/bob", False),
        ("the secret of the clinic", "bob", False),
    ],
)
def test_coturns_client_gets_in_by_the_secret_that_the_name_says(
    place: Place, secret: str, user: str, works: bool
) -> None:
    with uclient.echo_peer() as peer_port:
        line = ["-p", str(place.server.port), "-r", str(peer_port), "-W", secret, "-u", user]
        line += ["-e", "127.0.0.1", "127.0.0.1"]
        output = uclient.complete(*line) if works else uclient.run(line, 10)[1]
    assert uclient.all_came_back(output) == works, output


@pytest.mark.parametrize("tenant", ["", "clinic"])
def test_the_doctor_is_a_tenants_user(place: Place, tenant: str) -> None:
    before = place.server.metrics()
    options = ("--tenant", tenant) if tenant else ()
    url = f"turn:127.0.0.1:{place.server.port}?transport=udp"
    done = place.run("doctor", url, "--no-load", "--json", *options)
    findings = [each for section in json.loads(done.stdout)["sections"]
                for each in section["findings"]]  # fmt: skip
    (known,) = [each for each in findings if each["check"] == "credentials"]
    assert known["status"] == "ok", done.stdout
    name = 'icebroker_turn_tenant_relay_bytes_total{direction="to_peer",tenant="clinic"}'
    relayed = place.server.metrics()[name] > before[name]
    assert relayed == bool(tenant)
