"""TCP allocations (RFC 6062) of several workers: the client's second connection comes to any."""

import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from tests.patience import PATIENCE, until
from tests.turn.live import UDP, port_of, settings
from tests.turn.peers import TCP, listening, receive
from tests.turn.secure import TlsClient
from tests.turn.workers import calls
from tests.turn.workers.live import LOGS, Stage, code_of, permit, refresh, together
from turn.codec import registry
from turn.codec.message import parse_untrusted
from turn.codec.registry import Method
from turn.codec.values import Address
from turn.workers.pool import WorkerPool

pytestmark = pytest.mark.asyncio(loop_scope="session")

MEGABYTE = 1 << 20
TICKET = (registry.MOBILITY_TICKET, b"")


@pytest_asyncio.fixture(name="tcp", loop_scope="session")
async def tcp_fixture(stage):
    """The pool with TCP allocations."""
    stage.reload(tcp_allocations=True)
    return stage


@pytest_asyncio.fixture(name="peer", loop_scope="session")
async def peer_fixture():
    """A peer that can be connected to."""
    async with listening() as peer:
        yield peer


async def ends(reader):
    """Read to the end; gives what came before it."""
    async with asyncio.timeout(PATIENCE):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def exactly(reader, size):
    """Read so many bytes."""
    async with asyncio.timeout(PATIENCE):
        return await reader.readexactly(size)


async def ended(client):
    """Whether the client's connection comes to its end."""
    try:
        return await receive(client.sock, 1) == b""
    except ConnectionResetError:
        return True


async def most_in(client, seconds):
    """How many bytes come in so much time."""
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while part := await asyncio.get_running_loop().sock_recv(client.sock, MEGABYTE):
                size += len(part)
    return size


@asynccontextmanager
async def standing_still(stage, worker):
    """A worker that does nothing for a while."""
    pid = stage.pool.pids[worker]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # that was its end
            os.kill(pid, signal.SIGCONT)


class TestBytes:
    @pytest.mark.parametrize("owner", [0, 1])
    async def test_they_pass_as_they_are_both_ways(self, tcp, peer, owner):
        before = await tcp.samples()
        call = await calls.begin(tcp, peer, owner)
        data = await calls.splice(tcp, call)
        await data.send(b"GET / HTTP/1.1\r\n")  # what no framer would take
        assert await exactly(call.reader, 16) == b"GET / HTTP/1.1\r\n"
        call.writer.write(b"\xff" * 100)
        assert await receive(data.sock, 100) == b"\xff" * 100
        after = await tcp.samples()
        for way, size in (("to_peer", 16), ("to_client", 100)):
            name = ("icebroker_turn_relay_bytes_total", way, "userspace")
            assert after[name] - before[name] == size

    async def test_many_of_them_and_none_is_lost(self, tcp, peer):
        call = await calls.begin(tcp, peer)
        data = await calls.splice(tcp, call)
        sent = os.urandom(4 * MEGABYTE)
        call.writer.write(sent)
        assert await receive(data.sock, len(sent)) == sent
        sending = asyncio.create_task(data.send(sent))
        assert await exactly(call.reader, len(sent)) == sent
        await sending

    async def test_over_tls(self, tcp, peer):
        """What the client's side is cannot be handed over; the peer's can."""
        call = await calls.begin(tcp, peer)
        data = await calls.splice(tcp, call, "tls")
        assert isinstance(data, TlsClient)
        await data.send(b"there")
        assert await exactly(call.reader, 5) == b"there"
        call.writer.write(b"and back")
        assert await exactly(data._reader, 8) == b"and back"

    async def test_what_came_early_is_not_lost_on_either_side(self, tcp, peer):
        call = await calls.begin(tcp, peer)
        call.writer.write(b"early")
        await asyncio.sleep(
            0.1
        )  # it is with the worker that waits for the client, or in its socket
        data = await calls.at(tcp, call.other)
        data.nonce = call.control.nonce
        number = (registry.CONNECTION_ID, call.number)
        await data.send(data.encode(Method.CONNECTION_BIND, number) + b"at once")
        reply = await receive(data.sock, 20)
        size = 20 + int.from_bytes(reply[2:4])
        reply += await receive(data.sock, size + 5 - len(reply))
        assert code_of(parse_untrusted(reply[:size])) == 0
        assert reply[size:] == b"early"
        assert await exactly(call.reader, 7) == b"at once"

    async def test_a_peer_that_connects_is_had_from_elsewhere_too(self, tcp):
        control = await calls.at(tcp, 0)
        relayed = await calls.allocate(control)
        await permit(control, Address("127.0.0.1", 0))
        reader, writer = await asyncio.open_connection(*relayed)
        call = calls.Call(control, await calls.attempt(control), reader, writer)
        data = await calls.splice(tcp, call)
        writer.write(b"hello")
        assert await receive(data.sock, 5) == b"hello"
        await data.send(b"and back")
        assert await exactly(reader, 8) == b"and back"
        writer.close()


