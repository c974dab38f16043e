"""A whole engine without a socket: time stands still until a test moves it."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from turn.allocation.allocator import Parts
from turn.allocation.books import Books
from turn.allocation.connections import Connected
from turn.allocation.elsewhere import NOWHERE, Elsewhere
from turn.allocation.engine import Engine
from turn.allocation.model import Gate, Limits, NoPort
from turn.allocation.options import NOTHING_MORE, Options
from turn.allocation.policy import PeerPolicy, PolicyRules
from turn.allocation.table import AllocationTable
from turn.auth.authenticate import Authenticator, Now
from turn.auth.credentials import Credentials, Tenant, long_term_key
from turn.auth.ephemeral import mint, name_in
from turn.auth.third_party import ThirdParty
from turn.bandwidth import Budgets
from turn.codec import registry
from turn.codec.integrity import Integrity, verify
from turn.codec.message import Message, build, parse_untrusted
from turn.codec.registry import Attributes, MessageClass, Method
from turn.codec.values import Address, Family
from turn.relay.forward import HEADROOM, Forwarder
from turn.routes import ClientRoutes, FiveTuple, Route, RouteTable, Transport
from turn.stats import Stats

REALM = "icebroker"
SECRET = "a secret of thirty-two characters"
SERVER = Address("198.51.100.1", 3478)
PEER = Address("8.8.8.8", 4000)
DEFAULT_LIMITS = Limits()
NO_RULES = PolicyRules()
OTHER_PEER = Address("9.9.9.9", 4000)


@dataclass
class FakeRelay:
    """A relay socket that keeps what is sent, and is handed what a peer sends."""

    is_tcp = False
    address: Address
    world: "World"
    closed: bool = False
    sent: list[tuple[bytes, Address]] = field(default_factory=list)
    routes: ClientRoutes | None = None
    gate: Gate | None = None
    unfragmented: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.public = self.address

    def send(self, data: bytes | bytearray | memoryview, peer: Address) -> int:
        self.sent.append((bytes(data), peer))
        return len(data)

    def send_unfragmented(self, data: bytes | bytearray | memoryview, peer: Address) -> int:
        self.unfragmented.append(bytes(data))
        return self.send(data, peer)

    def start(self, routes: ClientRoutes, gate: Gate) -> None:
        self.routes, self.gate = routes, gate

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True
        self.gate = None
        self.world.opener.free.add(self.address.port)

    def receive(self, payload: bytes, source: Address) -> None:
        """A packet from a peer arrives, as ``RelaySocket`` would carry it."""
        assert self.routes is not None
        assert self.gate is not None
        now = self.world.monotonic
        route: Route | None = self.routes.peers.get(source)
        if route is None or route.expires <= now:
            route = self.gate.admit(source, now)
        if route is not None:
            forwarder = self.world.forwarder
            forwarder.buffer[HEADROOM : HEADROOM + len(payload)] = payload
            forwarder.peer_to_client(route, len(payload), now)


@dataclass
class FakeTcpRelay(FakeRelay):
    """A relayed address that peers connect to; ``dialled`` is what waits to be connected."""

    is_tcp = True
    dialled: list[tuple[Address, Connected]] = field(default_factory=list)

    def connect(self, peer: Address, done: Connected) -> None:
        self.dialled.append((peer, done))


class FakeStream:
    """A connection with a peer, as far as the core knows it."""

    def __init__(self) -> None:
        self.on_end: Callable[[], None] = lambda: None
        self.sending: Budgets | None = None
        self.receiving: Budgets | None = None
        self.tenant = ""
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True
        self.on_end()


class FakeOpener:
    """Eight ports of each family."""

    def __init__(self, world: "World", ports: range = range(50000, 50008)) -> None:
        self.world = world
        self.families = frozenset(Family)
        self.tcp = False
        self.free = set(ports)
        self.opened: list[FakeRelay] = []

    def open(self, family: Family, server: str, *, even: bool) -> FakeRelay:
        ports = sorted(port for port in self.free if not (even and port % 2))
        if not ports:
            raise NoPort
        return self._open(family, ports[0])

    def open_tcp(self, family: Family, server: str) -> "FakeTcpRelay":
        relay = self.open(family, server, even=False)
        self.opened[-1] = made = FakeTcpRelay(relay.address, self.world)
        return made

    def open_pair(self, family: Family, server: str) -> tuple[FakeRelay, FakeRelay]:
        pairs = sorted(p for p in self.free if p % 2 == 0 and p + 1 in self.free)
        if not pairs:
            raise NoPort
        return self._open(family, pairs[0]), self._open(family, pairs[0] + 1)

    def _open(self, family: Family, port: int) -> FakeRelay:
        self.free.remove(port)
        host = "198.51.100.1" if family is Family.IPV4 else "2606:4700::1"
        relay = FakeRelay(Address(host, port), self.world)
        self.opened.append(relay)
        return relay


class Client:
    """A client's half of the conversation: it authenticates as soon as it is asked to."""

    def __init__(self, world: "World", five_tuple: FiveTuple, username: str, password: str) -> None:
        self.world = world
        self.five_tuple = five_tuple
        self.username = username
        self.key = long_term_key(username, REALM, password)
        self.nonce: str | None = None
        self.received: list[bytes] = []

    def send(self, data: bytes | bytearray | memoryview, _: Address) -> int:
        self.received.append(bytes(data))
        return len(data)

    def request(self, method: Method, *attributes: Any, **kwargs: Any) -> Message:
        """Send a request, a second time where a nonce is wanted; gives the reply."""
        reply = self.once(method, *attributes, **kwargs)
        if code_of(reply) in {401, 438} and reply.get(registry.NONCE) != self.nonce:
            first_try = self.nonce is None
            self.nonce = reply.get(registry.NONCE)
            if first_try or code_of(reply) == 438:
                reply = self.once(method, *attributes, **kwargs)
        return reply

    def once(
        self, method: Method, *attributes: Any, transaction_id: bytes | None = None
    ) -> Message:
        reply = self.raw(self.encode(method, *attributes, transaction_id=transaction_id))
        assert reply is not None, "no reply"
        return reply

    def encode(
        self, method: Method, *attributes: Any, transaction_id: bytes | None = None
    ) -> bytes:
        credentials: Attributes = ()
        if self.nonce is not None:
            credentials = (
                (registry.USERNAME, self.username),
                (registry.REALM, REALM),
                (registry.NONCE, self.nonce),
            )
        return build(
            method,
            MessageClass.REQUEST,
            transaction_id or self.world.transaction_id(),
            (*attributes, *credentials),
            key=self.key if self.nonce is not None else None,
            integrity=Integrity.SHA1 if self.nonce is not None else Integrity.NONE,
            fingerprint=False,
        )

    def raw(self, data: bytes) -> Message | None:
        reply = self.world.engine.handle(
            memoryview(data), self.five_tuple, self.send, self.world.now
        )
        if reply is None:
            return None
        message = parse_untrusted(reply.data)
        assert (data[8:20], data[0] & 0x3E) == (message.transaction_id, reply.data[0] & 0x3E)
        assert reply.proved == (message.integrity is not Integrity.NONE)
        if reply.proved:
            assert verify(message, self.key)
        return message

    # The usual sentences -------------------------------------------------------------------

    def allocate(self, *attributes: Any) -> Message:
        return self.request(Method.ALLOCATE, (registry.REQUESTED_TRANSPORT, 17), *attributes)

    def refresh(self, *attributes: Any) -> Message:
        return self.request(Method.REFRESH, *attributes)

    def permit(self, *peers: Address) -> Message:
        wanted = ((registry.XOR_PEER_ADDRESS, peer) for peer in peers)
        return self.request(Method.CREATE_PERMISSION, *wanted)

    def bind(self, number: int, peer: Address) -> Message:
        return self.request(
            Method.CHANNEL_BIND,
            (registry.CHANNEL_NUMBER, number),
            (registry.XOR_PEER_ADDRESS, peer),
        )

    def send_indication(self, peer: Address, payload: bytes) -> None:
        data = build(
            Method.SEND,
            MessageClass.INDICATION,
            self.world.transaction_id(),
            ((registry.XOR_PEER_ADDRESS, peer), (registry.DATA, payload)),
            key=None,
            integrity=Integrity.NONE,
            fingerprint=False,
        )
        self.world.forwarder.send_indication(self.routes, memoryview(data), self.world.monotonic)

    def channel_data(self, number: int, payload: bytes) -> None:
        data = number.to_bytes(2) + len(payload).to_bytes(2) + payload
        self.world.forwarder.client_to_peer(self.routes, memoryview(data), self.world.monotonic)

    @property
    def routes(self) -> ClientRoutes | None:
        return self.world.routes.of(self.five_tuple)

    @property
    def relay(self) -> FakeRelay:
        allocation = self.world.engine.table.get(self.five_tuple)
        assert allocation is not None
        found = next(iter(allocation.relayed.values())).relay
        assert isinstance(found, FakeRelay)
        return found


