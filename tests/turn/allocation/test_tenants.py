"""Tenants: what is one's is nobody else's, and all that its users have together is bounded."""

import pytest

from tests.turn.allocation.two_workers import at, two_worlds
from tests.turn.world import PEER, Client, FakeRelay, FakeStream, World, code_of
from turn.allocation.elsewhere import Shown
from turn.allocation.model import Limits, Owner, TenantLimits
from turn.allocation.options import Options
from turn.allocation.record import decode, encode, record_of
from turn.allocation.restore import Kept
from turn.codec import registry
from turn.codec.errors import StunError
from turn.codec.message import parse_untrusted
from turn.codec.registry import Method
from turn.codec.values import Family
from turn.routes import Transport

LIMITS = Limits(
    allocations_per_user=3,
    tenants={"shop": TenantLimits(4, 2), "clinic": TenantLimits(), "small": TenantLimits(2)},
)
MOBILE = Options(mobility=True)
ASKED = (registry.MOBILITY_TICKET, b"")
EVEN = (registry.EVEN_PORT, True)
TCP = (registry.REQUESTED_TRANSPORT, 6)


@pytest.fixture
def world():
    made = World(LIMITS, options=MOBILE)
    made.opener.tcp = True
    return made


def come(world: World, name="alice", tenant="shop", **kwargs):
    """A user of a tenant."""
    return world.client(*world.signed(name, tenant), **kwargs)


def owner_of(world: World, client: Client) -> Owner:
    found = world.engine.table.get(client.five_tuple)
    assert found is not None
    return found.owner


class TestQuotas:
    def fill(self, world, *wanted, **kwargs):
        """Allocate until it is refused; how many there were, and by which quota."""
        codes: list[int] = []
        while not codes or not codes[-1]:
            codes.append(code_of(come(world, *wanted, **kwargs).allocate()))
        (quota,) = world.stats.quota_rejections
        world.stats.quota_rejections.clear()
        assert codes[-1] == 486
        return len(codes) - 1, quota

    def test_a_user_has_what_its_tenant_gives_or_else_what_the_relay_does(self, world):
        assert self.fill(world, "alice", "shop") == (2, "user")
        assert self.fill(world, "alice", "clinic") == (3, "user")
        assert self.fill(world, "alice", "") == (3, "user")

    def test_all_users_of_a_tenant_together_have_what_it_may(self, world):
        come(world, "alice").allocate()
        come(world, "alice").allocate()
        come(world, "bob").allocate()
        assert self.fill(world, "eve", "shop") == (1, "tenant")
        assert code_of(come(world, "alice", "clinic").allocate()) == 0
        assert code_of(world.client().allocate()) == 0
        static = world.client("shop/carol", "pw3")
        assert code_of(static.allocate()) == 486

    def test_an_end_gives_it_back_and_so_does_a_reserved_port(self, world):
        client = come(world, "alice", "small")
        assert code_of(client.allocate(EVEN)) == 0
        assert code_of(come(world, "bob", "small").allocate()) == 486
        world.sleep(31)
        assert code_of(come(world, "bob", "small").allocate()) == 0
        client.refresh((registry.LIFETIME, 0))
        assert code_of(come(world, "bob", "small").allocate()) == 0
        world.engine.close_all()
        assert world.engine.table.books._counts == {}

    def test_two_families_count_twice_as_they_do_for_a_user(self, world):
        both = (registry.ADDITIONAL_ADDRESS_FAMILY, Family.IPV6)
        client = come(world, "alice", "small")
        assert code_of(client.allocate(both)) == 0
        assert code_of(come(world, "bob", "small").allocate()) == 486
        client.refresh((registry.LIFETIME, 0), (registry.REQUESTED_ADDRESS_FAMILY, Family.IPV6))
        assert code_of(come(world, "bob", "small").allocate()) == 0

    def test_a_reload_brings_other_limits(self, world):
        for _ in range(2):
            come(world, "alice", "small").allocate()
        limits = LIMITS._replace(tenants={**LIMITS.tenants, "small": TenantLimits(3)})
        world.engine.reload(world.authenticator(limits.tenants), limits, MOBILE)
        assert len(world.engine.table) == 2
        assert self.fill(world, "bob", "small") == (1, "tenant")