class TestClaims:
    async def test_of_all_who_claim_it_one_gets_it(self, tcp, peer):
        """At both workers, at once, and again afterwards."""
        for owner in (0, 1):
            call = await calls.begin(tcp, peer, owner)
            clients = [await calls.at(tcp, worker) for worker in (0, 1, 0, 1)]
            codes = await together(*(calls.bind(client, call.number) for client in clients))
            assert sorted(codes) == [0, 400, 400, 400]
            (winner,) = [each for each, code in zip(clients, codes, strict=True) if not code]
            await winner.send(b"mine")
            assert await exactly(call.reader, 4) == b"mine"
            for worker in (0, 1):
                assert await calls.bind(await calls.at(tcp, worker), call.number) == 400

    async def test_it_is_nobody_elses(self, tcp, peer):
        tcp.reload(tcp_allocations=True, users={"alice": "pw", "bob": "pw"})
        call = await calls.begin(tcp, peer)
        thief = await calls.at(tcp, call.other, "bob")
        assert await calls.bind(thief, call.number) == 441
        assert await calls.bind(thief, call.number ^ 1) == 400
        await calls.splice(tcp, call)

    async def test_what_is_nobodys(self, tcp):
        for number in (0, 1, 0x01FFFFFF, 0x02FFFFFF, 0xFFFFFFFF):
            assert await calls.bind(await calls.at(tcp, 0), number) == 400

    async def test_messages_go_on_where_there_was_nothing_to_be_had(self, tcp):
        """What follows in the same segment is no more than held while the other worker is asked."""
        client = await calls.at(tcp, 0)
        await client.request(Method.REFRESH)
        bind = client.encode(Method.CONNECTION_BIND, (registry.CONNECTION_ID, 0x01FFFFFF))
        await client.send(bind + bind + client.encode(Method.BINDING))
        replies = [parse_untrusted(await client.receive()) for _ in range(3)]
        assert [(reply.method, code_of(reply)) for reply in replies] == [
            (Method.CONNECTION_BIND, 400), (Method.CONNECTION_BIND, 400), (Method.BINDING, 0),
        ]  # fmt: skip
        assert code_of(await client.request(Method.ALLOCATE, UDP)) == 0


