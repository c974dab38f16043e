"""A client that comes to another worker than the one that holds what is its own."""

from collections.abc import Callable, Mapping

import pytest

from tests.turn.auth.test_third_party import HELD, THIRD_PARTY, Holder, seal
from tests.turn.world import PEER, FakeStream, FakeTcpRelay, World, code_of
from turn.allocation.books import OwnBooks
from turn.allocation.connections import Claimant
from turn.allocation.elsewhere import NOWHERE, Moved, Shown
from turn.allocation.model import Limits, Owner
from turn.allocation.options import Options
from turn.allocation.record import record_of
from turn.bandwidth import Key
from turn.codec import registry
from turn.codec.errors import StunError
from turn.codec.message import parse_untrusted
from turn.codec.registry import Method
from turn.routes import FiveTuple, Transport
from turn.stats import DropReason

EVEN_PORT = (registry.EVEN_PORT, True)
ASKED = (registry.MOBILITY_TICKET, b"")
MOBILE = Options(mobility=True)


class There:
    """The other worker; it answers when a test says so."""

    def __init__(self):
        self.world: World
        self.waiting: list[Callable[[], None]] = []
        self.held: list[Mapping[Key, int]] = []
        self.far = FakeStream()
        self.followed: list[tuple[FiveTuple, bytes]] = []

    def holds(self, token):
        return token in self.world.engine.table._reservations or token == b"none there"[:8]

    def fetch(self, token, owner, done):
        def answer():
            try:
                done(self.world.engine.table.claim(token, owner))
            except StunError:
                done(None)

        self.waiting.append(answer)

    def holds_ticket(self, ticket):
        return len(ticket) > 2

    def fetch_allocation(self, shown, done):
        def answer():
            try:
                released = self.world.engine.hand_over(shown, self.world.monotonic)
            except StunError as error:
                done(error.code)
                return
            if released is None:
                done(None)
                return
            allocation, held = released
            self.held.append(held)
            relays = [relayed.relay for relayed in allocation.relayed.values()]
            done(Moved(record_of(allocation), relays))

        self.waiting.append(answer)

    def follow(self, ticket, client, message, done):
        assert self.holds_ticket(ticket)
        self.followed.append((client, message))
        self.waiting.append(lambda: done(self.far))

    def holds_connection(self, number):
        return number in self.world.engine._allocator.peers.connections._by_number

    def fetch_grant(self, number, host, done):
        self.waiting.append(lambda: done(self.world.engine.grant_of(number)))

    def borrow_connection(self, number, claimant, done):
        def answer():
            try:
                done(self.world.engine.lend(number, claimant, self.far)[1])
            except StunError as error:
                done(error.code)

        self.waiting.append(answer)

    def answer(self):
        """Answer all who wait, and who does so because of that."""
        while self.waiting:
            self.waiting.pop(0)()


def two_worlds(third_party=None, **limits):
    """Two workers with the same books; the second one asks the first."""
    there, books = There(), OwnBooks()
    given, both = Limits(**limits), {"options": MOBILE, "third_party": third_party}
    there.world = World(given, books=books, **both)
    return there, World(given, books=books, elsewhere=there, **both)


def at(world, host="192.0.2.7", username="alice", password="pw"):
    """A client with a nonce."""
    client = world.client(username, password, host=host)
    challenge = client.once(Method.REFRESH)
    client.nonce = challenge.get(registry.NONCE)
    return client


def ask(there, client, method, *attributes):
    """Ask for something that the other worker has; gives the reply, which comes later."""
    assert client.raw(client.encode(method, *attributes)) is None
    there.answer()
    return parse_untrusted(client.received.pop())


