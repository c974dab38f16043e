"""Several processes, one relay: real workers, and clients that must not notice them."""

import asyncio
import os
import signal
import socket
import ssl
import time

import pytest

from config.certificate import self_signed
from tests.turn.live import UDP, Client, port_of, settings, until
from tests.turn.workers.live import (
    LOGS,
    allocations,
    code_of,
    permit,
    pool,
    refresh,
    requests,
    say,
    send_indication,
    together,
)
from turn.assemble import StartError
from turn.codec import registry
from turn.codec.registry import Method
from turn.codec.values import Address
from turn.transport.listeners import ListenError
from turn.workers.messages import Claim
from turn.workers.pool import WorkerPool

EVEN_PORT = (registry.EVEN_PORT, True)


@pytest.fixture
async def many(connect):
    """Connects many clients."""

    async def many(count, port, **how):
        return [await connect(port, **how) for _ in range(count)]

    return many


async def code_of_allocate(client, *attributes):
    return code_of(await client.request(Method.ALLOCATE, UDP, *attributes))


async def of_worker(made, client, before):
    """Which worker has the client's new allocation."""
    after = await allocations(made)
    return next(number for number, count in enumerate(after) if count > before[number])


async def one_at_each(made, many):
    """A client with its relayed address at each of two workers."""
    found = {}
    while len(found) < 2:
        before = await allocations(made)
        (client,) = await many(1, port_of(made))
        relayed = await client.allocate()
        found.setdefault(await of_worker(made, client, before), (client, relayed))
    return found[0], found[1]


class TestTogether:
    async def test_every_worker_serves_and_one_page_counts_all(self, many):
        async with pool() as made:
            clients = await many(24, port_of(made))
            await together(*(client.allocate() for client in clients))
            counts = await allocations(made)
            assert sum(counts) == 24
            assert min(counts) > 0
            samples = {
                (sample.name, *sample.labels.values()): sample.value
                for metric in made.collector.collect()
                for sample in metric.samples
            }
            assert samples["icebroker_turn_allocations",] == 24
            assert samples["icebroker_turn_relay_ports_in_use",] == 24
            assert samples["icebroker_turn_relay_ports_free",] == 16384 - 24
            assert samples["icebroker_turn_allocations_created_total", "udp", "ipv4"] == 24
            assert samples["icebroker_stun_responses_total", "allocate", "401"] == 24
            assert [samples["icebroker_turn_worker_allocations", str(n)] for n in (0, 1)] == counts
            assert made.ready() == []

    async def test_clients_of_different_workers_meet(self, many):
        async with pool(allow_peers=[]) as made:
            (one, at_one), (two, at_two) = await one_at_each(made, many)
            assert await together(permit(one, at_two), permit(two, at_one)) == [0, 0]
            assert await say(one, at_two, two, b"there")
            assert await say(two, at_one, one, b"and back")

    async def test_a_released_port_is_sent_to_by_nobody(self, many):
        async with pool(allow_peers=[]) as made:
            (one, at_one), (two, at_two) = await one_at_each(made, many)
            await together(permit(one, at_two), permit(two, at_one))
            assert await say(one, at_two, two, b"there")
            assert await refresh(two, 0) == 0
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as next_owner:
                next_owner.bind(at_two)
                next_owner.settimeout(0.3)
                await asyncio.sleep(0.1)
                await one.send(send_indication(at_two, b"a secret"))
                with pytest.raises(TimeoutError):
                    next_owner.recv(100)
            await made.refresh()
            assert made.collector.stats().drops["refused_peer"] == 1