class TestLimits:
    @pytest.mark.parametrize("limit", ["max_bytes_per_second", "max_bytes_per_second_per_user"])
    async def test_a_rate_holds_for_all_connections_together(self, tcp, peer, limit):
        """One connection stays with its allocation's worker, two go to the other one."""
        tcp.reload(tcp_allocations=True, **{limit: MEGABYTE})
        control = await calls.at(tcp, 0)
        await calls.allocate(control)
        clients, sending = [], []
        async with listening() as second, listening() as third:
            for worker, each in ((0, peer), (1, second), (1, third)):
                number = await calls.connect(control, each.address)
                _, writer = await each.next()
                clients.append(await calls.at(tcp, worker))
                assert await calls.bind(clients[-1], number) == 0
                sending.append(writer)
            began = time.monotonic()
            for writer in sending:
                writer.write(bytes(4 * MEGABYTE))
            received = sum(await together(*(most_in(client, 1.0) for client in clients)))
            # What one read brings is passed on before it is paid off.
            assert 0 < received < MEGABYTE * (1 + time.monotonic() - began) + 3 * 262144

    async def test_relayed_addresses_are_peers_at_other_workers_each_for_its_protocol(self, tcp):
        """Of this machine nothing else may be connected to (``tests/threats``)."""
        tcp.reload(tcp_allocations=True, allow_peers=[])
        one, other, udp = [await calls.at(tcp, worker) for worker in (0, 1, 1)]
        at_one, at_other = [await calls.allocate(client) for client in (one, other)]
        at_udp = await udp.allocate()
        assert await calls.connect(one, at_udp) == -403
        for port in (port_of(tcp.pool), port_of(tcp.pool, "tcp"), 22):
            assert await calls.connect(one, Address("127.0.0.1", port)) == -403
        channel = (registry.CHANNEL_NUMBER, 0x4000), (registry.XOR_PEER_ADDRESS, at_one)
        assert code_of(await udp.request(Method.CHANNEL_BIND, *channel)) == 403
        await permit(other, at_one)
        number = await calls.connect(one, at_other)
        accepted = await calls.attempt(other)
        ours, theirs = await calls.at(tcp, 1), await calls.at(tcp, 0)
        assert await calls.bind(ours, number) == 0
        assert await calls.bind(theirs, accepted) == 0
        await ours.send(b"there")
        assert await receive(theirs.sock, 5) == b"there"
        assert await refresh(other, 0) == 0
        assert await ended(ours)
        assert await calls.connect(one, at_other) == -403


class TestMobility:
    """RFC 8016: the allocation stays, and the client's new connection goes to it."""

    @pytest.mark.parametrize("protocol", ["tcp", "tls"])
    async def test_a_client_comes_back_over_any_connection(self, tcp, peer, protocol):
        tcp.reload(tcp_allocations=True, mobility=True)
        first = await calls.at(tcp, 0)
        reply = await first.request(Method.ALLOCATE, TCP, TICKET)
        relayed = reply.get(registry.XOR_RELAYED_ADDRESS)
        ticket = reply.get(registry.MOBILITY_TICKET)
        assert relayed is not None
        number = await calls.connect(first, peer.address)
        data = await calls.splice(tcp, calls.Call(first, number, *await peer.next()))
        first.close()
        client = first
        for worker in (1, 0, 1):
            client = await calls.at(tcp, worker, protocol=protocol)
            await client.request(Method.REFRESH)
            refresh_request = client.encode(Method.REFRESH, (registry.MOBILITY_TICKET, ticket))
            # What follows in one segment is answered after it, wherever that is.
            await client.send(refresh_request + client.encode(Method.BINDING))
            moved, after = [parse_untrusted(await client.receive()) for _ in range(2)]
            assert (code_of(moved), code_of(after), after.method) == (0, 0, Method.BINDING)
            assert moved.get(registry.MOBILITY_TICKET) != ticket
            ticket = moved.get(registry.MOBILITY_TICKET)
            assert await tcp.allocations() == [1, 0]
            await permit(client, Address("127.0.0.1", 0))
            reader, writer = await asyncio.open_connection(*relayed)
            call = calls.Call(client, await calls.attempt(client), reader, writer)
            await (await calls.splice(tcp, call)).send(b"still here")
            assert await exactly(reader, 10) == b"still here"
            writer.close()
        assert await calls.connect(client, peer.address) == -446
        await data.send(b"and I")
        assert await refresh(client, 0) == 0
        assert await ended(data)

    async def test_a_client_is_led_to_one_allocation_and_from_there_nowhere(self, tcp):
        """Each step would take two descriptors more, and no limit would know of them."""
        tcp.reload(tcp_allocations=True, mobility=True)
        tickets = []
        for worker in (0, 1):
            client = await calls.at(tcp, worker)
            reply = await client.request(Method.ALLOCATE, TCP, TICKET)
            tickets.append((registry.MOBILITY_TICKET, reply.get(registry.MOBILITY_TICKET)))
            client.close()
        client = await calls.at(tcp, 1)
        assert code_of(await client.request(Method.REFRESH, tickets[0])) == 0
        release = client.encode(Method.REFRESH, (registry.LIFETIME, 0))
        await client.send(release + client.encode(Method.REFRESH, tickets[1]))
        assert code_of(parse_untrusted(await client.receive())) == 0
        assert await ended(client)
        assert await tcp.allocations() == [0, 1]

    async def test_a_ticket_is_its_owners_and_the_worker_has_to_be_there(self, tcp):
        users = {"alice": "pw", "bob": "pw"}
        tcp.reload(tcp_allocations=True, mobility=True, users=users)
        first = await calls.at(tcp, 0)
        reply = await first.request(Method.ALLOCATE, TCP, TICKET)
        ticket = (registry.MOBILITY_TICKET, reply.get(registry.MOBILITY_TICKET))
        thief, over_udp = await calls.at(tcp, 1, "bob"), (await tcp.one_at_each())[1][0]
        assert code_of(await thief.request(Method.REFRESH, ticket)) == 441
        assert await refresh(over_udp, 0) == 0
        assert code_of(await over_udp.request(Method.REFRESH, ticket)) == 400
        client = await calls.at(tcp, 1)
        assert code_of(await client.request(Method.REFRESH, ticket)) == 0
        await tcp.kill(0)
        assert await ended(client)
        await tcp.settle()
        again = await calls.at(tcp, 1)
        assert code_of(await again.request(Method.REFRESH, ticket)) == 400


