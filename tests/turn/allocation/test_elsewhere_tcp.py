"""A client whose connection with a TCP peer, or whose allocation for TCP, is at another worker."""

import pytest

from tests.turn.allocation.two_workers import ASKED, at, two_worlds
from tests.turn.auth.test_third_party import HELD, THIRD_PARTY, Holder, seal
from tests.turn.world import PEER, FakeStream, FakeTcpRelay, code_of
from turn.codec import registry
from turn.codec.message import parse_untrusted
from turn.codec.registry import Method
from turn.routes import Transport


class TestConnections:
    """RFC 6062: ConnectionBind."""

    def begin(self, there, username="alice", password="pw"):
        """A connection there, and its CONNECTION-ID."""
        there.world.opener.tcp = True
        client = there.world.client(username, password, transport=Transport.TCP)
        assert code_of(client.request(Method.ALLOCATE, (registry.REQUESTED_TRANSPORT, 6))) == 0
        assert client.raw(client.encode(Method.CONNECT, (registry.XOR_PEER_ADDRESS, PEER))) is None
        stream = FakeStream()
        client.relay.dialled.pop()[1](stream, there.world.monotonic)
        number = parse_untrusted(client.received.pop()).get(registry.CONNECTION_ID)
        return client, stream, (registry.CONNECTION_ID, number)

    def bind(self, there, here, number, username="alice", password="pw"):
        """Claim it here; gives the reply, and what the connection carries after it."""
        client = here.client(username, password, transport=Transport.TCP)
        return self.claim(there, here, client, number)

    def claim(self, there, here, client, *attributes):
        """The same of a client."""
        client.nonce = client.once(Method.REFRESH).get(registry.NONCE)
        data = client.encode(Method.CONNECTION_BIND, *attributes)
        reply = here.engine.handle(memoryview(data), client.five_tuple, client.send, here.now)
        arrived: list[tuple[bytes, object]] = []
        reply.waiting.tell(lambda *what: arrived.append(what))
        assert reply.data == b""
        there.answer()
        assert client.received == []
        (found,) = arrived
        return code_of(parse_untrusted(found[0])), found[1]

    def test_it_is_lent_and_stays_the_allocations(self):
        there, here = two_worlds()
        client, stream, number = self.begin(there)
        assert self.bind(there, here, number) == (0, stream)
        peer = (registry.XOR_PEER_ADDRESS, PEER)
        assert code_of(client.request(Method.CONNECT, peer)) == 446
        client.refresh((registry.LIFETIME, 0))
        assert there.far.aborted
        assert not stream.aborted, "it has gone"

    def test_its_end_there_frees_its_number_and_its_peer(self):
        there, here = two_worlds()
        client, _, number = self.begin(there)
        self.bind(there, here, number)
        there.world.sleep(31)
        assert not there.far.aborted, "it was claimed"
        there.far.on_end()
        assert client.raw(client.encode(Method.CONNECT, (registry.XOR_PEER_ADDRESS, PEER))) is None

    def test_nobody_else_gets_it_and_nobody_twice(self):
        there, here = two_worlds()
        _, stream, number = self.begin(there)
        assert self.bind(there, here, number, "bob", "pw2") == (441, None)
        assert self.bind(there, here, number) == (0, stream)
        assert self.bind(there, here, number) == (400, None)

    @pytest.mark.parametrize(("key", "code"), [(HELD, 0), (b"another key", 401)])
    def test_it_is_claimed_with_the_key_of_a_token_that_was_shown_there(self, key, code):
        """RFC 7635: the token comes with Allocate and Refresh, which came to the other worker."""
        there, here = two_worlds(THIRD_PARTY)
        there.world.opener.tcp = True
        holder = Holder(there.world, seal(), transport=Transport.TCP)
        holder.request(Method.ALLOCATE, (registry.REQUESTED_TRANSPORT, 6))
        holder.raw(holder.encode(Method.CONNECT, (registry.XOR_PEER_ADDRESS, PEER)))
        stream, relay = FakeStream(), holder.relay
        assert isinstance(relay, FakeTcpRelay)
        relay.dialled.pop()[1](stream, there.world.monotonic)
        number = parse_untrusted(holder.received.pop()).get(registry.CONNECTION_ID)
        data = Holder(here, None, key, Transport.TCP)
        found = self.claim(there, here, data, (registry.CONNECTION_ID, number))
        assert found == (code, None if code else stream)

    def test_it_waits_half_a_minute(self):
        there, here = two_worlds()
        _, stream, number = self.begin(there)
        client = here.client(transport=Transport.TCP)
        client.nonce = client.once(Method.REFRESH).get(registry.NONCE)
        data = memoryview(client.encode(Method.CONNECTION_BIND, number))
        reply = here.engine.handle(data, client.five_tuple, client.send, here.now)
        arrived: list[bytes] = []
        reply.waiting.tell(lambda data, stream: arrived.append(data))
        there.world.sleep(31)
        there.answer()
        assert stream.aborted
        assert code_of(parse_untrusted(arrived[0])) == 400

    def move(self, there, here, number, transport):
        """Show the allocation's ticket here; gives what the client is told, and what it said."""
        client = here.client(transport=transport)
        client.nonce = client.once(Method.REFRESH).get(registry.NONCE)
        data = client.encode(Method.REFRESH, (registry.MOBILITY_TICKET, number))
        reply = here.engine.handle(memoryview(data), client.five_tuple, client.send, here.now)
        arrived: list[tuple[bytes, object]] = []
        if reply is not None:
            reply.waiting.tell(lambda *what: arrived.append(what))
        there.answer()
        return client, data, arrived

    def ticket(self, there):
        """An allocation for TCP there, with a ticket."""
        there.world.opener.tcp = True
        client = there.world.client(transport=Transport.TCP)
        reply = client.request(Method.ALLOCATE, (registry.REQUESTED_TRANSPORT, 6), ASKED)
        return client, reply.get(registry.MOBILITY_TICKET)

    def test_their_allocation_stays_and_the_client_that_moves_goes_to_it(self):
        """With the message that shows the ticket: whoever has the allocation answers that."""
        there, here = two_worlds()
        before, ticket = self.ticket(there)
        client, message, arrived = self.move(there, here, ticket, Transport.TCP)
        assert arrived == [(b"", there.far)]
        assert there.followed == [(client.five_tuple, message)]
        assert there.world.engine.table.get(before.five_tuple) is not None
        assert len(here.engine.table) == 0
        here.engine.expire(here.monotonic)
        again = here.engine.handle(memoryview(message), client.five_tuple, client.send, here.now)
        assert again.waiting is not None, "there is no reply here to give again"

    def test_over_packets_it_cannot_go_there(self):
        there, here = two_worlds()
        _, ticket = self.ticket(there)
        client, _, _ = self.move(there, here, ticket, Transport.UDP)
        assert code_of(parse_untrusted(client.received.pop())) == 400
        assert there.followed == []

    def test_over_packets_it_is_not_even_asked_for(self):
        there, here = two_worlds()
        _, _, number = self.begin(there)
        assert code_of(at(here).request(Method.CONNECTION_BIND, number)) == 400
        assert there.waiting == []
