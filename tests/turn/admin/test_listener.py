"""The admin listener: what a monitor, a load balancer and an operator ask it."""

import socket

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from config.schema import AdminSettings
from tests.operator_api import FakeControl
from tests.turn.live import port_of, relay
from turn.admin.journal import Journal
from turn.admin.listener import Admin
from turn.codec.registry import Method


@pytest.fixture
async def ask():
    """Asks an admin listener; gives status, headers and body."""
    async with aiohttp.ClientSession() as http:

        async def ask(admin, path, method="GET"):
            host, port = admin.address
            async with http.request(method, f"http://{host}:{port}{path}") as answer:
                return answer.status, answer.headers, await answer.text()

        yield ask


@pytest.fixture
async def start():
    """Starts an admin listener for some services."""
    started = []

    async def start(*services):
        settings = AdminSettings.model_validate({"listen": "127.0.0.1:0"})
        started.append(Admin(settings, services, Journal(), FakeControl()))
        await started[-1].start()
        return started[-1]

    yield start
    for admin in started:
        await admin.stop()


async def test_metrics_are_what_prometheus_reads(start, ask, connect):
    async with relay() as service:
        admin = await start(service)
        client = await connect(port_of(service))
        await client.allocate()
        status, headers, text = await ask(admin, "/metrics")
        assert status == 200
        assert headers["Content-Type"].startswith("text/plain; version=")
        values = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert values["icebroker_turn_allocations",] == 1
        assert values["icebroker_turn_relay_ports_in_use",] == 1
        assert values["icebroker_stun_requests_total", "allocate", "udp"] == 2
        assert values["icebroker_draining",] == 0
        await client.request(Method.REFRESH)
        assert text != (await ask(admin, "/metrics"))[2]


async def test_a_service_that_runs_is_ready_until_it_drains(start, ask):
    async with relay() as service:
        admin = await start(service)
        ready = '{"ready": true, "problems": {"turn": []}}'
        assert (await ask(admin, "/readyz"))[::2] == (200, ready)
        await service.drain(0)
        draining = '{"ready": false, "problems": {"turn": ["draining"]}}'
        assert (await ask(admin, "/readyz"))[::2] == (503, draining)
        assert "icebroker_draining 1.0" in (await ask(admin, "/metrics"))[2]
        assert (await ask(admin, "/healthz"))[::2] == (200, '{"alive": true}')


async def test_a_service_that_has_stopped_is_not_ready_and_the_process_lives(start, ask):
    async with relay() as service:
        admin = await start(service)
    assert (await ask(admin, "/readyz"))[0] == 503
    assert "not running" in (await ask(admin, "/readyz"))[2]
    assert (await ask(admin, "/healthz"))[0] == 200


async def test_one_service_that_is_not_ready_is_enough(start, ask):
    async with relay() as one, relay() as other:
        other.name, other.collections = "other", ()
        admin = await start(one, other)
        assert (await ask(admin, "/readyz"))[0] == 200
        await other.drain(0)
        status, _, text = await ask(admin, "/readyz")
        assert status == 503
        assert text == '{"ready": false, "problems": {"turn": [], "other": ["draining"]}}'


@pytest.mark.parametrize("path", ["/", "/api/v1/allocations", "/metrics/x", "/../etc/passwd"])
async def test_nothing_else_is_there(start, ask, path):
    assert (await ask(await start(), path))[0] == 404


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_it_is_for_reading(start, ask, path, method):
    assert (await ask(await start(), path, method))[0] == 405


async def test_a_taken_address_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = AdminSettings.model_validate({"listen": f"127.0.0.1:{port}"})
        admin = Admin(settings, [], Journal(), FakeControl())
        wanted = f"metrics cannot listen on 127.0.0.1:{port}: "
        with pytest.raises(OSError, match=wanted):
            await admin.start()
        await admin.stop()


async def test_it_answers_while_others_drain_and_is_gone_after_the_stop(start, ask):
    admin = await start()
    address = admin.address
    await admin.drain(5)
    assert (await ask(admin, "/healthz"))[0] == 200
    await admin.stop()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(address)


def test_it_is_not_for_the_public_by_default():
    assert [endpoint.is_loopback for endpoint in AdminSettings().listen] == [True]


async def test_it_answers_at_each_of_its_addresses(ask):
    with socket.create_server(("127.0.0.2", 0)) as free:
        port = free.getsockname()[1]
    settings = AdminSettings.model_validate({"listen": f"127.0.0.1:0, 127.0.0.2:{port}"})
    admin = Admin(settings, [], Journal(), FakeControl())
    await admin.start()
    try:
        assert admin.address[0] == "127.0.0.1"
        assert (await ask(admin, "/healthz"))[0] == 200
        async with aiohttp.ClientSession() as http:
            assert (await http.get(f"http://127.0.0.2:{port}/healthz")).status == 200
    finally:
        await admin.stop()


async def test_another_address_does_not_open_the_one_on_loopback_to_other_names():
    """DNS rebinding: the metrics need no token, and pages elsewhere may not read them."""
    settings = AdminSettings.model_validate({"listen": "127.0.0.1:0, 0.0.0.0:0"})
    admin = Admin(settings, [], Journal(), FakeControl())
    await admin.start()
    try:
        async with aiohttp.ClientSession() as http:
            statuses = []
            (_, one), (_, every) = (address[:2] for address in admin._runner.addresses)
            for place in (f"127.0.0.1:{one}", f"127.0.0.2:{every}"):
                url = f"http://{place}/metrics"
                async with http.get(url, headers={"Host": "relay.example"}) as answer:
                    statuses.append(answer.status)
        assert statuses == [421, 200]
    finally:
        await admin.stop()
