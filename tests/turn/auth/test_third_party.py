"""Tokens of an authorization server: what opens them, and what a holder may do (RFC 7635)."""

import base64
import json
import re
import subprocess
import time

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.conftest import need
from tests.turn.world import PEER, Client, FakeStream, FakeTcpRelay, World, code_of
from turn.allocation.model import Limits
from turn.allocation.options import Options
from turn.auth.third_party import Grant, ThirdParty
from turn.codec import registry
from turn.codec.integrity import Integrity
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.routes import Transport

NAME = "turn.example.org"
KEYS = {"kid-256": bytes(range(32)), "kid-128": bytes(range(16))}
HELD = b"the key of one holder"
WALL = 1_800_000_000.0
THIRD_PARTY = ThirdParty(NAME, KEYS)


def seal(
    kid: str = "kid-256",
    *,
    key: bytes = HELD,
    issued: float = WALL,
    lifetime: int = 600,
    name: str = NAME,
    nonce: bytes = b"n" * 12,
    opened: bytes | None = None,
) -> bytes:
    """A token as an authorization server makes it."""
    if opened is None:
        opened = len(key).to_bytes(2) + key
        opened += (int(issued) << 16).to_bytes(8) + lifetime.to_bytes(4)
    sealed = AESGCM(KEYS[kid]).encrypt(nonce, opened, name.encode())
    return len(nonce).to_bytes(2) + nonce + sealed


class TestToken:
    @pytest.mark.parametrize("kid", KEYS)
    def test_it_opens_to_its_key_and_its_end(self, kid: str) -> None:
        assert THIRD_PARTY.open(kid, seal(kid), WALL) == Grant(kid, HELD, WALL + 600)

    def test_coturns_tool_seals_what_we_open(self) -> None:
        key, held = bytes(range(32)), bytes(range(1, 33))
        now = int(time.time())
        command = [
            need("turnutils_oauth"), "-v", "-e", "-i", NAME, "-j", "kid-256", "-n", "A256GCM",
            "-k", base64.b64encode(key).decode(), "-l", str(now), "-m", "36000",
            "-o", base64.b64encode(b"n" * 12).decode(),
            "-p", base64.b64encode(held).decode(), "-r", "600",
        ]  # fmt: skip
        output = subprocess.run(command, capture_output=True, check=True).stdout
        found = re.search(rb'"access_token":("[^"]+")', output)
        assert found
        token = base64.b64decode(json.loads(found[1]))
        grant = THIRD_PARTY.open("kid-256", token, time.time())
        assert grant is not None
        assert grant.key[: len(held)] == held
        assert now <= grant.expires - 600 <= now + 60

    @pytest.mark.parametrize("wall", [WALL - 4, WALL + 604])
    def test_clocks_may_differ_a_little(self, wall: float) -> None:
        assert THIRD_PARTY.open("kid-256", seal(), wall) is not None

    @pytest.mark.parametrize("wall", [WALL - 6, WALL + 606, 0.0])
    def test_its_time_is_over_or_yet_to_come(self, wall: float) -> None:
        assert THIRD_PARTY.open("kid-256", seal(), wall) is None

    @pytest.mark.parametrize(
        "token",
        [
            b"",
            b"\x00",
            b"\x00\x00",
            b"\xff\xff",
            b"\x00\x0c" + b"n" * 11,
            b"\x00\x0c" + b"n" * 12,
            b"\x00\x07" + b"n" * 60,
            b"\x00\x81" + b"n" * 200,
            seal()[:-1],
            seal() + b"x",
            seal("kid-128"),
            seal(name="another.example.org"),
            seal(opened=b""),
            seal(opened=b"\xff\xff"),
            seal(opened=b"\x00\x00" + (int(WALL) << 16).to_bytes(8) + b"\x00\x00\x02\x58"),
            seal(opened=b"\x00\x01k"),
            seal(opened=b"\x00\x01k" + bytes(13)),
        ],
    )
    def test_nothing_else_opens(self, token: bytes) -> None:
        assert THIRD_PARTY.open("kid-256", token, WALL) is None

    def test_every_changed_bit_is_seen(self) -> None:
        token = seal()
        for place in range(2, len(token)):
            changed = bytearray(token)
            changed[place] ^= 1
            assert THIRD_PARTY.open("kid-256", bytes(changed), WALL) is None

    def test_a_key_that_is_not_shared_opens_nothing(self) -> None:
        assert THIRD_PARTY.open("nobody", seal(), WALL) is None


class Holder(Client):
    """A client that has a token instead of a password."""

    def __init__(
        self,
        world: World,
        token: bytes | None,
        key: bytes = HELD,
        transport: Transport = Transport.UDP,
    ) -> None:
        like = world.client(transport=transport)
        super().__init__(world, like.five_tuple, "kid-256", "")
        self.key = key
        self.token = token

    def encode(
        self, method: Method, *attributes: object, transaction_id: bytes | None = None
    ) -> bytes:
        shown = () if self.token is None else ((registry.ACCESS_TOKEN, self.token),)
        return super().encode(
            method, *attributes, *(shown if self.nonce else ()), transaction_id=transaction_id
        )


