"""How allocations begin and end, told to a real back end (``turn.webhook_url``)."""

import asyncio
import json
import time

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from config.webhooks import delivery, waiting
from tests.guides.guide import example
from tests.patience import PATIENCE, until
from tests.receiver import SECRET, receiver
from tests.turn.asked import allocate
from tests.turn.live import port_of, relay, settings
from tests.turn.peers import udp_peer
from tests.turn.workers.live import send_indication
from turn import webhooks
from turn.codec import registry
from turn.codec.registry import Method
from turn.codec.values import Address


@pytest.fixture
async def back_end():
    async with receiver() as running:
        yield running


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Tries follow sooner on each other."""
    monkeypatch.setattr(delivery, "FIRST_DELAY", 0.1)
    monkeypatch.setattr(delivery, "LOOK", 0.02)


def telling(back_end, **changes):
    """Settings of a relay that tells it."""
    return {"webhook_url": back_end.url, "webhook_secret": [SECRET]} | changes


def told(back_end):
    """What was told, each once: type, whose, why."""
    found = dict(zip(back_end.ids, back_end.got, strict=True))
    return [
        " ".join(filter(None, (m["type"], m["data"].get("user"), m["data"].get("reason"))))
        for m in found.values()
    ]


async def release(client):
    await client.request(Method.REFRESH, (registry.LIFETIME, 0))


async def test_what_an_allocation_was_is_told_at_its_end(back_end, client_of):
    loop = asyncio.get_running_loop()
    async with relay(**telling(back_end)) as service:
        client = await client_of(service)
        began, relayed = time.monotonic(), await client.allocate()
        with udp_peer() as peer:
            place = Address(*peer.getsockname())
            await client.request(Method.CREATE_PERMISSION, (registry.XOR_PEER_ADDRESS, place))
            for size in (100, 200):
                await client.send(send_indication(place, bytes(size)))
                await asyncio.wait_for(loop.sock_recvfrom(peer, 10000), PATIENCE)
            await loop.sock_sendto(peer, bytes(50), relayed)
            await client.receive()
        await release(client)
        at_most = time.monotonic() - began
        await until(lambda: len(back_end.got) == 2)
        assert service.stats.webhooks == {"delivered": 2}
    created, closed = back_end.got
    assert (created["type"], closed["type"]) == ("allocation.created", "allocation.closed")
    whose = {
        "relay": closed["data"]["relay"], "allocation": "1", "user": "alice", "transport": "udp",
        "client": "{}:{}".format(*client.sock.getsockname()), "relayed": [str(relayed)],
    }  # fmt: skip
    assert created["data"] == whose
    assert 0 < closed["data"].pop("seconds") <= at_most
    assert closed["data"] == whose | {
        "reason": "released", "sent_packets": 2, "sent_bytes": 300, "received_packets": 1,
        "received_bytes": 50,
    }  # fmt: skip
    for message in back_end.got:
        shown = example("webhooks", message["type"])
        assert shown.keys() == message.keys()
        assert shown["data"].keys() - {"seconds"} == message["data"].keys()


async def test_the_specification_s_library_believes_it(back_end, client_of):
    secret = "whsec_" + "B" * 43 + "="
    async with relay(**telling(back_end, webhook_secret=[SECRET, secret])) as service:
        await allocate(await client_of(service))
        await until(lambda: back_end.got)
    for headers, body in back_end.requests:
        assert Webhook(secret).verify(body, headers) == json.loads(body)


async def test_what_is_not_taken_is_told_again_under_its_id_and_in_order(back_end, client_of):
    fails = iter([500, 302, 404])

    async def answer(_):
        return web.Response(status=next(fails, 200), headers={"Location": "/elsewhere"})

    back_end.answer = answer
    async with relay(**telling(back_end)) as service:
        client = await client_of(service)
        await allocate(client)
        await until(lambda: service.stats.webhooks["delivered"] == 1)
        await release(client)
        await until(lambda: service.stats.webhooks["delivered"] == 2)
        assert service.stats.webhooks["failed"] == 3
    assert [m["type"] for m in back_end.got] == ["allocation.created"] * 4 + ["allocation.closed"]
    assert len(set(back_end.ids)) == 2


async def test_what_a_relay_closes_as_it_stops_is_told(back_end, client_of):
    async with relay(**telling(back_end)) as service:
        for tcp in (False, True) * 40:
            await allocate(await client_of(service, tcp=tcp))
        await service.stop()
    ends = [line for line in told(back_end) if "closed" in line]
    assert len(ends) == 80
    assert set(ends) <= {
        "allocation.closed alice shutdown",
        "allocation.closed alice disconnected",
    }


async def test_one_that_hangs_keeps_no_relay_from_its_end(back_end, client_of, monkeypatch, capsys):
    monkeypatch.setattr(webhooks, "LAST_WORDS", 0.3)

    async def answer(_):
        await asyncio.sleep(3600)
        return web.Response()

    back_end.answer = answer
    async with relay(**telling(back_end, webhook_timeout=60)) as service:
        await allocate(await client_of(service))
        await until(lambda: back_end.got)
        began = time.monotonic()
        await service.stop()
        assert 0.2 < time.monotonic() - began < 5
    assert "the back end is not told of everything" in "".join(capsys.readouterr())


@pytest.mark.parametrize("restarts", [False, True])
async def test_what_is_not_taken_the_next_process_tells(back_end, client_of, tmp_path, restarts):
    back_end.says(500)
    turn = telling(back_end, state_directory=str(tmp_path), listen=[], listen_udp=["127.0.0.1:0"])
    async with relay(**turn) as first:
        client = await client_of(first)
        await allocate(client)
        await until(lambda: back_end.got)
        turn["listen_udp"] = [f"127.0.0.1:{port_of(first)}"]
        before = {m["data"]["relay"] for m in back_end.got}
        with udp_peer() as peer:
            place = Address(*peer.getsockname())
            await client.request(Method.CREATE_PERMISSION, (registry.XOR_PEER_ADDRESS, place))
            await client.send(send_indication(place, bytes(100)))
            await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer, 10000), PATIENCE)
        await (first.leave() if restarts else first.stop())
        assert (tmp_path / "webhooks").stat().st_mode & 0o777 == 0o600
    back_end.got, back_end.ids = [], []
    back_end.says(204)
    async with relay(**turn) as second:
        assert not (tmp_path / "webhooks").exists()
        why = "moved" if restarts else "shutdown"
        wanted = ["allocation.created alice", f"allocation.closed alice {why}"]
        wanted += ["allocation.created alice"] * restarts
        await until(lambda: sorted(told(back_end)) == sorted(wanted))
        assert ({m["data"]["relay"] for m in back_end.got} == before) != restarts
        client.nonce = None
        await release(client)
        if restarts:
            await until(lambda: "allocation.closed alice released" in told(back_end))
        assert second.stats.webhooks["delivered"] == len(set(back_end.ids))
    ends = [m["data"] for m in back_end.got if m["type"] == "allocation.closed"]
    assert sum(one["sent_bytes"] for one in ends) == 100, "none is in two bills"
    assert ends[-1]["seconds"] < 60


async def test_a_restart_does_not_wait_for_it(back_end, client_of, tmp_path):
    async def answer(_):
        await asyncio.sleep(3600)
        return web.Response()

    back_end.answer = answer
    turn = telling(back_end, state_directory=str(tmp_path), webhook_timeout=60)
    async with relay(**turn) as service:
        for tcp in (False, True):
            await allocate(await client_of(service, tcp=tcp))
        await until(lambda: back_end.got)
        began = time.monotonic()
        await service.leave()
        assert time.monotonic() - began < 4, "its last words would take five"
    kept = [json.loads(event) for _, _, event in json.loads((tmp_path / "webhooks").read_bytes())]
    ends = [one["data"] for one in kept if one["type"] == "allocation.closed"]
    assert sorted(one["allocation"] for one in ends) == ["1", "2"], "each once"
    (udp,) = [one for one in ends if one["transport"] == "udp"]
    assert udp["reason"] == "moved"


async def test_what_another_has_left_there_is_not_believed(back_end, tmp_path, capsys):
    for content, mode in ((b"no JSON", 0o600), (b'[["id",1,"{}"]]', 0o666)):
        file = tmp_path / "webhooks"
        file.write_bytes(content)
        file.chmod(mode)
        async with relay(**telling(back_end, state_directory=str(tmp_path))):
            pass
        assert "has not told the back end is lost" in "".join(capsys.readouterr())
    assert back_end.got == []


@pytest.mark.parametrize(
    ("event_id", "event"),
    [
        ("id", "no JSON"),
        ("id", "{}"),
        ("id", '{"type":"a","at":1e300,"data":{}}'),
        ("id", '{"type":"a","at":-1,"data":{}}'),
        ("id", '{"type":"a","at":253402300800000,"data":{}}'),
        ("id", '{"type":"a","at":1,"data":[]}'),
        ("i\nd", '{"type":"a","at":1,"data":{}}'),
        ("\N{BULLET}", '{"type":"a","at":1,"data":{}}'),
    ],
)
async def test_what_means_nothing_there_keeps_nothing_else_back(
    back_end, tmp_path, capsys, event_id, event
):
    good = {"type": "allocation.created", "at": 1, "data": {"allocation": "1"}}
    kept = [(event_id, 0, event), ("good", 0, json.dumps(good))]
    file = tmp_path / "webhooks"
    file.write_text(json.dumps(kept))
    file.chmod(0o600)
    async with relay(**telling(back_end, state_directory=str(tmp_path))) as service:
        await until(lambda: back_end.ids == ["good"])
        await until(lambda: not service._webhooks._waiting)
        assert service.stats.webhooks == {"delivered": 1, "given_up": 1}
    assert "means nothing" in "".join(capsys.readouterr())


async def test_what_cannot_be_kept_is_said(back_end, client_of, monkeypatch):
    monkeypatch.setattr(waiting, "MOST_WAITING", 10)
    back_end.says(500)
    async with relay(**telling(back_end)) as service:
        client = await client_of(service)
        for _ in range(8):
            await allocate(client)
            await release(client)
        back_end.says(204)
        await until(lambda: "events.lost" in told(back_end))
        await until(lambda: not len(service._webhooks._waiting))
        (lost,) = [m for m in back_end.got if m["type"] == "events.lost" if m]
        assert lost["data"] == {"relay": back_end.got[0]["data"]["relay"]}
        await allocate(client)
        await until(lambda: told(back_end)[-1] == "allocation.created alice")


async def test_a_reload_has_it_told_elsewhere_or_nowhere(back_end, client_of):
    async with relay() as service, receiver() as other:
        client = await client_of(service)
        await allocate(client)
        service.reload(settings(**telling(back_end)))
        await release(client)
        await until(lambda: told(back_end) == ["allocation.closed alice released"])
        service.reload(settings(**telling(other)))
        await allocate(client)
        await until(lambda: told(other) == ["allocation.created alice"])
        other.says(500)
        await release(client)
        await until(lambda: len(other.got) > 1)
        service.reload(settings())
        assert len(service._webhooks._waiting) == 0
        await allocate(client)
        service.reload(settings(**telling(other)))
        other.says(204)
        await release(client)
        await until(lambda: told(other)[-1] == "allocation.closed alice released")
    assert len(back_end.got) == 1
    assert told(other).count("allocation.created alice") == 1
