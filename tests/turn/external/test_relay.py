"""A relay that asks for its external address: at the start, again, and what it makes of it."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.patience import until
from tests.turn.external.mirror import Mirror, answer, mirror, nobody
from tests.turn.live import port_of, relay, settings
from turn.codec import registry
from turn.codec.registry import Method
from turn.codec.values import Address
from turn.external import watch
from turn.metrics import External

FIRST, SECOND = "203.0.113.7", "203.0.113.8"
Lines = list[Any]


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """What takes a minute takes a moment."""
    monkeypatch.setattr(watch, "EVERY", 0.05)
    monkeypatch.setattr(watch, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(watch, "PATIENCE", 0.1)


def of(*servers: Any, **more: Any) -> dict[str, Any]:
    """Settings that have these asked, after the pairs that are written."""
    return {"external_addresses": [*more.pop("pairs", ()), *map(str, servers)], **more}


def lines(told: Lines, event: str) -> Lines:
    return [line for line in told if line["event"] == event]


async def more_rounds(one: Mirror, count: int = 3) -> None:
    """Wait until it was asked so many times more; what it said before has been heard."""
    asked = len(one.asked)
    await until(lambda: len(one.asked) >= asked + count)


async def test_clients_are_told_what_the_server_says(connect):
    with capture_logs() as told:
        async with mirror(FIRST) as one, relay(**of(one.server)) as service:
            assert len(one.asked) == 1
            client = await connect(port_of(service))
            assert (await client.allocate()).host == FIRST
            assert service.relay_addresses == [FIRST]
            assert service.figures().relay_addresses == [FIRST]
            assert service.policy.to_wire(Address(FIRST, 9)) == ("127.0.0.1", 9)
            await more_rounds(one)
    (line,) = lines(told, "external address")
    assert (line["local"], line["public"], line["nat"]) == ("127.0.0.1", FIRST, True)
    assert line["told_by"] == str(one.server)


async def test_an_external_address_that_was_found_is_no_peer(connect):
    """It is one of our own: what listens on this machine is not reached by it."""
    public = "20.0.0.7"  # nothing else speaks against it
    async with mirror(public) as one, relay(**of(one.server)) as service:
        client = await connect(port_of(service))
        await client.allocate()
        for port in (9641, 22, port_of(service)):
            peer = (registry.XOR_PEER_ADDRESS, Address(public, port))
            reply = await client.request(
                Method.CHANNEL_BIND, (registry.CHANNEL_NUMBER, 0x4000), peer
            )
            assert (reply.get(registry.ERROR_CODE) or (0, ""))[0] == 403


async def test_a_change_is_for_those_who_come_then(connect):
    with capture_logs() as told:
        async with mirror(FIRST) as one, relay(**of(one.server)) as service:
            client = await connect(port_of(service))
            before = await client.allocate()
            one.public = SECOND
            await until(lambda: service.relay_addresses == [SECOND])
            other = await connect(port_of(service))
            assert (await other.allocate()).host == SECOND
            (kept,) = [a for a in service._engine.table if a.client.client.port == port(client)]
            assert [relayed.relay.public for relayed in kept.relayed.values()] == [before]
            reply = await client.request(Method.REFRESH, (registry.LIFETIME, 600))
            assert reply.get(registry.LIFETIME) == 600
            await more_rounds(one)
    changed = lines(told, "external address")
    assert [(line["public"], line.get("before")) for line in changed] == [
        (FIRST, None),
        (SECOND, FIRST),
    ]


def port(client: Any) -> int:
    return int(client.sock.getsockname()[1])


async def test_no_nat(connect):
    async with mirror("127.0.0.1") as one, relay(**of(one.server)) as service:
        assert (await (await connect(port_of(service))).allocate()).host == "127.0.0.1"
        assert service.resolved(service._settings).external_addresses == ()
        (entry,) = service.figures().external
        assert (entry.local, entry.public) == ("127.0.0.1", "127.0.0.1")


async def test_a_nat_that_maps_ports_is_told_once_for_each_address():
    with capture_logs() as told:
        async with mirror(FIRST) as one, relay(**of(one.server)) as service:
            await more_rounds(one)
            assert [entry.keeps_ports for entry in service.figures().external] == [True]
            one.shift = 1
            await more_rounds(one)
            one.shift = 0  # by chance: such a NAT may give a socket the port that it has
            await more_rounds(one)
            assert [entry.keeps_ports for entry in service.figures().external] == [False]
            one.shift = 1
            await more_rounds(one)
            one.public = SECOND
            await more_rounds(one)
            one.shift, one.public = 0, FIRST
            await until(lambda: service.relay_addresses == [FIRST])
            assert [entry.keeps_ports for entry in service.figures().external] == [True]
    warnings = lines(told, "the NAT is not 1:1: it maps ports too")
    assert [(line["local"], line["public"]) for line in warnings] == [
        ("127.0.0.1", FIRST),
        ("127.0.0.1", SECOND),
    ]
    assert {line["log_level"] for line in warnings} == {"warning"}
    assert "turn.relay_ports" in warnings[0]["next"]


async def test_ports_of_an_address_that_stands_for_none_of_ours_matter_to_nobody():
    """A written pair has the public address, or a network of containers is hidden behind it."""
    hosts = {"relay_addresses": ["127.0.0.1", "127.0.0.2"]}
    with capture_logs() as told:
        async with mirror(FIRST) as one:
            one.shift = 1
            asked = of(one.server, pairs=[f"{FIRST}/127.0.0.1"], **hosts)
            async with relay(**asked) as service:
                await more_rounds(one)
                assert [entry.local for entry in service.figures().external] == ["127.0.0.2"]
    assert not lines(told, "the NAT is not 1:1: it maps ports too")


async def test_what_is_watched_says_when_it_was_confirmed(monkeypatch):
    clock = [1_900_000_000.0]
    monkeypatch.setattr(watch, "time", SimpleNamespace(time=lambda: clock[0]))
    away = {"relay_addresses": ["127.0.0.1", "127.0.0.2"]}
    async with mirror(FIRST) as one, relay(**of(one.server)) as service:
        assert service.gauges.external() == External(clock[0], 0)
        clock[0] += 100
        await more_rounds(one)
        assert service.gauges.external() == External(clock[0], 0)
        one.shift = 1
        await more_rounds(one)
        one.public = ""
        await more_rounds(one)
        confirmed = clock[0]
        clock[0] += 100
        await more_rounds(one)
        assert service.gauges.external() == External(confirmed, 1)
        (entry,) = service.figures().external
        assert (entry.public, entry.confirmed) == (FIRST, confirmed)
        service.reload(settings(**of(one.server, **away)))
        await until(lambda: len(service.figures().external) == 2)
        assert service.gauges.external() == External(0.0, 1)  # nobody has told the other one
        assert [it.public for it in service.figures().external] == [FIRST, None]
        service.reload(settings())
        await until(lambda: service.gauges.external() is None)
        assert service.figures().external == []


async def test_it_starts_though_nobody_answers_and_goes_on_asking(connect, monkeypatch):
    monkeypatch.setattr(watch, "START_PATIENCE", 0.2)
    away = nobody()
    with capture_logs() as told:
        async with mirror("") as silent, relay(**of(silent.server, away)) as service:
            client = await connect(port_of(service))
            assert (await client.allocate()).host == "127.0.0.1"
            await more_rounds(silent)
            async with mirror(FIRST, port=away.port):
                await until(lambda: service.relay_addresses == [FIRST])
                assert (await (await connect(port_of(service))).allocate()).host == FIRST
    (warning,) = lines(told, "no STUN server tells the external address")
    assert warning["log_level"] == "warning"
    assert warning["local"] == ["127.0.0.1"]
    assert f"{silent.server} does not answer; {away}: Connection refused" == warning["reason"]
    assert warning["meanwhile"] == "clients are told the local one"
    assert "turn.external_addresses" in warning["next"]
    assert len(lines(told, "external address")) == 1


async def test_a_start_waits_no_longer_than_it_may(monkeypatch):
    monkeypatch.setattr(watch, "START_PATIENCE", 0.4)
    async with mirror("") as one, mirror("") as two:
        began = time.monotonic()
        async with relay(**of(one.server, two.server)):
            waited = time.monotonic() - began
        assert one.asked
        assert two.asked
    assert 0.4 <= waited < 3


async def test_answers_that_stop_change_nothing_and_are_told_once():
    with capture_logs() as told:
        async with mirror(FIRST) as one, relay(**of(one.server)) as service:
            one.public = ""
            await until(lambda: len(lines(told, "no STUN server tells the external address")))
            await more_rounds(one)
            assert service.relay_addresses == [FIRST]
            one.public = FIRST
            await until(lambda: len(lines(told, "external address")) == 2)
            await more_rounds(one)
            assert service.relay_addresses == [FIRST]
    (warning,) = lines(told, "no STUN server tells the external address")
    assert warning["meanwhile"] == "the last one stays"
    assert len(lines(told, "external address")) == 2


@pytest.mark.parametrize(
    "lie",
    [
        lambda request: answer(request, SECOND, transaction_id=bytes(12)),
        lambda request: answer(request, "127.0.0.9"),
        lambda request: answer(request, "0.0.0.0"),
        lambda request: answer(request, "2001:db8::7"),
        lambda _: b"garbage",
    ],
    ids=["transaction", "loopback", "unspecified", "family", "garbage"],
)
async def test_lies_change_nothing(lie):
    async with mirror(FIRST) as one, relay(**of(one.server)) as service:
        one.say = lambda request: [lie(request)]
        await more_rounds(one, 4)
        assert service.relay_addresses == [FIRST]


async def test_written_pairs_win_and_are_not_asked_for():
    hosts = {"relay_addresses": ["127.0.0.1", "127.0.0.2"]}
    async with mirror(SECOND) as one:
        asked = of(one.server, pairs=["203.0.113.7/127.0.0.1"], **hosts)
        async with relay(**asked) as service:
            assert service.relay_addresses == [FIRST, SECOND]
            await more_rounds(one)
        assert {host for host, _ in one.asked} == {"127.0.0.2"}
        one.asked.clear()
        async with relay(**of(one.server, pairs=["203.0.113.7"])) as service:
            assert service.relay_addresses == [FIRST]
            await asyncio.sleep(0)
        assert not one.asked


async def test_a_reload_begins_it_changes_it_and_ends_it(monkeypatch):
    """At once: nobody waits for the next round."""
    monkeypatch.setattr(watch, "EVERY", 1000.0)
    async with mirror(FIRST) as one, mirror(SECOND) as two, relay() as service:
        await asyncio.sleep(0)  # it waits for something to do
        service.reload(settings(**of(one.server)))
        await until(lambda: service.relay_addresses == [FIRST])
        # What is known stays until the other server has answered.
        service.reload(settings(**of(two.server)))
        assert service.relay_addresses == [FIRST]
        await until(lambda: service.relay_addresses == [SECOND])
        service.reload(settings())
        assert service.relay_addresses == ["127.0.0.1"]
        await until(lambda: not service._external._found)
        service.reload(settings())
        await asyncio.sleep(0.05)
        assert (len(one.asked), len(two.asked)) == (1, 1)


async def test_after_a_restart_allocations_keep_what_their_clients_were_told(connect, tmp_path):
    async with mirror(FIRST) as one:
        asked = of(one.server, state_directory=str(tmp_path))
        async with relay(**asked) as service:
            fixed = {"listen": [f"127.0.0.1:{port_of(service)}"]}
            client = await connect(port_of(service))
            before = await client.allocate()
            await service.leave()
        one.public = SECOND
        async with relay(**(asked | fixed)) as service:
            await until(lambda: service.relay_addresses == [SECOND])
            (kept,) = service._engine.table
            assert [relayed.relay.public for relayed in kept.relayed.values()] == [before]
            other = await connect(port_of(service))
            assert (await other.allocate()).host == SECOND


async def test_a_restart_while_nobody_answers_keeps_the_last_one_and_does_not_wait(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(watch, "START_PATIENCE", 60.0)
    async with mirror(FIRST) as one:
        asked = of(one.server, state_directory=str(tmp_path))
        async with relay(**asked):
            pass
        one.public = ""
        one.asked.clear()
        with capture_logs() as told:
            async with asyncio.timeout(20), relay(**asked) as service:
                assert service.relay_addresses == [FIRST]
                await until(lambda: lines(told, "no STUN server tells the external address"))
                assert service.relay_addresses == [FIRST]
        assert lines(told, "external address")[0]["told_by"] == "the last process"
        # An address that nobody knew is waited for.
        one.public = SECOND
        more = {"relay_addresses": ["127.0.0.1", "127.0.0.2"]}
        async with relay(**asked, **more) as service:
            assert service.relay_addresses == [SECOND, "127.0.0.2"]
