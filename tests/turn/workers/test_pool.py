"""Several processes, one relay: real workers, and clients that must not notice them."""

import asyncio
import os
import signal
import socket
import time

import pytest

from tests.patience import until
from tests.turn.live import UDP, Client, port_of
from tests.turn.workers.live import (
    allocate,
    data_of,
    permit,
    pour,
    refresh,
    say,
    send_indication,
    together,
)
from turn.codec import registry
from turn.codec.message import build
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address
from turn.stats import DropReason
from turn.workers.crew import Crew
from turn.workers.messages import Claim

pytestmark = pytest.mark.asyncio(loop_scope="session")

EVEN_PORT = (registry.EVEN_PORT, True)
BINDING = build(Method.BINDING, MessageClass.REQUEST, bytes(12), ())
FLOODERS, REQUESTS_EACH = 8, 10_000
"""A queue of four megabytes holds fewer than 6,000 datagrams, however short."""


class TestTogether:
    async def test_every_worker_serves_and_one_page_counts_all(self, stage):
        before = await stage.samples()
        clients = await stage.clients(24)
        await together(*(client.allocate() for client in clients))
        counts, samples = await stage.allocations(), await stage.samples()
        assert sum(counts) == 24
        assert min(counts) > 0
        assert samples["icebroker_turn_allocations",] == 24
        assert samples["icebroker_turn_relay_ports_in_use",] == 24
        assert samples["icebroker_turn_relay_ports_free",] == 16384 - 24
        assert [samples["icebroker_turn_worker_allocations", str(n)] for n in (0, 1)] == counts
        for counter in (
            ("icebroker_turn_allocations_created_total", "udp", "ipv4"),
            ("icebroker_stun_responses_total", "allocate", "401"),
        ):
            assert samples[counter] - before.get(counter, 0) == 24
        assert stage.pool.ready() == []

    async def test_clients_of_different_workers_meet(self, stage):
        stage.reload(allow_peers=[])
        (one, at_one), (two, at_two) = await stage.one_at_each()
        assert await together(permit(one, at_two), permit(two, at_one)) == [0, 0]
        assert await say(one, at_two, two, b"there")
        assert await say(two, at_one, one, b"and back")

    async def test_a_released_port_is_sent_to_by_nobody(self, stage):
        stage.reload(allow_peers=[])
        (one, at_one), (two, at_two) = await stage.one_at_each()
        await together(permit(one, at_two), permit(two, at_one))
        assert await say(one, at_two, two, b"there")
        refused = stage.pool.collector.stats().drops[DropReason.REFUSED_PEER]
        assert await refresh(two, 0) == 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as next_owner:
            next_owner.bind(at_two)
            next_owner.settimeout(0.3)
            await stage.pool.refresh()
            await one.send(send_indication(at_two, b"a secret"))
            with pytest.raises(TimeoutError):
                next_owner.recv(100)
        await stage.pool.refresh()
        assert stage.pool.collector.stats().drops[DropReason.REFUSED_PEER] == refused + 1


class TestFloods:
    async def test_requests_that_nobody_could_answer_cost_a_call_no_packet(self, stage):
        """More than any queue holds come in while the workers stand still."""
        stage.reload(allow_peers=[])
        (one, at_one), (two, at_two) = await stage.one_at_each()
        await together(permit(one, at_two), permit(two, at_one))
        pids = stage.pool.pids
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(FLOODERS):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flooder:
                    for _ in range(REQUESTS_EACH):
                        flooder.sendto(BINDING, ("127.0.0.1", port_of(stage.pool)))
            for number in range(20):
                await one.send(send_indication(at_two, b"%d" % number))
                await two.send(send_indication(at_one, b"%d" % number))
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        for client in (one, two):
            came = [data_of(await client.receive()) for _ in range(20)]
            assert came == [b"%d" % number for number in range(20)]


