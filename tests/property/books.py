"""What holds of an engine at any moment, looked up in its own tables."""

from collections import Counter
from collections.abc import Callable

from tests.turn.world import World
from turn.allocation.model import Limits, Owner, TenantLimits
from turn.allocation.table import place_of
from turn.bandwidth import ALL, Budgets
from turn.codec.values import family_of
from turn.relay.batch import address_of
from turn.routes import FiveTuple


class Stream:
    """A TCP connection with a peer, as the engine sees it (``PeerStream``)."""

    def __init__(self) -> None:
        self.on_end: Callable[[], None] = lambda: None
        self.sending: Budgets | None = None
        self.receiving: Budgets | None = None
        self.tenant = ""

    def abort(self) -> None:
        """It is over."""


def owners_share(owner: Owner) -> Counter[tuple[str, str]]:
    """What a relayed address counts for; whose user it is, the user's name says."""
    share = Counter([("user", owner.user)])
    tenant, slash, _ = owner.user.partition("/")
    assert owner.tenant == (tenant if slash else "")
    if slash:
        share["tenant", tenant] += 1
    return share


def check_books(world: World, limits: Limits) -> None:
    """Quotas are what is alive; each port is free, or has one owner."""
    table = world.engine.table
    counts: Counter[tuple[str, str]] = Counter()
    held = [reservation.relay for reservation in table._reservations.values()]
    for allocation in table:
        counts[ALL] += 1
        for relayed in allocation.relayed.values():
            held.append(relayed.relay)
            counts += owners_share(allocation.owner)
            counts[place_of(allocation.client)] += 1
    for reservation in table._reservations.values():
        counts += owners_share(reservation.owner)
    assert table.books._counts == counts  # type: ignore[attr-defined]  # OwnBooks
    assert not table._aside
    for (quota, name), count in counts.items():
        tenant = limits.tenants.get(name.partition("/")[0], TenantLimits())
        most = {
            "user": tenant.allocations_per_user or limits.allocations_per_user,
            "tenant": tenant.allocations,
            "address": limits.allocations_per_address,
            "total": limits.allocations,
        }[quota]
        assert count <= most or not most, quota

    is_open = [relay for relay in world.opener.opened if not relay.closed]
    assert sorted(map(id, held)) == sorted(map(id, is_open))
    ports = [relay.address.port for relay in is_open]
    assert len(ports) == len(set(ports))
    assert sorted([*ports, *world.opener.free]) == list(range(50000, 50008))
    live = [*table._by_relayed.values(), *table._by_tcp_relayed.values()]
    assert Counter(map(id, live)) == Counter(
        id(allocation) for allocation in table for _ in allocation.relayed
    )


def check_routes(world: World) -> None:
    """A route stands on a channel or a permission, and lives no longer than that."""
    table = world.engine.table
    rooms = {id(a.routes): a for a in table}
    for (transport, server), clients in world.routes._listeners.items():
        for client, room in clients.items():
            place = FiveTuple(transport, address_of(client), server)
            assert place in {rooms[id(room)].client, room.before}
    seen = set()
    for allocation in table:
        assert len(allocation.permissions) <= 3
        assert len(allocation.channels) <= 3
        for route in {*allocation.routes.peers.values(), *allocation.routes.channels.values()}:
            seen.add(id(route))
            relayed = allocation.relayed[family_of(route.peer)]
            assert route.client == allocation.client
            assert route.relayed == relayed.relay.address
            assert not relayed.relay.closed  # type: ignore[attr-defined]  # a FakeRelay
            assert route.expires <= relayed.expires
            assert world.policy.allows(route.peer) or route.expires <= world.monotonic
            if route.channel:
                channel = allocation.channels[route.channel]
                assert channel.peer == route.peer
                assert route.expires <= channel.expires
            else:
                assert route.expires <= allocation.permissions[route.peer.host]
    assert seen == {id(route) for route in world.routes.all()}


def check_expiries(world: World) -> None:
    """The engine has just looked at the clock: nothing is there whose time is over."""
    now, engine = world.monotonic, world.engine
    for allocation in engine.table:
        assert allocation.expires > now
        assert all(relayed.expires > now for relayed in allocation.relayed.values())
        assert all(expires > now for expires in allocation.permissions.values())
        assert all(channel.expires > now for channel in allocation.channels.values())
        assert all(route.expires > now for route in allocation.routes.peers.values())
        assert now < allocation.due <= allocation.next_due()
    assert all(one.expires > now for one in engine.table._reservations.values())
    assert all(one.expires > now for one in engine._allocator.peers.connections._by_number.values())
    assert all(expires > now for expires, *_ in engine._replies._replies.values())