class TestQuotas:
    @pytest.mark.parametrize(
        ("limit", "code"),
        [
            ("max_allocations_per_user", 486),
            ("max_allocations_per_address", 486),
            ("max_allocations", 508),
        ],
    )
    async def test_all_workers_together_give_what_one_would(self, many, limit, code):
        async with pool(**{limit: 10}) as made:
            clients = await many(40, port_of(made))
            for _ in range(2):
                codes = await together(*map(code_of_allocate, clients))
                assert (codes.count(0), codes.count(code)) == (10, 30)
                mine = [client for client, got in zip(clients, codes, strict=True) if not got]
                assert min(await requests(made)) > 0
                await together(*(refresh(client, 0) for client in mine))
                clients = await many(40, port_of(made))

    async def test_strangers_get_what_one_worker_would_give_them(self, many):
        async with pool(max_bindings_per_second=5, max_unauthenticated_per_address=4) as made:
            port = port_of(made)
            clients = await many(30, port)
            began = time.monotonic()
            for client in clients:
                await client.send(client.encode(Method.BINDING))
            answers = await together(*map(answered, clients))
            assert 1 <= sum(answers) <= 5 * (1 + time.monotonic() - began)
            streams = await many(16, port_of(made, "tcp"), tcp=True)
            kept = await together(*(stays(client) for client in streams))
            assert sum(kept) == 4

    async def test_a_users_bandwidth_is_one_bucket(self, many):
        async with pool(max_bytes_per_second_per_user=20_000) as made:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
                sink.bind(("127.0.0.1", 0))
                sink.setblocking(False)
                peer = Address(*sink.getsockname())
                (one, _), (two, _) = await one_at_each(made, many)
                await together(permit(one, peer), permit(two, peer))
                began = time.monotonic()
                for _ in range(60):
                    for client in (one, two):
                        await client.send(send_indication(peer, bytes(1000)))
                await asyncio.sleep(0.2)
                came = 0
                while size := received(sink):
                    came += size
                spent = time.monotonic() - began
            assert 19_000 <= came <= 20_000 * (1 + spent) + 2000
            await made.refresh()
            assert made.collector.stats().drops["user_bandwidth"] == 120 - came / 1000


def received(sink):
    try:
        return len(sink.recv(2000))
    except BlockingIOError:
        return 0


async def answered(client):
    try:
        return bool(await client.receive(0.5))
    except TimeoutError:
        return False


async def stays(client):
    """Whether a connection is not closed at once."""
    try:
        await client.receive(0.5)
    except TimeoutError:
        return True
    except (EOFError, ConnectionError):
        return False
    return False


class TestReservations:
    @pytest.mark.parametrize("tcp", [False, True])
    async def test_a_reserved_port_is_had_wherever_its_client_comes(self, many, tcp, monkeypatch):
        claims = []
        passed = WorkerPool._pass_on
        monkeypatch.setattr(
            WorkerPool, "_pass_on", lambda *args: (claims.append(args[1]), passed(*args))[1]
        )
        async with pool(max_allocations_per_user=60) as made:
            port = port_of(made, "tcp" if tcp else "udp")
            first, second = await many(20, port, tcp=tcp), await many(20, port, tcp=tcp)

            async def pair(one, two):
                reply = await one.request(Method.ALLOCATE, UDP, EVEN_PORT)
                token = reply.get(registry.RESERVATION_TOKEN)
                other = await two.request(Method.ALLOCATE, UDP, (registry.RESERVATION_TOKEN, token))
                even, odd = (r.get(registry.XOR_RELAYED_ADDRESS) for r in (reply, other))
                assert (even.host, even.port + 1) == odd
                assert not even.port % 2
                assert await permit(two, even) == 0
                assert await permit(one, odd) == 0
                assert await say(two, even, one, b"to the even one")

            await together(*map(pair, first, second))
            assert sum(await allocations(made)) == 40
            assert sum(isinstance(claim, Claim) for claim in claims) > 0
            # What was handed over counts once: there is room for 20 more, and not for 21.
            more = await many(21, port_of(made))
            codes = await together(*map(code_of_allocate, more))
            assert codes.count(0) == 20

    async def test_nobody_elses_and_none_that_nobody_made(self, many):
        async with pool(users={"alice": "pw", "bob": "pw"}) as made:
            for client in await many(6, port_of(made)):
                reply = await client.request(Method.ALLOCATE, UDP, EVEN_PORT)
                token = reply.get(registry.RESERVATION_TOKEN)
                thief = Client("bob")
                await thief.connect(port_of(made))
                stolen = (registry.RESERVATION_TOKEN, token)
                assert await code_of_allocate(thief, stolen) == 508
                invented = (registry.RESERVATION_TOKEN, bytes([token[0]]) + bytes(7))
                assert await code_of_allocate(thief, invented) == 508
                thief.close()