class TestReservedPorts:
    def test_it_is_had_here_and_the_quota_counts_it_once(self):
        there, here = two_worlds(allocations_per_user=2)
        reply = there.world.client().allocate(EVEN_PORT)
        token = (registry.RESERVATION_TOKEN, reply.get(registry.RESERVATION_TOKEN))
        transport = (registry.REQUESTED_TRANSPORT, 17)
        got = ask(there, at(here), Method.ALLOCATE, transport, token)
        even = reply.get(registry.XOR_RELAYED_ADDRESS)
        assert got.get(registry.XOR_RELAYED_ADDRESS) == even._replace(port=even.port + 1)
        assert code_of(here.client().allocate()) == 486

    def test_a_retransmission_is_answered_alike(self):
        there, here = two_worlds()
        reply = there.world.client().allocate(EVEN_PORT)
        token = (registry.RESERVATION_TOKEN, reply.get(registry.RESERVATION_TOKEN))
        client = at(here)
        data = client.encode(Method.ALLOCATE, (registry.REQUESTED_TRANSPORT, 17), token)
        assert client.raw(data) is None
        assert client.raw(data) is None
        there.answer()
        first, second = client.received
        assert first == second
        assert client.raw(data) is not None, "and once more, from what was kept"
        assert len(here.engine.table) == 1

    def test_one_that_is_not_there_and_one_that_comes_too_late(self):
        there, here = two_worlds()
        transport = (registry.REQUESTED_TRANSPORT, 17)
        invented = (registry.RESERVATION_TOKEN, b"none there"[:8])
        assert code_of(ask(there, at(here), Method.ALLOCATE, transport, invented)) == 508
        reply = there.world.client().allocate(EVEN_PORT)
        token = (registry.RESERVATION_TOKEN, reply.get(registry.RESERVATION_TOKEN))
        client = at(here)
        assert client.raw(client.encode(Method.ALLOCATE, transport, token)) is None
        assert code_of(client.allocate()) == 0
        there.answer()
        assert code_of(parse_untrusted(client.received.pop())) == 437
        assert there.world.opener.opened[-1].closed

    def test_who_is_revoked_while_it_is_under_way_does_not_get_it(self):
        there, here = two_worlds()
        reply = there.world.client().allocate(EVEN_PORT)
        token = (registry.RESERVATION_TOKEN, reply.get(registry.RESERVATION_TOKEN))
        client = at(here)
        transport = (registry.REQUESTED_TRANSPORT, 17)
        assert client.raw(client.encode(Method.ALLOCATE, transport, token)) is None
        here.engine.revoke("alice", here.wall + 60)
        there.answer()
        assert code_of(parse_untrusted(client.received.pop())) == 403
        assert len(here.engine.table) == 0
        assert there.world.opener.opened[-1].closed

    def test_what_does_not_go_with_a_token_is_refused_at_once(self):
        there, here = two_worlds()
        reply = there.world.client().allocate(EVEN_PORT)
        token = (registry.RESERVATION_TOKEN, reply.get(registry.RESERVATION_TOKEN))
        assert code_of(here.client().allocate(token, EVEN_PORT)) == 400


