"""A client that comes to another worker than the one that holds what is its own."""

import pytest

from tests.turn.allocation.two_workers import ASKED, ask, at, two_worlds
from tests.turn.world import PEER, code_of
from turn.allocation.connections import Claimant
from turn.allocation.elsewhere import NOWHERE, Shown
from turn.allocation.model import Owner
from turn.codec import registry
from turn.codec.errors import StunError
from turn.codec.message import parse_untrusted
from turn.codec.registry import Method
from turn.routes import Transport
from turn.stats import DropReason

EVEN_PORT = (registry.EVEN_PORT, True)


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