class TestQuotas:
    @pytest.mark.parametrize(
        ("limit", "code"),
        [
            ("max_allocations_per_user", 486),
            ("max_allocations_per_address", 486),
            ("max_allocations", 508),
        ],
    )
    async def test_all_workers_together_give_what_one_would(self, stage, limit, code):
        stage.reload(**{limit: 10})
        before = await stage.requests()
        for _ in range(2):
            clients = await stage.clients(40)
            codes = await together(*map(allocate, clients))
            assert (codes.count(0), codes.count(code)) == (10, 30)
            mine = [client for client, got in zip(clients, codes, strict=True) if not got]
            await together(*(refresh(client, 0) for client in mine))
        now = await stage.requests()
        assert min(after - count for after, count in zip(now, before, strict=True)) > 0

    async def test_strangers_get_what_one_worker_would_give_them(self, stage):
        await asyncio.sleep(1)  # what they have had before is forgotten by then
        stage.reload(max_bindings_per_second=5, max_unauthenticated_per_address=4)
        clients = await stage.clients(30)
        began = time.monotonic()
        for client in clients:
            await client.send(client.encode(Method.BINDING))
        answers = [asyncio.create_task(client.receive()) for client in clients]
        await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait(answers, timeout=0.5)
        answered = sum(answer.done() for answer in answers)
        assert 1 <= answered <= 5 * (1 + time.monotonic() - began)
        ended = [asyncio.create_task(it.receive()) for it in await stage.clients(16, "tcp")]
        await until(lambda: sum(end.done() for end in ended) >= 12)
        await asyncio.wait(ended, timeout=0.3)
        assert sum(end.done() for end in ended) == 12
        for task in (*answers, *ended):
            task.cancel()
        await asyncio.gather(*answers, *ended, return_exceptions=True)

    async def test_a_users_bandwidth_is_one_bucket(self, stage):
        stage.reload(max_bytes_per_second_per_user=20_000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
            sink.bind(("127.0.0.1", 0))
            sink.setblocking(False)
            peer = Address(*sink.getsockname())
            (one, _), (two, _) = await stage.one_at_each()
            await together(permit(one, peer), permit(two, peer))
            came, spent = await pour(stage, (one, two), sink, DropReason.USER_BANDWIDTH)
        assert 19_000 <= came <= 20_000 * (1 + spent) + 2000


class TestReservations:
    @pytest.mark.parametrize("protocol", ["udp", "tcp"])
    async def test_a_reserved_port_is_had_wherever_its_client_comes(
        self, stage, protocol, monkeypatch
    ):
        stage.reload(max_allocations_per_user=60)
        passed: list[object] = []
        pass_on = Crew._pass_on

        def counted(pool, message, descriptors):
            passed.append(message)
            pass_on(pool, message, descriptors)

        monkeypatch.setattr(Crew, "_pass_on", counted)
        first, second = await stage.clients(20, protocol), await stage.clients(20, protocol)

        async def pair(one, two):
            reply = await one.request(Method.ALLOCATE, UDP, EVEN_PORT)
            token = reply.get(registry.RESERVATION_TOKEN)
            other = await two.request(Method.ALLOCATE, UDP, (registry.RESERVATION_TOKEN, token))
            even, odd = (each.get(registry.XOR_RELAYED_ADDRESS) for each in (reply, other))
            assert (even.host, even.port + 1) == odd
            assert not even.port % 2
            assert await together(permit(two, even), permit(one, odd)) == [0, 0]
            assert await say(two, even, one, b"to the even one")

        await together(*map(pair, first, second))
        assert sum(await stage.allocations()) == 40
        assert any(isinstance(message, Claim) for message in passed)
        # What was handed over counts once: there is room for 20 more, and not for 21.
        codes = await together(*map(allocate, await stage.clients(21)))
        assert (codes.count(0), codes.count(486)) == (20, 1)

    async def test_not_for_another_user_and_none_that_nobody_made(self, stage):
        stage.reload(users={"alice": "pw", "bob": "pw"})
        for client in await stage.clients(6):
            reply = await client.request(Method.ALLOCATE, UDP, EVEN_PORT)
            token = reply.get(registry.RESERVATION_TOKEN)
            thief = Client("bob")
            await thief.connect(port_of(stage.pool))
            assert await allocate(thief, (registry.RESERVATION_TOKEN, token)) == 508
            invented = bytes([token[0]]) + bytes(7)
            assert await allocate(thief, (registry.RESERVATION_TOKEN, invented)) == 508
            thief.close()
