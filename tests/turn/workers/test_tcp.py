"""TCP allocations (RFC 6062) of several workers: the client's second connection comes to any."""

import asyncio
import os
import time
from contextlib import suppress

import pytest

from tests.turn.live import UDP, port_of
from tests.turn.peers import TCP, listening, receive
from tests.turn.secure import TlsClient
from tests.turn.workers import calls
from tests.turn.workers.live import code_of, permit, refresh, together
from turn.codec import registry
from turn.codec.message import parse_untrusted
from turn.codec.registry import Method
from turn.codec.values import Address

pytestmark = pytest.mark.asyncio(loop_scope="session")

MEGABYTE = 1 << 20
TICKET = (registry.MOBILITY_TICKET, b"")


async def most_in(client, seconds):
    """How many bytes come in so much time."""
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while part := await asyncio.get_running_loop().sock_recv(client.sock, MEGABYTE):
                size += len(part)
    return size


class TestBytes:
    @pytest.mark.parametrize("owner", [0, 1])
    async def test_they_pass_as_they_are_both_ways(self, tcp, peer, owner):
        before = await tcp.samples()
        call = await calls.begin(tcp, peer, owner)
        data = await calls.splice(tcp, call)
        await data.send(b"GET / HTTP/1.1\r\n")  # what no framer would take
        assert await calls.exactly(call.reader, 16) == b"GET / HTTP/1.1\r\n"
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
        assert await calls.exactly(call.reader, len(sent)) == sent
        await sending

    async def test_over_tls(self, tcp, peer):
        """What the client's side is cannot be handed over; the peer's can."""
        call = await calls.begin(tcp, peer)
        data = await calls.splice(tcp, call, "tls")
        assert isinstance(data, TlsClient)
        await data.send(b"there")
        assert await calls.exactly(call.reader, 5) == b"there"
        call.writer.write(b"and back")
        assert await calls.exactly(data._reader, 8) == b"and back"

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
        assert await calls.exactly(call.reader, 7) == b"at once"

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
        assert await calls.exactly(reader, 8) == b"and back"
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
            assert await calls.exactly(call.reader, 4) == b"mine"
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
        assert await calls.ended(ours)
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
            assert await calls.exactly(reader, 10) == b"still here"
            writer.close()
        assert await calls.connect(client, peer.address) == -446
        await data.send(b"and I")
        assert await refresh(client, 0) == 0
        assert await calls.ended(data)

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
        assert await calls.ended(client)
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
        assert await calls.ended(client)
        await tcp.settle()
        again = await calls.at(tcp, 1)
        assert code_of(await again.request(Method.REFRESH, ticket)) == 400
