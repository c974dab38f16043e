"""Authentication skipped, forged, replayed, outlived: every method, over real sockets."""

import secrets
import socket
import time
from typing import Any

import pytest

from tests.turn.live import UDP, Client, port_of, relay
from turn.auth.credentials import PasswordAlgorithm, long_term_key
from turn.auth.ephemeral import mint
from turn.auth.nonce import Feature, Nonces
from turn.codec import registry
from turn.codec.integrity import Integrity
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address, Algorithm

SECRET = "a secret of thirty-two characters"
FEATURES = Feature.PASSWORD_ALGORITHMS
PEER = (registry.XOR_PEER_ADDRESS, Address("127.0.0.1", 9))
REQUESTS: dict[Method, Any] = {
    Method.ALLOCATE: (UDP,),
    Method.REFRESH: ((registry.LIFETIME, 0),),
    Method.CREATE_PERMISSION: (PEER,),
    Method.CHANNEL_BIND: ((registry.CHANNEL_NUMBER, 0x4000), PEER),
    Method.CONNECT: (PEER,),
    Method.CONNECTION_BIND: (),  # the number of a connection, once there is one
}
METHODS = list(REQUESTS)
OF_TCP = {Method.CONNECT, Method.CONNECTION_BIND}
"""Methods of TCP allocations (RFC 6062)."""


def code_of(reply):
    return (reply.get(registry.ERROR_CODE) or (0, ""))[0]


class Caller(Client):
    """A client, and the number of the connection that it may claim."""

    asks: Any = ()


def signed(client, method, *more, nonce=None, integrity=Integrity.SHA1, key=None):
    """A request of ``client``, with what a test wants otherwise."""
    return build(
        method, MessageClass.REQUEST, secrets.token_bytes(12),
        (*REQUESTS[method], *getattr(client, "asks", ()),
         (registry.USERNAME, client.username), (registry.REALM, "icebroker"),
         (registry.NONCE, client.nonce if nonce is None else nonce), *more),
        key=None if integrity is Integrity.NONE else key or client.key, integrity=integrity,
    )  # fmt: skip


async def ask(client, data):
    await client.send(data)
    return parse_untrusted(await client.receive())


@pytest.fixture
async def service():
    users = {"alice": "pw", "bob": "pw2"}
    settings = {"secret": SECRET, "users": users, "nonce_lifetime": 600}
    async with relay(**settings, tcp_allocations=True) as running:
        yield running


@pytest.fixture
async def alice(request, service, connect):
    """A client with an allocation: what an attacker is after.

    For the methods of TCP allocations it has one of these; and for ConnectionBind a connection with
    a peer that waits to be claimed: then this is the connection that would claim it.
    """
    callspec = getattr(request.node, "callspec", None)
    method = callspec.params.get("method") if callspec else None
    if method not in OF_TCP:
        client = await connect(port_of(service))
        await client.allocate()
        yield client
        return
    port = port_of(service, "tcp")
    client = await connect(port, tcp=True)
    reply = await client.request(Method.ALLOCATE, (registry.REQUESTED_TRANSPORT, 6))
    assert code_of(reply) == 0
    if method == Method.CONNECT:
        yield client
        return
    with socket.create_server(("127.0.0.1", 0)) as peer:
        there = (registry.XOR_PEER_ADDRESS, Address(*peer.getsockname()))
        reply = await client.request(Method.CONNECT, there)
        second = Caller()
        await second.connect(port, tcp=True)
        second.nonce = client.nonce
        second.asks = ((registry.CONNECTION_ID, reply.get(registry.CONNECTION_ID)),)
        yield second
        second.close()


def assert_untouched(service):
    """Nothing was begun, changed or ended in alice's name."""
    (allocation,) = service._engine.table
    assert allocation.owner.username == "alice"
    assert not allocation.permissions
    assert not allocation.channels
    assert allocation.expires > time.monotonic()
    waiting = service._engine._allocator.peers.connections._by_number.values()
    assert not any(connection.claimed or connection.stream is None for connection in waiting)
    assert service.ports_in_use == 1


@pytest.mark.parametrize("method", METHODS)
async def test_no_credentials_no_service(service, alice, method):
    """The five-tuple alone, which anybody can forge, is no proof."""
    reply = await ask(alice, signed(alice, method, integrity=Integrity.NONE))
    assert code_of(reply) == 401
    assert reply.integrity is Integrity.NONE
    assert_untouched(service)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("integrity", [Integrity.SHA1, Integrity.SHA256])
@pytest.mark.parametrize("key", [bytes(16), b"x" * 16, long_term_key("alice", "icebroker", "")])
async def test_a_wrong_key_no_service(service, alice, method, integrity, key):
    reply = await ask(alice, signed(alice, method, integrity=integrity, key=key))
    assert code_of(reply) == 401
    assert_untouched(service)


@pytest.mark.parametrize("method", METHODS)
async def test_an_integrity_that_was_cut_off_is_none(service, alice, method):
    """RFC 8489 §14.6 lets SHA-256 be shortened; one byte would be guessed in 256 tries."""
    data = bytearray(signed(alice, method, integrity=Integrity.SHA256))
    del data[-16:]
    data[-18:-16] = (16).to_bytes(2)
    data[2:4] = (len(data) - 20).to_bytes(2)
    assert code_of(await ask(alice, bytes(data))) == 401
    assert_untouched(service)


