"""The wiring of one relay: who decides, who carries, who listens, and what each is given.

Nothing is opened here; ``turn/server`` gives the whole its life.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from config.turn import TurnSettings
from turn import assemble
from turn.allocation.allocator import Parts
from turn.allocation.engine import Engine
from turn.allocation.policy import PeerPolicy
from turn.allocation.record import NO_JOURNAL
from turn.allocation.table import AllocationTable
from turn.back_end import BackEnd
from turn.codec.values import Address, Family
from turn.common import Common
from turn.relay.forward import Forwarder
from turn.relay.poll import Poller
from turn.relay.ports import RelayPorts, random_below
from turn.routes import FiveTuple, Route, RouteTable
from turn.state import State
from turn.stats import Stats
from turn.telling import Tell
from turn.transport.limits import ConnectionLimit, ReplyLimit
from turn.transport.listeners import Listeners
from turn.transport.proxies import Proxies
from turn.transport.stream import StreamShared
from turn.transport.udp import Shared
from turn.usage import logged, timed


@dataclass(frozen=True, slots=True)
class Wired:
    """The parts of a relay, each of which knows those that it needs."""

    addresses: list[str]
    """The machine's, as they were."""
    stats: Stats
    routes: RouteTable
    poller: Poller
    policy: PeerPolicy
    ports: RelayPorts
    state: State | None
    engine: Engine
    listeners: Listeners
    back_end: BackEnd


def wire(
    settings: TurnSettings, common: Common, reserved_ports: Iterable[int], tell: Tell
) -> Wired:
    """Make a relay's parts, of its settings and of what it has in common with others.

    :param reserved_ports: ports of our other services on this machine; never relayed to.
    :param tell: hears of what happens.
    """
    addresses, stats, poller = common.addresses(), Stats(), Poller()
    routes, limits = RouteTable(stats), assemble.limits(settings)
    table = AllocationTable(limits, stats, common.books, common.numbers)
    relays = assemble.relay_addresses(settings, addresses)
    external = assemble.external_pairs(settings, relays)
    policy = PeerPolicy(
        assemble.policy_rules(settings, reserved_ports, external),
        addresses,
        table.is_live_relay,
        table.is_live_tcp_relay,
    )

    def route_to(client: FiveTuple, peer: Address, now: float) -> Route | None:
        # The engine is made after the forwarder, which its relay sockets need.
        return engine.route_to(client, peer, now)

    forwarder = Forwarder(stats, route_to)
    ports = _ports(settings, common, relays, external, (poller, forwarder))
    state = assemble.state(settings)
    questions = ReplyLimit(settings.max_unproved_replies_per_second, common.replies)
    back_end = BackEnd(settings, questions, stats)
    parts = Parts(
        policy, table, routes, ports, limits, stats, common.random_bytes,
        assemble.options(settings, external), common.elsewhere,
        state.journal if state else NO_JOURNAL, timed(logged(tell)), back_end,
    )  # fmt: skip
    engine = Engine(assemble.authenticator(settings, common.key, back_end.users), parts)
    shared = _shared(settings, common, (engine, forwarder, routes, stats), poller)
    listeners = Listeners(assemble.udp_endpoints(settings), *shared, common.bind)
    return Wired(
        addresses, stats, routes, poller, policy, ports, state, engine, listeners, back_end
    )


def _ports(
    settings: TurnSettings,
    common: Common,
    relays: dict[Family, list[str]],
    external: Sequence[tuple[str, str]],
    carry: tuple[Poller, Forwarder],
) -> RelayPorts:
    public_of = {local: public for public, local in external}
    ports = RelayPorts(settings.relay_ports, relays, public_of, carry, random_below)
    ports.in_use_at = common.books.ports_in_use
    ports.tcp = settings.tcp_allocations
    ports.shelf = common.shelf
    return ports


def _shared(
    settings: TurnSettings,
    common: Common,
    decides: tuple[Engine, Forwarder, RouteTable, Stats],
    poller: Poller,
) -> tuple[Shared, StreamShared]:
    """What all listeners work with: those of datagrams, and those of connections."""
    proxies = Proxies(settings.proxy_protocol_from)
    datagrams = Shared(
        *decides,
        poller,
        replies=ReplyLimit(settings.max_unproved_replies_per_second, common.replies),
        bindings=ReplyLimit(settings.max_bindings_per_second, common.bindings),
        senders={},
        proxies=proxies,
    )
    strangers = ConnectionLimit(
        settings.max_unauthenticated_per_address, settings.first_request_timeout, common.strangers
    )
    handshakes = ReplyLimit(settings.max_tls_handshakes_per_second, common.handshakes)
    return datagrams, StreamShared(*decides, strangers, proxies, handshakes)
