"""The engine under any sequence of requests, packets and time: its books balance after each step.

What may pass is known from ``told`` too, and held against what does.
"""

import os
from ipaddress import ip_network
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from tests.property.books import Stream, check_books, check_expiries, check_routes
from tests.property.told import Told
from tests.turn.world import Client, FakeTcpRelay, World, code_of, secret_of
from turn.allocation.allocator import LINGER
from turn.allocation.connections import CLAIM_TIMEOUT
from turn.allocation.model import Limits, TenantLimits
from turn.allocation.options import Options
from turn.allocation.policy import PolicyRules
from turn.auth.ephemeral import mint
from turn.codec import registry
from turn.codec.message import Message, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address, Family, family_of
from turn.routes import Transport

EXAMPLES = int(os.environ.get("ENGINE_EXAMPLES", "250"))
TENANTS = {"shop": TenantLimits(3, 2), "clinic": TenantLimits()}
LIMITS = [
    Limits(
        allocations_per_user=5, allocations=6, permissions=3, channels=3, tenants=TENANTS
    ),
    Limits(
        allocations_per_user=4, allocations_per_address=2, permissions=3, channels=3,
        tenants=TENANTS,
    ),
    Limits(
        allocations_per_user=0, allocations_per_address=0, permissions=3, channels=3,
        tenants=TENANTS,
    ),
]  # fmt: skip
PEERS = [
    Address("8.8.8.8", 1000),
    Address("8.8.8.8", 1001),
    Address("9.9.9.9", 1000),
    Address("1.1.1.1", 1000),
    Address("4.4.4.4", 1000),
    Address("2606:4700::8", 1000),
    Address("2606:4700::9", 1000),
    Address("10.0.0.1", 1000),  # refused
]
DENIED = PolicyRules(deny=(ip_network("8.8.8.8/32"),))
NUMBERS = [0x4000, 0x4001, 0x4002, 0x4003]
UDP, TCP = (registry.REQUESTED_TRANSPORT, 17), (registry.REQUESTED_TRANSPORT, 6)
FAMILY = registry.REQUESTED_ADDRESS_FAMILY
WISHES = [
    (UDP,),
    (UDP, (registry.EVEN_PORT, False)),
    (UDP, (registry.EVEN_PORT, True)),
    (UDP, (FAMILY, Family.IPV6)),
    (UDP, (FAMILY, Family.IPV6), (registry.EVEN_PORT, True)),
    (UDP, (registry.ADDITIONAL_ADDRESS_FAMILY, Family.IPV6)),
    (UDP, (registry.LIFETIME, 1800)),
    (TCP,),
]
OF_TENANTS = [("shop", "alice"), ("shop", "bob"), ("clinic", "alice")]
USERS = [
    ("alice", "pw"),
    ("bob", "pw2"),
    *(mint(secret_of(tenant), f"{tenant}/{name}", 2_000_000_000) for tenant, name in OF_TENANTS),
]
HOSTS = ["192.0.2.7", "192.0.2.8", "2001:db8::7"]


def lifetime_of(reply: Message) -> int:
    """The lifetime that a reply grants."""
    granted = reply.get(registry.LIFETIME)
    assert granted is not None
    return granted