class TestDeath:
    async def test_the_others_clients_notice_nothing_and_quotas_come_back(self, many):
        async with pool(max_allocations_per_user=12) as made:
            (mine, at_mine), (lost, at_lost) = await one_at_each(made, many)
            clients = await many(12, port_of(made))
            await together(*map(code_of_allocate, clients))
            before = sum(await allocations(made))
            assert before == 12
            await together(permit(mine, at_mine, at_lost), permit(lost, at_mine))
            await made.refresh()
            counted = made.collector.stats().allocations_created["udp", "ipv4"]
            survivors = (await allocations(made))[0]
            traffic = asyncio.create_task(keeps_talking(mine, at_mine))
            await asyncio.sleep(0.2)
            pid = made.pids[1]
            os.kill(pid, signal.SIGKILL)
            await until(lambda: made.pids[1] is None)
            assert made.ready() == ["worker 1 is being replaced"]
            await until(lambda: made.pids[1] not in {None, pid}, patience=20)
            assert made.ready() == []
            traffic.cancel()
            sent, came = await traffic
            assert sent == came > 10
            await made.refresh()
            assert made.collector.stats().allocations_created["udp", "ipv4"] == counted
            assert [tally.restarts for tally in tallies(made)] == [0, 1]
            # Whoever was with the dead one is told with the next request, and allocates anew.
            assert await refresh(lost) == 437
            assert sum(await allocations(made)) == survivors
            more = await many(12, port_of(made))
            codes = await together(*map(code_of_allocate, more))
            assert codes.count(0) == 12 - survivors

    async def test_its_relayed_addresses_are_no_peers_any_more(self, many):
        async with pool(allow_peers=[]) as made:
            (one, at_one), (two, at_two) = await one_at_each(made, many)
            await together(permit(one, at_two), permit(two, at_one))
            assert await say(one, at_two, two, b"there")
            os.kill(made.pids[1], signal.SIGKILL)
            await until(lambda: made.pids[1] is None)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as next_owner:
                next_owner.bind(at_two)
                next_owner.settimeout(0.3)
                await asyncio.sleep(0.1)
                await one.send(send_indication(at_two, b"a secret"))
                with pytest.raises(TimeoutError):
                    next_owner.recv(100)
            await until(lambda: made.ready() == [], patience=20)

    async def test_a_port_of_the_dead_is_not_held_for_its_clients(self, many):
        """A client whose token the dead worker made gets 508, and no wait for an answer."""
        async with pool() as made:
            tokens = []
            for client in await many(8, port_of(made)):
                reply = await client.request(Method.ALLOCATE, UDP, EVEN_PORT)
                tokens.append(reply.get(registry.RESERVATION_TOKEN))
            os.kill(made.pids[1], signal.SIGKILL)
            await until(lambda: made.pids[1] is None)
            await until(lambda: made.ready() == [], patience=20)
            dead = [token for token in tokens if token[0] == 1]
            assert dead
            for client, token in zip(await many(len(dead), port_of(made)), dead, strict=True):
                stale = (registry.RESERVATION_TOKEN, token)
                assert await code_of_allocate(client, stale) == 508


def tallies(made):
    return [worker.tally for worker in made._workers]


async def keeps_talking(client, to):
    """Sends to itself by way of the relay until cancelled; gives what was sent, what came."""
    sent = came = 0
    try:
        while True:
            sent += 1
            came += await say(client, to, client, b"%d" % sent)
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        return sent - (sent > came), came


