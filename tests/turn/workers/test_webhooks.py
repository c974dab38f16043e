"""How allocations of several workers begin and end, told to a back end by one process."""

import time
from contextlib import suppress

import pytest

from tests.patience import until
from tests.receiver import SECRET, receiver
from tests.turn.live import port_of, settings
from tests.turn.peers import udp_peer
from tests.turn.workers.live import (
    LOGS,
    Stage,
    allocate,
    permit,
    refresh,
    send_indication,
    together,
)
from turn.codec.values import Address
from turn.workers.messages import Stop
from turn.workers.pool import WorkerPool
from turn.workers.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")


def ends(back_end):
    """The events by which allocations ended, each once, by the allocation's number."""
    found = dict(zip(back_end.ids, back_end.got, strict=True)).values()
    return {m["data"]["allocation"]: m["data"] for m in found if m["type"].endswith("closed")}


def arrived(peer):
    """Take what has come to a peer, if anything has."""
    with suppress(BlockingIOError):
        return peer.recv(10000)
    return b""


async def test_one_process_tells_of_all_workers(stage):
    async with receiver() as back_end:
        stage.reload(webhook_url=back_end.url, webhook_secret=[SECRET])
        pairs = await stage.one_at_each()
        with udp_peer() as peer:
            place = Address(*peer.getsockname())
            for number, (client, _) in enumerate(pairs, 1):
                assert await permit(client, place) == 0
                await client.send(send_indication(place, bytes(100 * number)))
                await until(lambda: arrived(peer))
        assert await together(*(refresh(client, 0) for client, _ in pairs)) == [0, 0]
        await until(lambda: len(ends(back_end)) >= 2)
        await until(lambda: len(set(back_end.ids)) % 2 == 0)
        found = ends(back_end).values()
        assert sorted(one["sent_bytes"] for one in found)[-2:] == [100, 200]
        assert {one["reason"] for one in found} == {"released"}
        assert len({m["data"]["relay"] for m in back_end.got}) == 1
        name = ("icebroker_turn_webhooks_total", "delivered")
        assert (await stage.samples())[name] >= 4
        stage.reload()
        count = len(back_end.got)
        (client,) = await stage.clients(1)
        assert await allocate(client) == 0
        await stage.pool.refresh()
        assert len(back_end.got) == count


@pytest.mark.parametrize("many", [300, 800])
async def test_what_all_close_as_they_stop_is_told(connect, monkeypatch, many):
    """More than is told at a time; and once more than a socket between two processes holds."""
    send = Worker.send

    def busy(worker, message, descriptors=()):
        """Let a worker do what it can while the pool hears nothing."""
        send(worker, message, descriptors)
        if isinstance(message, Stop):
            time.sleep(0.5)

    monkeypatch.setattr(Worker, "send", busy)
    async with receiver() as back_end:
        turn = {"workers": 2, "webhook_url": back_end.url, "webhook_secret": [SECRET]}
        pool = WorkerPool(settings(**turn), LOGS)
        await pool.start()
        try:
            clients = await Stage(pool, turn, connect).clients(many)
            assert await together(*map(allocate, clients)) == [0] * many
        finally:
            await pool.stop()
    assert len(ends(back_end)) == many
    assert {one["reason"] for one in ends(back_end).values()} == {"shutdown"}


async def test_what_goes_on_after_a_restart_is_told_by_the_next_processes(connect, tmp_path):
    """The ones before wait for nobody: the next ones tell what was not taken, and what goes on."""
    async with receiver() as back_end:
        turn = {
            "workers": 2, "webhook_url": back_end.url, "webhook_secret": [SECRET],
            "state_directory": str(tmp_path), "listen": [], "listen_udp": ["127.0.0.1:0"],
        }  # fmt: skip
        pool = WorkerPool(settings(**turn), LOGS)
        await pool.start()
        clients = await Stage(pool, turn, connect).clients(20)
        assert await together(*map(allocate, clients)) == [0] * 20
        turn["listen_udp"] = [f"127.0.0.1:{port_of(pool)}"]
        await pool.leave()
        again = WorkerPool(settings(**turn), LOGS)
        await again.start()
        await until(lambda: len(ends(back_end)) == 20)
        assert {one["reason"] for one in ends(back_end).values()} == {"moved"}
        await until(lambda: len(begun(back_end, again)) == 20)
        await again.stop()
        assert len(begun(back_end, pool)) == 20


def begun(back_end, pool):
    """The allocations that these processes have told the beginning of."""
    relay = pool._webhooks._relay
    return {
        m["data"]["allocation"]
        for m in back_end.got
        if m["type"] == "allocation.created" and m["data"]["relay"] == relay
    }