class TestMovedAllocations:
    def begin(self, there, *attributes, host="192.0.2.7"):
        """An allocation at the other worker, and its ticket."""
        client = there.world.client(host=host)
        ticket = client.allocate(ASKED, *attributes).get(registry.MOBILITY_TICKET)
        return client, (registry.MOBILITY_TICKET, ticket)

    def test_it_goes_on_here_with_permissions_and_channels(self):
        there, here = two_worlds()
        before, ticket = self.begin(there)
        assert code_of(before.bind(0x4001, PEER)) == 0
        relay, client = before.relay, at(here, "192.0.2.99")
        reply = ask(there, client, Method.REFRESH, ticket)
        assert code_of(reply) == 0
        assert reply.get(registry.MOBILITY_TICKET) is not None
        assert client.relay is relay
        client.channel_data(0x4001, b"here I am")
        assert relay.sent == [(b"here I am", PEER)]
        assert code_of(before.refresh()) == 437
        assert there.world.stats.allocations_closed == {"moved": 1}
        before.channel_data(0x4001, b"and there I am not")
        assert there.world.stats.drops[DropReason.NO_ALLOCATION] == 1

    def test_its_new_address_is_counted_before_it_is_there(self):
        there, here = two_worlds(allocations_per_address=1)
        _, ticket = self.begin(there)
        new = "192.0.2.99"
        reply = ask(there, at(here, new), Method.REFRESH, ticket)
        assert code_of(reply) == 0
        # The one who let it go has counted it too, and gives that back a moment later.
        assert there.held == [{("address", new): 1}]
        here.engine.table.books.give(there.held[0])
        assert code_of(here.client(host=new).allocate()) == 486
        assert code_of(here.client(host="192.0.2.7").allocate()) == 0
        _, other = self.begin(there, host="192.0.2.8")
        assert code_of(ask(there, at(here, new), Method.REFRESH, other)) in {437, 486}

    @pytest.mark.parametrize(
        ("who", "seconds", "code"),
        [(("alice", "pw"), 0, 0), (("bob", "pw2"), 0, 441), (("alice", "pw"), 601, 437)],
    )
    def test_whose_it_is_and_until_when(self, who, seconds, code):
        there, here = two_worlds()
        _, ticket = self.begin(there)
        there.world.monotonic += seconds
        assert code_of(ask(there, at(here, "192.0.2.99", *who), Method.REFRESH, ticket)) == code

    def test_a_ticket_of_nobodys_and_a_client_that_has_one_here(self):
        there, here = two_worlds()
        _, ticket = self.begin(there)
        invented = (registry.MOBILITY_TICKET, b"00112233")
        assert code_of(ask(there, at(here), Method.REFRESH, invented)) == 400
        client = here.client()
        client.allocate()
        assert code_of(client.refresh(ticket)) == 437

    @pytest.mark.parametrize("meanwhile", ["another ticket", "an allocation"])
    def test_a_client_that_does_not_wait_has_one_allocation_and_no_port_is_lost(self, meanwhile):
        there, here = two_worlds()
        (_, one), (_, other) = self.begin(there), self.begin(there, host="192.0.2.8")
        client = at(here, "192.0.2.99")
        assert client.raw(client.encode(Method.REFRESH, one)) is None
        if meanwhile == "another ticket":
            assert client.raw(client.encode(Method.REFRESH, other)) is None
        else:
            assert code_of(client.allocate()) == 0
        there.answer()
        codes = [code_of(parse_untrusted(reply)) for reply in client.received]
        assert codes == ([0, 437] if meanwhile == "another ticket" else [437])
        assert len(here.engine.table) == 1
        here.monotonic += 601
        here.engine.expire(here.monotonic)
        there.world.engine.close_all()
        assert all(relay.closed for relay in there.world.opener.opened + here.opener.opened)

    def test_who_is_revoked_while_it_is_under_way_does_not_get_it(self):
        there, here = two_worlds()
        _, ticket = self.begin(there)
        client = at(here, "192.0.2.99")
        assert client.raw(client.encode(Method.REFRESH, ticket)) is None
        until = here.wall + 60
        here.engine.revoke("alice", until)
        there.answer()
        there.world.engine.revoke("alice", until)
        assert code_of(parse_untrusted(client.received.pop())) == 403
        assert len(here.engine.table) == len(there.world.engine.table) == 0
        assert all(relay.closed for relay in there.world.opener.opened)

    def test_the_family_that_it_does_not_have(self):
        there, here = two_worlds()
        _, ticket = self.begin(there)
        wanted = (registry.REQUESTED_ADDRESS_FAMILY, 2)
        assert code_of(ask(there, at(here), Method.REFRESH, ticket, wanted)) == 443

    def test_released_where_it_arrives(self):
        there, here = two_worlds()
        _, ticket = self.begin(there)
        reply = ask(there, at(here), Method.REFRESH, ticket, (registry.LIFETIME, 0))
        assert reply.get(registry.LIFETIME) == 0
        assert len(here.engine.table) == len(there.world.engine.table) == 0


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


def test_where_there_are_no_others_nothing_is_to_be_had():
    said: list[object] = []
    assert not NOWHERE.holds(b"12345678")
    assert not NOWHERE.holds_ticket(b"12345678")
    NOWHERE.fetch(b"12345678", Owner("alice", "alice"), said.append)
    shown = Shown(b"12345678", Owner("alice", "alice"), "192.0.2.7", Transport.TLS)
    NOWHERE.fetch_allocation(shown, said.append)
    assert said == [None, 400]
    assert not NOWHERE.holds_connection(1)
    with pytest.raises(StunError):
        NOWHERE.borrow_connection(1, Claimant(Owner("alice", "alice"), "192.0.2.7"), said.append)