class TestNobodyTakesHold:
    """Of what is another's, whatever it is called."""

    def others(self, world, name="alice", **kwargs):
        """Everybody who is called so by somebody else."""
        return [
            come(world, name, "clinic", **kwargs),
            come(world, name, "", **kwargs),
            world.client(name, "pw", **kwargs),
        ]

    @pytest.mark.parametrize("by", ["", "clinic"])
    def test_no_other_secret_makes_a_tenants_user(self, world, by):
        client = world.client(*world.signed("alice", "shop", by=by))
        assert code_of(client.allocate()) == 401
        assert not world.engine.table

    def test_of_an_allocation(self, world):
        mine = come(world)
        assert code_of(mine.allocate()) == 0
        for other in self.others(world):
            other.five_tuple = mine.five_tuple
            assert code_of(other.refresh()) == 441
            assert code_of(other.permit(PEER)) == 441
            assert code_of(other.bind(0x4000, PEER)) == 441
        assert code_of(mine.refresh()) == 0

    def test_of_an_allocation_by_its_ticket(self, world):
        ticket = come(world).allocate(ASKED).get(registry.MOBILITY_TICKET)
        for other in self.others(world, host="192.0.2.99", transport=Transport.TLS):
            assert code_of(other.refresh((registry.MOBILITY_TICKET, ticket))) == 441
        mine = come(world, host="192.0.2.99")
        assert code_of(mine.refresh((registry.MOBILITY_TICKET, ticket))) == 0

    def test_of_an_allocation_of_another_worker_that_has_other_settings_yet(self, world):
        """The same text may mean another user there, for the moment that a reload takes."""
        mine = come(world)
        ticket = mine.allocate(ASKED).get(registry.MOBILITY_TICKET)
        as_others = owner_of(world, mine)._replace(tenant="")
        as_bobs = Owner(world.signed("bob", "shop")[0], "shop/bob")
        shown = Shown(ticket, as_others, "192.0.2.99", Transport.UDP)
        with pytest.raises(StunError) as refused:
            world.engine.hand_over(shown, world.monotonic)
        assert refused.value.code == 441
        token = come(world, "bob").allocate(EVEN).get(registry.RESERVATION_TOKEN)
        with pytest.raises(StunError):
            world.engine.table.claim(token, as_bobs)
        assert world.engine.table.claim(token, as_bobs._replace(tenant="shop"))

    def test_of_a_reserved_port(self, world):
        token = come(world).allocate(EVEN).get(registry.RESERVATION_TOKEN)
        for other in self.others(world):
            assert code_of(other.allocate((registry.RESERVATION_TOKEN, token))) == 508
        assert code_of(come(world).allocate((registry.RESERVATION_TOKEN, token))) == 0

    def test_of_a_connection_with_a_peer(self, world):
        mine = come(world, transport=Transport.TCP)
        assert code_of(mine.request(Method.ALLOCATE, TCP)) == 0
        mine.raw(mine.encode(Method.CONNECT, (registry.XOR_PEER_ADDRESS, PEER)))
        (_, done) = mine.relay.dialled.pop()
        stream = FakeStream()
        done(stream, world.monotonic)
        number = parse_untrusted(mine.received.pop()).get(registry.CONNECTION_ID)
        assert stream.tenant == "shop"
        for other in self.others(world, transport=Transport.TCP):
            reply = other.request(Method.CONNECTION_BIND, (registry.CONNECTION_ID, number))
            assert code_of(reply) == 441
        claims = come(world, transport=Transport.TCP)
        reply = claims.request(Method.CONNECTION_BIND, (registry.CONNECTION_ID, number))
        assert code_of(reply) == 0

    def test_by_being_revoked(self, world):
        clients = [come(world), *self.others(world)]
        assert [code_of(client.allocate()) for client in clients] == [0] * 4
        assert world.engine.revoke("shop/alice", world.wall + 60) == 1
        assert [code_of(client.refresh()) for client in clients] == [437, 0, 0, 0]
        assert code_of(come(world).allocate()) == 403
        assert code_of(come(world, "alice", "clinic").allocate()) == 0