class TestLife:
    async def test_settings_reach_all_or_none(self, many, tmp_path):
        pairs = []
        for name in ("old", "new"):
            (tmp_path / name).mkdir()
            pairs.append(self_signed(["127.0.0.1"], tmp_path / name))

        def changed(certificate, key, **more):
            tls = {"tls_certificate": str(certificate), "tls_key": str(key)}
            return {"workers": 2, "listen_tls": ["127.0.0.1:0"], **tls, **more}

        async with pool(**changed(*pairs[0])) as made:
            clients = await many(10, port_of(made))
            await together(*(client.allocate() for client in clients))
            assert min(await allocations(made)) > 0
            port = port_of(made, "tls")
            old = {await shown(port) for _ in range(6)}
            with pytest.raises(StartError, match="tls_certificate"):
                made.reload(settings(**changed(pairs[0][0], pairs[1][1], max_lifetime=700)))
            assert {await shown(port) for _ in range(6)} == old
            made.reload(settings(**changed(*pairs[1], max_lifetime=700)))
            replies = await together(
                *(client.request(Method.REFRESH, (registry.LIFETIME, 3600)) for client in clients)
            )
            assert [reply.get(registry.LIFETIME) for reply in replies] == [700] * 10
            assert {await shown(port) for _ in range(6)}.isdisjoint(old)
            # One that is started later has what the others have, whatever the files hold now.
            pairs[1][1].write_text("no key any more")
            os.kill(made.pids[0], signal.SIGKILL)
            await until(lambda: made.pids[0] is None)
            await until(lambda: made.ready() == [], patience=20)
            assert {await shown(port) for _ in range(6)}.isdisjoint(old)

    async def test_all_drain(self, many):
        async with pool() as made:
            clients = await many(8, port_of(made))
            await together(*(client.allocate() for client in clients))
            draining = asyncio.create_task(made.drain(30))
            await until(lambda: made.draining)
            assert made.ready() == ["draining"]
            codes = await together(*map(code_of_allocate, await many(8, port_of(made))))
            assert codes == [508] * 8
            # One that dies meanwhile comes back, to turn clients away at once.
            os.kill(made.pids[0], signal.SIGKILL)
            await until(lambda: made.pids[0] is None)
            await until(lambda: made.ready() == ["draining"], patience=20)
            codes = await together(*map(code_of_allocate, await many(8, port_of(made))))
            assert codes == [508] * 8
            assert not draining.done()
            await together(*(refresh(client, 0) for client in clients))
            await asyncio.wait_for(draining, 5)

    async def test_nothing_is_left_after_the_stop(self, many):
        async with pool() as made:
            pids, port = made.pids, port_of(made)
            (client,) = await many(1, port)
            relayed = await client.allocate()
        assert made.ready() == ["not running"]
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        for address in (relayed, Address("127.0.0.1", port)):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind(tuple(address))

    async def test_a_taken_address_is_named_also_if_its_owner_would_share_it(self):
        async with pool() as first:
            port = port_of(first)
            second = WorkerPool(settings(workers=2, listen=[f"127.0.0.1:{port}"]), LOGS)
            wanted = rf"the relay cannot listen on 127\.0\.0\.1:{port} \(udp\): "
            with pytest.raises(ListenError, match=wanted):
                await second.start()
            await second.stop()

    async def test_what_a_worker_cannot_do_is_why_the_pool_does_not_start(self):
        made = WorkerPool(settings(workers=2, relay_addresses=["::1"], listen=[]), LOGS)
        made._reserved_ports = [0]
        made._settings = made._settings.model_copy(update={"relay_addresses": ()})
        made._addresses = []
        with pytest.raises(StartError, match="no address to relay from"):
            await made.start()
        assert made.pids == [None, None]


async def shown(port):
    """The certificate that a new TLS client is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found