class Machine(RuleBasedStateMachine):
    """Clients that do anything, in any order, at any time."""

    clients = Bundle("clients")
    tokens = Bundle("tokens")

    @initialize(limits=st.sampled_from(LIMITS))
    def begin(self, limits: Limits) -> None:
        self.limits = limits
        self.world = World(limits, options=Options(mobility=True))
        self.world.opener.tcp = True
        self.told: dict[Client, Told] = {}
        self.left: dict[Client, tuple[Told, float]] = {}
        """What is on its way from where a client was before it moved."""
        self.streams: list[Stream] = []
        self.claims: list[tuple[Client, int]] = []

    @property
    def now(self) -> float:
        return self.world.monotonic

    def forget(self, client: Client) -> None:
        self.told.pop(client, None)

    def of(self, client: Client) -> Told:
        """What the client has; nothing where its time is over."""
        told = self.told.get(client) or Told({}, is_tcp=False)
        for family in [f for f, ends in told.families.items() if ends <= self.now]:
            told.end(family)
        if not told.families:
            self.forget(client)
        return told

    def from_there(self, client: Client) -> Told:
        """What packets from the client's place may use."""
        told = self.of(client)
        if not told.families and client in self.left:
            told, _ = self.left[client]
        return Told({}, is_tcp=False) if told.is_lost else told

    # Requests ------------------------------------------------------------------------------

    @rule(
        target=clients,
        user=st.sampled_from(USERS),
        host=st.sampled_from(HOSTS),
        transport=st.sampled_from(list(Transport)),
    )
    def come(self, user: tuple[str, str], host: str, transport: Transport) -> Client:
        return self.world.client(*user, host=host, transport=transport)

    def took(self, client: Client, reply: Any, *, is_tcp: bool) -> None:
        ends = self.now + lifetime_of(reply)
        addresses = reply.get_all(registry.XOR_RELAYED_ADDRESS)
        self.left.pop(client, None)
        self.told[client] = Told({family_of(one): ends for one in addresses}, is_tcp)

    @rule(target=tokens, client=clients, wish=st.sampled_from(WISHES), moves=st.booleans())
    def allocate(self, client: Client, wish: tuple[Any, ...], moves: bool) -> Any:
        had = bool(self.of(client).families)
        extra = ((registry.MOBILITY_TICKET, b""),) if moves else ()
        reply = client.request(Method.ALLOCATE, *wish, *extra)
        code = code_of(reply)
        assert (code == 437) == had
        assert code in {0, 400, 420, 437, 486, 508}
        if code:
            return multiple()
        self.took(client, reply, is_tcp=wish == (TCP,))
        self.told[client].ticket = reply.get(registry.MOBILITY_TICKET) or b""
        token = reply.get(registry.RESERVATION_TOKEN)
        return (client.username, token) if token else multiple()

    @rule(client=clients, reserved=tokens)
    def claim_port(self, client: Client, reserved: tuple[str, bytes]) -> None:
        had = bool(self.of(client).families)
        reply = client.allocate((registry.RESERVATION_TOKEN, reserved[1]))
        assert code_of(reply) in ({437} if had else {0, 486, 508})
        if code_of(reply) == 0:
            assert client.username == reserved[0]
            self.took(client, reply, is_tcp=False)

    @rule(
        client=clients,
        lifetime=st.sampled_from([None, 0, 0, 700, 3600]),
        family=st.sampled_from([None, None, Family.IPV4, Family.IPV6]),
    )
    def refresh(self, client: Client, lifetime: int | None, family: Family | None) -> None:
        told = self.of(client)
        wanted = () if lifetime is None else ((registry.LIFETIME, lifetime),)
        reply = client.refresh(*wanted, *(((FAMILY, family),) if family else ()))
        if not told.families:
            assert code_of(reply) == 437
        elif code_of(reply):
            assert code_of(reply) == 443
            assert family not in told.families
        else:
            ends = self.now + lifetime_of(reply)
            for each in [family] if family else list(told.families):
                told.families[each] = ends
            self.of(client)

    @rule(before=clients, after=clients)
    def move(self, before: Client, after: Client) -> None:
        told, there = self.of(before), self.of(after)
        if not told.ticket:
            return
        reply = after.refresh((registry.MOBILITY_TICKET, told.ticket))
        assert code_of(reply) in {0, 400, 437, 441, 486}
        if code_of(reply):
            return
        assert not there.families
        assert before.username == after.username
        self.forget(before)
        self.left = {c: left for c, left in self.left.items() if left[0] is not told}
        if not told.is_lost:
            self.left[before] = told, self.now + LINGER
        self.left.pop(after, None)
        self.told[after] = told
        told.is_lost = False
        told.ticket = reply.get(registry.MOBILITY_TICKET) or b""
        ends = self.now + lifetime_of(reply)
        told.families = dict.fromkeys(told.families, ends)

    @rule(client=clients, peers=st.lists(st.sampled_from(PEERS), min_size=1, max_size=4))
    def permit(self, client: Client, peers: list[Address]) -> None:
        told = self.of(client)
        code = code_of(client.permit(*peers))
        assert (code == 437) == (not told.families)
        if code == 0:
            assert all(self.world.policy.allows_host(peer.host) for peer in peers)
            assert {family_of(peer) for peer in peers} <= told.families.keys()
            for peer in peers:
                told.permissions[peer.host] = self.now + 300

    @rule(client=clients, number=st.sampled_from(NUMBERS), peer=st.sampled_from(PEERS))
    def bind(self, client: Client, number: int, peer: Address) -> None:
        told = self.of(client)
        code = code_of(client.bind(number, peer))
        assert (code == 437) == (not told.families)
        if code == 0:
            assert self.world.policy.allows(peer)
            assert family_of(peer) in told.families
            told.channels[number] = peer, self.now + 600
            told.permissions[peer.host] = self.now + 300

    # Packets -------------------------------------------------------------------------------

    def passed(self, client: Client, peer: Address) -> bool:
        """Whether something was sent to that peer; forgets it."""
        found = False
        for relay in self.world.opener.opened:
            found = found or any(to == peer for _, to in relay.sent)
            relay.sent.clear()
        return found

    @rule(client=clients, peer=st.sampled_from(PEERS))
    def send(self, client: Client, peer: Address) -> None:
        may = self.from_there(client).may_pass(peer, self.now) and self.world.policy.allows(peer)
        client.send_indication(peer, b"x")
        assert self.passed(client, peer) == may

    @rule(client=clients, number=st.sampled_from(NUMBERS))
    def send_channel_data(self, client: Client, number: int) -> None:
        told = self.from_there(client)
        peer, ends = told.channels.get(number, (PEERS[0], 0.0))
        may = ends > self.now and told.lives(peer, self.now) and self.world.policy.allows(peer)
        client.channel_data(number, b"x")
        assert self.passed(client, peer) == may

    @rule(client=clients, peer=st.sampled_from(PEERS))
    def receive(self, client: Client, peer: Address) -> None:
        allocation = self.world.engine.table.get(client.five_tuple)
        relayed = allocation.relayed.get(family_of(peer)) if allocation else None
        if relayed is None or relayed.relay.is_tcp:
            return
        may = self.of(client).may_pass(peer, self.now) and self.world.policy.allows(peer)
        client.received.clear()
        relayed.relay.receive(b"x", peer)  # type: ignore[attr-defined]  # a FakeRelay
        assert bool(client.received) == may

    # TCP allocations -----------------------------------------------------------------------

    def dials(self) -> list[tuple[FakeTcpRelay, Address, Any]]:
        """The connections that are under way; a relay that was closed makes none."""
        return [
            (relay, peer, done)
            for relay in self.world.opener.opened
            if isinstance(relay, FakeTcpRelay) and not relay.closed
            for peer, done in relay.dialled
        ]

    @rule(client=clients, peer=st.sampled_from(PEERS))
    def connect(self, client: Client, peer: Address) -> None:
        client.received.clear()
        client.permit()  # 400, and a fresh nonce: the answer to Connect may come later
        before = len(self.dials())
        reply = client.raw(client.encode(Method.CONNECT, (registry.XOR_PEER_ADDRESS, peer)))
        if reply is None:
            assert self.of(client).is_tcp
            assert len(self.dials()) == before + 1
            assert self.world.policy.allows_connection(peer)
        else:
            assert code_of(reply) in {400, 403, 437, 443, 446, 508}

    @rule(which=st.integers(0, 3), works=st.booleans())
    def answer(self, which: int, works: bool) -> None:
        under_way = self.dials()
        if which < len(under_way):
            relay, peer, done = under_way[which]
            relay.dialled.remove((peer, done))
            self.streams.append(Stream())
            done(self.streams[-1] if works else None, self.now)

    @rule(client=clients, peer=st.sampled_from(PEERS))
    def peer_connects(self, client: Client, peer: Address) -> None:
        allocation = self.world.engine.table.get(client.five_tuple)
        if allocation is None or not allocation.is_tcp or not self.of(client).is_tcp:
            return
        relay = client.relay
        if family_of(relay.address) != family_of(peer):
            return
        self.streams.append(Stream())
        taken = relay.gate.connected(peer, self.streams[-1], self.now)
        if taken:
            assert self.of(client).permissions.get(peer.host, 0.0) > self.now

    @rule(client=clients, user=st.sampled_from(USERS))
    def claim_connection(self, client: Client, user: tuple[str, str]) -> None:
        numbers = []
        for data in client.received:
            message = parse_untrusted(data) if data[0] < 4 else None
            number = message.get(registry.CONNECTION_ID) if message else None
            numbers += [number] if number else []
        if not numbers:
            return
        host = client.five_tuple.client.host
        bound = self.world.client(*user, host=host, transport=Transport.TCP)
        reply = bound.request(Method.CONNECTION_BIND, (registry.CONNECTION_ID, numbers[-1]))
        if reply.message_class == MessageClass.SUCCESS:
            assert bound.username == client.username

    @rule(which=st.integers(0, 5))
    def stream_ends(self, which: int) -> None:
        if which < len(self.streams):
            self.streams.pop(which).on_end()

    # The outside ---------------------------------------------------------------------------

    @rule(client=clients)
    def transport_is_lost(self, client: Client) -> None:
        if client.five_tuple.transport is not Transport.UDP:
            self.world.engine.disconnected(client.five_tuple)
            self.left.pop(client, None)
            self.of(client).is_lost = True
            if not self.of(client).ticket:
                self.forget(client)

    @rule(seconds=st.sampled_from([0.5, 1, 29, 31, 60, 150, 299, 301, 599, 601, 3601]))
    def sleep(self, seconds: float) -> None:
        self.world.sleep(seconds)
        self.left = {c: left for c, left in self.left.items() if left[1] > self.now}
        check_expiries(self.world)

    @rule(seconds=st.sampled_from([1, 31, 301, 601]))
    def time_passes_unseen(self, seconds: float) -> None:
        """Before the engine has looked at the clock; what is over is over all the same."""
        self.world.monotonic += seconds
        self.world.wall += seconds

    @rule(is_denied=st.booleans())
    def operator_changes_his_mind(self, is_denied: bool) -> None:
        world = self.world
        world.policy.set_rules(DENIED if is_denied else PolicyRules())
        world.engine.reload(world.engine._authenticator, self.limits, Options(mobility=True))
        for told in self.told.values():
            for host in [h for h in told.permissions if not world.policy.allows_host(h)]:
                del told.permissions[host]
            for number, (to, _) in list(told.channels.items()):
                if not world.policy.allows(to):
                    del told.channels[number]

    @rule()
    def a_tenant_goes_and_comes_again(self) -> None:
        engine = self.world.engine
        with_all = engine._authenticator
        for known in (self.world.authenticator(["shop"]), with_all):
            engine.reload(known, self.limits, Options(mobility=True))
            assert "clinic" not in {allocation.owner.tenant for allocation in engine.table}
        for client in [*self.told, *self.left]:
            if "clinic/" in client.username:
                self.forget(client)
                self.left.pop(client, None)

    # What always holds ---------------------------------------------------------------------

    @invariant()
    def the_books_balance(self) -> None:
        if hasattr(self, "world"):
            check_books(self.world, self.limits)
            check_routes(self.world)

    @invariant()
    def streams_belong_to_allocations(self) -> None:
        if hasattr(self, "world"):
            connections = self.world.engine._allocator.peers.connections
            for connection in connections._by_number.values():
                assert self.world.engine.table.get(connection.allocation.client) is not None
                assert connection.allocation.is_tcp
                assert (
                    connection.expires <= self.now + CLAIM_TIMEOUT
                    or connection.claimed
                    or (connection.stream is None)
                )

    def teardown(self) -> None:
        """Whatever happened: when all is closed, everything is given back."""
        if hasattr(self, "world"):
            self.world.engine.close_all()
            check_books(self.world, self.limits)
            assert len(self.world.opener.free) == 8
            assert list(self.world.routes.all()) == []
            assert len(self.world.engine._allocator.peers.connections) == 0
            assert not self.world.engine.table.books._counts  # type: ignore[attr-defined]


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=40, report_multiple_bugs=False
)