class TestReload:
    """Whose a name is may change with the settings; what was begun by it then ends."""

    def reload(self, world, *names):
        limits = LIMITS._replace(tenants={name: TenantLimits() for name in names})
        world.engine.reload(world.authenticator(names), limits, MOBILE)

    def test_what_a_tenant_has_ends_with_it(self, world):
        clients = [come(world), world.client("shop/carol", "pw3")]
        others = [come(world, "alice", "clinic"), come(world, "alice", ""), world.client()]
        for client in clients + others:
            client.allocate()
        token = come(world, "eve").allocate(EVEN).get(registry.RESERVATION_TOKEN)
        assert token
        assert len(world.opener.free) == 1
        self.reload(world, "clinic", "new")
        assert [code_of(client.refresh()) for client in others] == [0, 0, 0]
        assert {each.owner.tenant for each in world.engine.table} == {"clinic", ""}
        assert code_of(clients[0].refresh()) == 401
        assert world.stats.allocations_closed == {"revoked": 3}
        assert not any(kind == "tenant" and name == "shop"
                       for kind, name in world.engine.table.books._counts)  # fmt: skip
        assert len(world.opener.free) == 5

    def test_what_was_begun_by_a_name_that_is_a_tenants_now_ends(self, world):
        before = world.client(*world.signed("new/alice"))
        ticket = before.allocate(ASKED).get(registry.MOBILITY_TICKET)
        assert owner_of(world, before) == Owner(before.username, "new/alice", "")
        self.reload(world, "shop", "clinic", "small", "new")
        assert not world.engine.table
        thief = world.client(before.username, world.signed("alice", "new")[1])
        assert thief.username == world.signed("alice", "new")[0], "the very same text"
        assert code_of(thief.refresh((registry.MOBILITY_TICKET, ticket))) == 400

    def test_a_secret_that_changes_ends_nothing(self, world):
        client = come(world)
        client.allocate()
        self.reload(world, "shop", "clinic")
        assert code_of(client.refresh()) == 0

    @pytest.mark.parametrize("what", ["allocation", "port"])
    def test_what_is_under_way_between_workers_ends_too(self, what):
        there, here = two_worlds(tenants=LIMITS.tenants)
        user = here.signed("alice", "shop")
        given = there.world.client(*user).allocate(ASKED, EVEN)
        method, shown = Method.REFRESH, registry.MOBILITY_TICKET
        if what == "port":
            method, shown = Method.ALLOCATE, registry.RESERVATION_TOKEN
        client = at(here, "192.0.2.99", *user)
        transport = ((registry.REQUESTED_TRANSPORT, 17),) if what == "port" else ()
        wanted = client.encode(method, *transport, (shown, given.get(shown)))
        assert client.raw(wanted) is None
        self.reload(here, "clinic")
        there.answer()
        assert code_of(parse_untrusted(client.received.pop())) == 403
        assert not here.engine.table
        self.reload(there.world, "clinic")
        assert all(relay.closed for relay in there.world.opener.opened)


def test_a_restart_keeps_the_tenant(world):
    client = come(world)
    client.allocate()
    allocation = world.engine.table.get(client.five_tuple)
    record = decode(encode(record_of(allocation)))
    for tenants, lives in ((LIMITS.tenants, True), ({}, False)):
        after = World(LIMITS._replace(tenants=tenants))
        kept = Kept(record, [FakeRelay(each.address, after) for each in record.relayed], print)
        after.engine.restore([kept], after.monotonic)
        found = after.engine.table.get(client.five_tuple)
        assert (found is not None) == lives
        assert not lives or found.owner == Owner(client.username, "shop/alice", "shop")
        assert after.engine.table.books.has(("tenant", "shop")) == lives


def test_a_record_of_before_there_were_tenants_and_kept_keys_is_read():
    world = World()
    client = world.client()
    client.allocate()
    (allocation,) = world.engine.table
    data = encode(record_of(allocation))
    since = b',"",null]'
    assert data.endswith(since)
    before = decode(data[: -len(since)] + b"]")
    assert (before.tenant, before.keys) == ("", None)


def test_an_operator_is_told_whose_user_it_is(world):
    told = []
    world.engine._tell = world.engine._allocator._tell = lambda kind, facts: told.append(
        (kind, facts())
    )
    client = come(world)
    client.allocate()
    client.allocate()
    world.client().allocate()
    facts = [(kind, each["user"], each.get("tenant")) for kind, each in told]
    assert facts == [
        ("allocation_created", "shop/alice", "shop"),
        ("request_refused", "shop/alice", "shop"),
        ("allocation_created", "alice", None),
    ]
