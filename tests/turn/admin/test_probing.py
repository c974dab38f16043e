"""``/probe``: what Prometheus learns of a server, and whom it may ask about."""

import asyncio

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from config.schema import AdminSettings
from tests.operator_api import TOKEN, FakeControl, Operator
from tests.patience import until
from tests.turn.live import port_of, relay
from turn.admin.journal import Journal
from turn.admin.listener import Admin
from turn.admin.probing import MOST_WAITING
from turn.doctor.examine import Options, examine
from turn.doctor.prometheus import probe
from turn.doctor.target import Credentials, parse_url


@pytest.fixture
async def start():
    """Starts a listener that may probe these targets; gives its operator."""
    opened = []

    async def start(targets, how):
        settings = {"listen": "127.0.0.1:0", "token": TOKEN, "probe_targets": targets}
        admin = Admin(AdminSettings.model_validate(settings), [], Journal(), FakeControl(), how)
        await admin.start()
        http = aiohttp.ClientSession()
        opened.append((admin, http))
        return Operator(admin, http, FakeControl())

    yield start
    for admin, http in opened:
        await http.close()
        await admin.stop()


async def of_alice(url: str) -> bytes:
    options = Options(Credentials("alice", "pw"), load=False, patience=1)
    return await probe(examine(parse_url(url), options))


def values(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name.removeprefix("icebroker_probe_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_what_a_scrape_says(start):
    async with relay() as service:
        url = f"turn:127.0.0.1:{port_of(service)}"
        api = await start([url], of_alice)
        answer = await api.ask(f"/probe?target={url}")
        assert answer.status == 200
        found = values(answer.text)
    # Loopback is relayed to here, and nothing else is wrong.
    assert (found["success",], found["works",]) == (0, 1)
    assert (found["check", "echo"], found["check", "private"]) == (2, 0)
    assert ("check", "nat") not in found
    assert found["check_duration_seconds", "stun"] < found["duration_seconds",]


async def test_a_server_that_is_gone(start):
    url = "turn:127.0.0.1:9"
    api = await start([url], of_alice)
    found = values((await api.ask(f"/probe?target={url}")).text)
    assert (found["success",], found["works",], found["check", "port"]) == (0, 0, 0)


@pytest.mark.parametrize("target", ["", "turn:192.0.2.1", "turn:127.0.0.1:10"])
async def test_what_is_not_configured_is_not_tried(start, target):
    tried = []

    async def never(url: str) -> bytes:
        tried.append(url)
        return b""

    api = await start(["turn:127.0.0.1:9"], never)
    answer = await api.ask(f"/probe?target={target}")
    assert (answer.status, answer.body["error"]) == (404, "not_found")
    assert not tried
    assert (await api.ask("/probe?target=turn:127.0.0.1:9", token="")).status == 401
    assert not tried
    assert (await api.ask("/probe?target=turn:127.0.0.1:9")).status == 200


async def test_probes_wait_for_each_other_and_not_without_bound(start):
    going, most, release = 0, 0, asyncio.Event()

    async def slow(_: str) -> bytes:
        nonlocal going, most
        going += 1
        most = max(most, going)
        await release.wait()
        going -= 1
        return b""

    url = "turn:127.0.0.1:9"
    api = await start([url], slow)
    waiting = [asyncio.ensure_future(api.ask(f"/probe?target={url}")) for _ in range(MOST_WAITING)]
    await until(lambda: api.admin._probing._waiting == MOST_WAITING)
    assert (await api.ask(f"/probe?target={url}")).status == 429
    release.set()
    assert {(await one).status for one in waiting} == {200}
    assert most == 1