@pytest.fixture
def world() -> World:
    return World(third_party=THIRD_PARTY)


class TestHolder:
    def test_a_stranger_is_told_whom_to_ask(self, world: World) -> None:
        reply = world.client().once(Method.ALLOCATE)
        assert code_of(reply) == 401
        assert reply.get(registry.THIRD_PARTY_AUTHORIZATION) == NAME

    def test_a_token_is_as_good_as_a_password(self, world: World) -> None:
        holder = Holder(world, seal())
        assert code_of(holder.allocate()) == 0
        assert code_of(holder.bind(0x4000, PEER)) == 0

    def test_passwords_go_on(self, world: World) -> None:
        assert code_of(world.client().allocate()) == 0

    def test_the_token_is_shown_once_and_its_key_goes_on(self, world: World) -> None:
        holder = Holder(world, seal())
        holder.allocate()
        holder.token = None
        assert code_of(holder.permit(PEER)) == 0
        assert code_of(holder.refresh()) == 0
        holder.key = b"another key"
        reply = world.engine.handle(
            holder.encode(Method.REFRESH), holder.five_tuple, holder.send, world.now
        )
        assert reply is not None
        assert code_of(parse_untrusted(reply.data)) == 401

    def test_without_a_token_there_is_nothing_to_go_on_with(self, world: World) -> None:
        assert code_of(Holder(world, None).allocate()) == 401

    @pytest.mark.parametrize(
        ("token", "key"),
        [(seal(), b"wrong"), (seal(lifetime=0, issued=WALL - 60), HELD), (b"junk", HELD)],
    )
    def test_what_does_not_fit_is_refused(self, world: World, token: bytes, key: bytes) -> None:
        assert code_of(Holder(world, token, key).allocate()) == 401
        assert len(world.engine.table) == 0

    def test_an_allocation_ends_with_its_token(self, world: World) -> None:
        holder = Holder(world, seal(lifetime=120))
        assert holder.allocate().get(registry.LIFETIME) == 120
        world.sleep(121)
        assert len(world.engine.table) == 0

    def test_a_new_token_moves_the_end(self, world: World) -> None:
        holder = Holder(world, seal(lifetime=120))
        holder.allocate()
        world.sleep(100)
        holder.token, holder.key = seal(key=b"new", issued=world.wall, lifetime=300), b"new"
        assert holder.refresh().get(registry.LIFETIME) == 300

    def test_the_next_token_may_be_of_another_authorization_server(self, world: World) -> None:
        holder = Holder(world, seal())
        holder.allocate()
        holder.username, holder.token = "kid-128", seal("kid-128")
        assert code_of(holder.refresh()) == 0
        holder.token = None
        assert code_of(holder.permit(PEER)) == 0

    @pytest.mark.parametrize("new_token", [False, True], ids=["its token", "its next token"])
    def test_a_ticket_is_good_for_its_holder_and_no_other(self, new_token: bool) -> None:
        world = World(options=Options(mobility=True), third_party=THIRD_PARTY)
        holder, thief = Holder(world, seal()), Holder(world, seal(key=b"other"), b"other")
        asked = (registry.MOBILITY_TICKET, b"")
        ticket = holder.allocate(asked).get(registry.MOBILITY_TICKET)
        if new_token:
            holder.token, holder.key = seal(key=b"new"), b"new"
            assert code_of(holder.refresh()) == 0
        shown = (registry.MOBILITY_TICKET, ticket)
        assert code_of(thief.request(Method.REFRESH, shown)) == 441
        away = Holder(world, holder.token, holder.key)
        assert code_of(away.request(Method.REFRESH, shown)) == 0

    @pytest.mark.parametrize(
        ("before", "after", "code"),
        [
            (Transport.TLS, Transport.TLS, 0),
            (Transport.DTLS, Transport.TLS, 0),
            (Transport.TCP, Transport.TCP, 441),
            (Transport.UDP, Transport.TLS, 441),
            (Transport.TLS, Transport.UDP, 441),
        ],
    )
    def test_with_another_key_a_ticket_is_good_where_nobody_else_can_have_seen_it(
        self, before: Transport, after: Transport, code: int
    ) -> None:
        world = World(options=Options(mobility=True), third_party=THIRD_PARTY)
        holder = Holder(world, seal(), transport=before)
        ticket = holder.allocate((registry.MOBILITY_TICKET, b"")).get(registry.MOBILITY_TICKET)
        away = Holder(world, seal("kid-128", key=b"new"), b"new", after)
        away.username = "kid-128"
        shown = (registry.MOBILITY_TICKET, ticket)
        reply = away.request(Method.REFRESH, shown)
        assert code_of(reply) == code
        if code == 0:
            away.token = None
            assert code_of(away.permit(PEER)) == 0, "its key goes on"
            assert code_of(holder.refresh()) == 437

    def test_a_ticket_over_tls_is_no_users_and_a_users_no_holders(self) -> None:
        world = World(options=Options(mobility=True), third_party=THIRD_PARTY)
        asked, tls = (registry.MOBILITY_TICKET, b""), Transport.TLS
        holder, user = Holder(world, seal(), transport=tls), world.client(transport=tls)
        of_holder, of_user = (
            (registry.MOBILITY_TICKET, each.allocate(asked).get(registry.MOBILITY_TICKET))
            for each in (holder, user)
        )
        assert code_of(world.client(transport=tls).request(Method.REFRESH, of_holder)) == 441
        thief = Holder(world, seal(), transport=tls)
        assert code_of(thief.request(Method.REFRESH, of_user)) == 441

    def test_a_reserved_port_may_be_had_with_the_next_token(self, world: World) -> None:
        holder, later = Holder(world, seal()), Holder(world, seal(key=b"other"), b"other")
        reply = holder.allocate((registry.EVEN_PORT, True))
        token = (registry.RESERVATION_TOKEN, reply.get(registry.RESERVATION_TOKEN))
        assert code_of(world.client().allocate(token)) == 508
        assert code_of(later.allocate(token)) == 0

    def test_a_connection_is_claimed_with_the_key_of_its_allocations_token(
        self, world: World
    ) -> None:
        """RFC 7635 §9: tokens come with Allocate and Refresh only; RFC 6062: over another one."""
        world.opener.tcp = True
        holder = Holder(world, seal(), transport=Transport.TCP)
        holder.request(Method.ALLOCATE, (registry.REQUESTED_TRANSPORT, 6))
        holder.token = None
        holder.raw(holder.encode(Method.CONNECT, (registry.XOR_PEER_ADDRESS, PEER)))
        relay = holder.relay
        assert isinstance(relay, FakeTcpRelay)
        (_, done) = relay.dialled.pop()
        done(FakeStream(), world.monotonic)
        number = parse_untrusted(holder.received.pop()).get(registry.CONNECTION_ID)
        shown = (registry.CONNECTION_ID, number)
        thief = Holder(world, None, b"another key", Transport.TCP)
        assert code_of(thief.request(Method.CONNECTION_BIND, shown)) == 401
        other = Holder(world, seal(key=b"other"), b"other", Transport.TCP)
        assert code_of(other.request(Method.CONNECTION_BIND, shown)) == 441
        later = Holder(world, None, transport=Transport.TCP)
        assert code_of(later.request(Method.CONNECTION_BIND, (registry.CONNECTION_ID, 0))) == 401
        data = Holder(world, None, transport=Transport.TCP)
        assert code_of(data.request(Method.CONNECTION_BIND, shown)) == 0

    def test_a_user_and_a_holder_have_nothing_in_common(self, world: World) -> None:
        holder = Holder(world, seal())
        holder.allocate()
        user = Client(world, holder.five_tuple, "alice", "pw")
        assert code_of(user.refresh()) == 441

    @pytest.mark.parametrize("size", [15, 16, 17, 20, 32, 33, 64])
    @pytest.mark.parametrize("cut", [False, True], ids=["whole", "as coturn cuts it"])
    def test_keys_of_every_length(self, world: World, size: int, cut: bool) -> None:
        key = bytes(range(1, size + 1))
        holder = Holder(world, seal(key=key), key[:16] if cut else key)
        assert code_of(holder.allocate()) == 0

    def test_each_holder_has_a_share_of_its_own(self) -> None:
        world = World(limits=Limits(allocations_per_user=1), third_party=THIRD_PARTY)
        assert code_of(Holder(world, seal()).allocate()) == 0
        assert code_of(Holder(world, seal()).allocate()) == 486
        assert code_of(Holder(world, seal(key=b"other"), b"other").allocate()) == 0

    def test_where_sha1_is_not_enough_it_is_not(self) -> None:
        world = World(minimum=Integrity.SHA256, third_party=THIRD_PARTY)
        holder = Holder(world, seal())
        assert code_of(holder.allocate()) == 401
        data = build(
            Method.ALLOCATE,
            MessageClass.REQUEST,
            world.transaction_id(),
            (
                (registry.REQUESTED_TRANSPORT, 17),
                (registry.USERNAME, "kid-256"),
                (registry.REALM, "icebroker"),
                (registry.NONCE, holder.nonce),
                (registry.ACCESS_TOKEN, seal()),
            ),
            key=HELD,
            integrity=Integrity.SHA256,
        )
        reply = world.engine.handle(data, holder.five_tuple, holder.send, world.now)
        assert reply is not None
        message = parse_untrusted(reply.data)
        assert code_of(message) == 0
        assert message.integrity is Integrity.SHA256


def test_where_it_is_off_a_token_is_nothing() -> None:
    world = World()
    assert code_of(Holder(world, seal()).allocate()) == 401
    client = world.client()
    assert code_of(client.allocate((registry.ACCESS_TOKEN, seal()))) == 420