class TestEnds:
    async def test_a_client_that_is_kept_out_loses_what_it_has_claimed(self, tcp):
        """By the address of that connection, wherever its allocation's comes from."""
        control = await calls.at(tcp, 0)
        await calls.allocate(control)
        held = []
        async with (
            listening() as one,
            listening() as two,
            listening() as three,
            listening() as other,
        ):
            places = ((one, 0, "127.0.0.2"), (two, 1, "127.0.0.2"), (three, 1, ""))
            for peer, worker, source in places:
                number = await calls.connect(control, peer.address)
                await peer.next()
                held.append(await calls.at(tcp, worker, source=source))
                assert await calls.bind(held[-1], number) == 0
            tcp.reload(tcp_allocations=True, deny_clients=["127.0.0.2/32"])
            assert await together(ended(held[0]), ended(held[1])) == [True, True]
            assert await calls.connect(control, three.address) == -446, "this one goes on"
            number = await calls.connect(control, other.address)
            for worker in (0, 1):
                again = await calls.at(tcp, worker, source="127.0.0.2")
                assert await calls.bind(again, number) == 403

    @pytest.mark.parametrize(
        "who", ["client", "peer", "control", "refresh", "operator", "revoked", "refused"]
    )
    async def test_each_is_the_end_of_all(self, tcp, peer, who):
        call = await calls.begin(tcp, peer)
        data = await calls.splice(tcp, call)
        if who in {"client", "peer"}:
            {"client": data.close, "peer": call.writer.close}[who]()
        elif who == "control":
            call.control.close()
        elif who == "refresh":
            assert await refresh(call.control, 0) == 0
        elif who == "operator":
            (allocations,) = tcp.pool.collections
            (found,) = (await allocations.snapshot()).values()
            await allocations.end(found)
        elif who == "revoked":
            assert await tcp.pool.revoke("alice", time.time() + 60) == 1
        else:
            tcp.reload(tcp_allocations=True, deny_peers=["127.0.0.0/8"])
        if who != "peer":
            assert await ends(call.reader) == b""
        if who != "client":
            assert await ended(data)
        if who in {"client", "peer"}:  # the peer may be connected with again
            number = await calls.connect_again(call.control, peer.address)
            # Where our side ended first, the kernel has these two ports wait (TIME-WAIT).
            assert number > 0 or (who == "client" and number == -447)

    async def test_a_connection_counts_wherever_it_is(self, tcp, peer):
        tcp.reload(tcp_allocations=True, max_channels=1)
        call = await calls.begin(tcp, peer)
        data = await calls.splice(tcp, call)
        async with listening() as second:
            assert await calls.connect(call.control, second.address) == -508
            data.close()
            await calls.connect_again(call.control, second.address)

    async def test_nothing_is_left_of_them(self, tcp, peer):
        def held():
            return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in tcp.pool.pids]

        async def rounds(count):
            for turn in range(count):
                call = await calls.begin(tcp, peer)
                data = await calls.splice(tcp, call)
                (data.close if turn % 2 else call.writer.close)()
                assert await (ends(call.reader) if turn % 2 else ended(data)) in {b"", True}
                assert await refresh(call.control, 0) == 0
                for client in tcp.closing:
                    client.close()
                tcp.closing.clear()

        await rounds(2)
        before = held()
        await rounds(10)
        await until(lambda: sum(held()) <= sum(before))