class World:
    """An engine, its forwarder and a clock."""

    def __init__(
        self,
        limits: Limits = DEFAULT_LIMITS,
        rules: PolicyRules = NO_RULES,
        minimum: Integrity = Integrity.SHA1,
        options: Options = NOTHING_MORE,
        third_party: ThirdParty | None = None,
        books: Books | None = None,
        elsewhere: Elsewhere = NOWHERE,
    ) -> None:
        self.monotonic = 1000.0
        self.wall = 1_800_000_000.0
        self.stats = Stats()
        self.routes = RouteTable(self.stats)
        self.opener = FakeOpener(self)
        table = AllocationTable(limits, self.stats, books)
        self.policy = PeerPolicy(rules, {SERVER.host}, table.is_live_relay, table.is_live_tcp_relay)
        self._authenticator = partial(
            Authenticator,
            REALM,
            nonce_key=b"key",
            nonce_lifetime=3600,
            minimum=minimum,
            third_party=third_party,
        )
        counter = itertools.count(1)
        parts = Parts(
            self.policy, table, self.routes, self.opener, limits, self.stats,
            lambda size: next(counter).to_bytes(size), options, elsewhere,
        )  # fmt: skip
        self.engine = Engine(self.authenticator(limits.tenants), parts)
        self.forwarder = Forwarder(self.stats, self.engine.route_to)
        self._transactions = itertools.count(1)
        self._ports = itertools.count(40000)

    def authenticator(self, tenants: Iterable[str] = ()) -> Authenticator:
        """Who may use the relay."""
        users = {"alice": "pw", "bob": "pw2"}
        secrets = [SECRET, "an older secret, still good"]
        theirs = {name: Tenant({"carol": "pw3"}, [secret_of(name)]) for name in tenants}
        return self._authenticator(credentials=Credentials(REALM, users, secrets, theirs))

    def signed(self, name: str, tenant: str = "", by: str | None = None) -> tuple[str, str]:
        """A time-limited username and its password.

        :param by: whose secret makes it, if not the tenant's.
        """
        secret = secret_of(tenant if by is None else by)
        return mint(secret, name_in(tenant, name), int(self.wall) + 3600)

    @property
    def now(self) -> Now:
        return Now(self.monotonic, self.wall)

    def transaction_id(self) -> bytes:
        return next(self._transactions).to_bytes(12)

    def client(
        self,
        username: str = "alice",
        password: str = "pw",
        host: str = "192.0.2.7",
        transport: Transport = Transport.UDP,
    ) -> Client:
        five_tuple = FiveTuple(transport, Address(host, next(self._ports)), SERVER)
        return Client(self, five_tuple, username, password)

    def sleep(self, seconds: float) -> None:
        """Let time pass, with the engine's look at the clock once a second at its end."""
        self.monotonic += seconds
        self.wall += seconds
        self.engine.expire(self.monotonic)


def secret_of(tenant: str) -> str:
    """What signs for a tenant, or ("") for the relay."""
    return f"{tenant}'s secret of thirty-two characters" if tenant else SECRET


def code_of(message: Message) -> int:
    """The error code of a reply, or 0 for a success."""
    error = message.get(registry.ERROR_CODE)
    return error[0] if error else 0