@pytest.mark.parametrize("method", METHODS)
async def test_attributes_behind_the_integrity_are_not_believed(service, alice, method):
    """Whoever sits on the path could add a peer of his own, or an end, to a genuine request."""
    data = build(
        method, MessageClass.REQUEST, secrets.token_bytes(12),
        ((registry.USERNAME, "alice"), (registry.REALM, "icebroker"),
         (registry.NONCE, alice.nonce)),
        key=alice.key, integrity=Integrity.SHA1,
    )  # fmt: skip
    wanted = (*REQUESTS[method], *getattr(alice, "asks", ()))
    added = build(method, MessageClass.REQUEST, bytes(12), wanted)[20:]
    forged = bytearray(data + added)
    forged[2:4] = (len(forged) - 20).to_bytes(2)
    reply = await ask(alice, bytes(forged))
    codes = {Method.ALLOCATE: 437, Method.REFRESH: 0}
    assert code_of(reply) == codes.get(method, 400)
    assert_untouched(service)


@pytest.mark.parametrize("method", METHODS)
async def test_another_user_may_not_touch_an_allocation(service, alice, method):
    """Even from alice's own address and port: 441 (RFC 8656 §5), or 437 to a second Allocate."""
    bob = Caller("bob", "pw2")
    bob.nonce, bob.asks = alice.nonce, getattr(alice, "asks", ())
    reply = await ask(alice, signed(bob, method))
    assert code_of(reply) == (437 if method == Method.ALLOCATE else 441)
    assert_untouched(service)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kept", ["neither", "the choice", "the list", "another list"])
async def test_nobody_on_the_path_talks_us_down_to_md5(service, alice, method, kept):
    """Who strips the algorithms off a challenge, or off a request, gets 400 (RFC 8489 §9.2.1)."""
    key = long_term_key("alice", "icebroker", "pw", PasswordAlgorithm.SHA256)
    sha256, md5 = Algorithm(PasswordAlgorithm.SHA256), Algorithm(PasswordAlgorithm.MD5)
    more = {
        "neither": (),
        "the choice": ((registry.PASSWORD_ALGORITHM, sha256),),
        "the list": ((registry.PASSWORD_ALGORITHMS, (sha256, md5)),),
        "another list": (
            (registry.PASSWORD_ALGORITHMS, (md5,)), (registry.PASSWORD_ALGORITHM, md5),
        ),
    }[kept]  # fmt: skip
    data = signed(alice, method, *more, key=key, integrity=Integrity.SHA256)
    assert code_of(await ask(alice, data)) == (401 if kept == "neither" else 400)
    assert_untouched(service)


async def test_an_expired_credential_begins_nothing(service, connect):
    username, password = mint(SECRET, "ada", int(time.time()) - 1)
    client = await connect(port_of(service))
    client.username = username
    client.key = long_term_key(username, "icebroker", password)
    assert code_of(await client.request(Method.ALLOCATE, UDP)) == 401
    assert service.ports_in_use == 0


@pytest.mark.parametrize("method", METHODS)
class TestNonces:
    async def test_every_change_of_a_nonce_makes_it_stale(self, service, alice, method):
        """Forgery: not one letter can be another (24 letters, 144 bits)."""
        good = alice.nonce
        for place in range(len(good)):
            letter = "A" if good[place] != "A" else "B"
            nonce = good[:place] + letter + good[place + 1 :]
            assert code_of(await ask(alice, signed(alice, method, nonce=nonce))) == 438
        assert_untouched(service)

    async def test_a_nonce_of_another_address_is_stale(self, service, alice, method, connect):
        """Proof of address: a nonce was read where it was sent to."""
        for host in ("127.0.0.2", "::1", ""):
            nonce = Nonces(SECRET.encode(), 600, FEATURES).make(host, 40000, time.time())
            assert code_of(await ask(alice, signed(alice, method, nonce=nonce))) == 438
        assert_untouched(service)

    async def test_a_nonce_gets_too_old(self, service, alice, method):
        """Replay: a request that was recorded is good for so long and no longer."""
        for age in (611, 1e6, -590):
            then = time.time() - age
            nonce = Nonces(SECRET.encode(), 600, FEATURES).make("127.0.0.1", 40000, then)
            assert code_of(await ask(alice, signed(alice, method, nonce=nonce))) == 438
        assert_untouched(service)

    async def test_a_nonce_of_another_relay_is_stale(self, service, alice, method):
        """Another secret, and the public texts that somebody might have taken for one."""
        for key in (b"another secret of sixteen", b"", b"icebroker", bytes(32)):
            nonce = Nonces(key, 600, FEATURES).make("127.0.0.1", 40000, time.time())
            assert code_of(await ask(alice, signed(alice, method, nonce=nonce))) == 438
        assert_untouched(service)


async def test_a_stale_nonce_is_mended_in_one_round_trip(service, alice):
    """438 brings a fresh one; a client that was there all along is not cut off."""
    alice.nonce = Nonces(SECRET.encode(), 600, FEATURES).make("127.0.0.1", 40000, time.time() - 700)
    reply = await alice.request(Method.REFRESH)
    assert code_of(reply) == 438
    alice.nonce = reply.get(registry.NONCE)
    assert code_of(await alice.request(Method.REFRESH)) == 0