class TestDeath:
    async def test_of_the_worker_that_has_the_allocation(self, tcp, peer):
        call = await calls.begin(tcp, peer)
        data = await calls.splice(tcp, call)
        unclaimed = await calls.begin(tcp, peer)
        await tcp.kill(call.owner)
        assert await ends(call.reader) == b""
        assert await ended(data)
        await tcp.settle()
        assert await calls.bind(await calls.at(tcp, call.other), unclaimed.number) == 400

    async def test_of_the_worker_that_has_the_client(self, tcp, peer):
        call = await calls.begin(tcp, peer)
        await calls.splice(tcp, call)
        await tcp.kill(call.other)
        assert await ends(call.reader) == b""
        number = await calls.connect_again(call.control, peer.address)
        await tcp.settle()
        call = calls.Call(call.control, number, *await peer.next())
        data = await calls.splice(tcp, call)
        await data.send(b"again")
        assert await exactly(call.reader, 5) == b"again"

    async def test_while_it_is_asked(self, tcp, peer):
        call = await calls.begin(tcp, peer)
        data = await calls.at(tcp, call.other)
        async with standing_still(tcp, call.owner):
            asking = asyncio.create_task(calls.bind(data, call.number))
            await asyncio.sleep(0.3)
            await tcp.kill(call.owner)
        assert await asking == 400
        await tcp.settle()

    async def test_one_that_does_not_answer_in_time(self, tcp, peer):
        """447, and what comes after that is closed: the client knows of no connection."""
        call = await calls.begin(tcp, peer)
        data = await calls.at(tcp, call.other)
        await data.request(Method.REFRESH)
        async with standing_still(tcp, call.owner):
            assert await calls.bind(data, call.number) == 447
            assert code_of(await data.request(Method.BINDING)) == 0
        assert await ends(call.reader) == b""

    async def test_a_client_that_does_not_wait_for_the_answer(self, tcp, peer):
        call = await calls.begin(tcp, peer)
        data = await calls.at(tcp, call.other)
        await data.request(Method.REFRESH)
        async with standing_still(tcp, call.owner):
            await data.send(
                data.encode(Method.CONNECTION_BIND, (registry.CONNECTION_ID, call.number))
            )
            await asyncio.sleep(0.3)
            data.close()
        assert await ends(call.reader) == b""
        assert await refresh(call.control) == 0

    @pytest.mark.parametrize("how", ["stop", "leave"])
    async def test_of_all_of_them(self, peer, connect, how):
        """A relay that ends ends its connections: another process could not go on with them."""
        pool = WorkerPool(settings(workers=2, tcp_allocations=True), LOGS)
        await pool.start()
        stage = Stage(pool, {}, connect)
        try:
            call = await calls.begin(stage, peer)
            data = await calls.splice(stage, call)
        finally:
            await getattr(pool, how)()
        assert await ends(call.reader) == b""
        assert await ended(data)
        for client in stage.closing:
            client.close()
