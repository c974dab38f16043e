"""Two workers with the same books, of which one asks the other, and clients that come to either."""

from collections.abc import Callable, Mapping
from typing import Any

from tests.turn.world import Client, FakeStream, World
from turn.allocation.books import OwnBooks
from turn.allocation.elsewhere import Moved
from turn.allocation.model import Limits
from turn.allocation.options import Options
from turn.allocation.record import record_of
from turn.auth.third_party import ThirdParty
from turn.bandwidth import Key
from turn.codec import registry
from turn.codec.errors import StunError
from turn.codec.message import Message, parse_untrusted
from turn.codec.registry import Method
from turn.routes import FiveTuple

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


def two_worlds(third_party: ThirdParty | None = None, **limits: Any) -> tuple[There, World]:
    """Two workers with the same books; the second one asks the first."""
    there, books = There(), OwnBooks()
    given = Limits(**limits)
    both: dict[str, Any] = {"options": MOBILE, "third_party": third_party}
    there.world = World(given, books=books, **both)
    return there, World(given, books=books, elsewhere=there, **both)


def at(
    world: World, host: str = "192.0.2.7", username: str = "alice", password: str = "pw"
) -> Client:
    """A client with a nonce."""
    client = world.client(username, password, host=host)
    challenge = client.once(Method.REFRESH)
    client.nonce = challenge.get(registry.NONCE)
    return client


def ask(there: There, client: Client, method: Method, *attributes: Any) -> Message:
    """Ask for something that the other worker has; gives the reply, which comes later."""
    assert client.raw(client.encode(method, *attributes)) is None
    there.answer()
    return parse_untrusted(client.received.pop())
