"""Clients are sent elsewhere where there is no room for them (RFC 8489 §10)."""

import pytest

from tests.turn.world import SERVER, World, code_of
from turn.allocation.alternates import Alternates
from turn.allocation.model import Limits
from turn.allocation.options import Options
from turn.codec import registry
from turn.codec.integrity import Integrity
from turn.codec.message import Message
from turn.codec.registry import Method
from turn.codec.values import Address
from turn.routes import Transport

PLAIN = [Address("203.0.113.1", 3478), Address("203.0.113.2", 3478), Address("2001:db8::1", 3478)]
SECURE = [Address("203.0.113.3", 5349)]


def world(*, always: bool = False, limits: Limits | None = None, domain: str = "") -> World:
    alternates = Alternates(PLAIN, SECURE, domain, always=always)
    return World(limits=limits or Limits(), options=Options(alternates=alternates))


def place_of(reply: Message) -> Address | None:
    """Where a client is sent; it must be told by who holds its password."""
    assert code_of(reply) == 300
    assert reply.integrity is not Integrity.NONE
    return reply.get(registry.ALTERNATE_SERVER)


def test_every_client_is_sent_away_by_turns() -> None:
    here = world(always=True)
    places = [place_of(here.client().allocate()) for _ in range(4)]
    assert places[:2] == places[2:]
    assert set(places) == set(PLAIN[:2])


@pytest.mark.parametrize(
    ("transport", "host", "places"),
    [
        (Transport.UDP, "192.0.2.7", PLAIN[:2]),
        (Transport.TCP, "2001:db8::7", PLAIN[2:]),
        (Transport.TLS, "192.0.2.7", SECURE),
        (Transport.DTLS, "192.0.2.7", SECURE),
    ],
)
def test_the_place_is_of_the_clients_family_and_kind(
    transport: Transport, host: str, places: list[Address]
) -> None:
    reply = world(always=True).client(host=host, transport=transport).allocate()
    assert place_of(reply) in places


def test_the_name_goes_with_certificates_alone() -> None:
    here = world(always=True, domain="turn.example.org")
    secure = here.client(transport=Transport.TLS).allocate()
    assert secure.get(registry.ALTERNATE_DOMAIN) == "turn.example.org"
    assert here.client().allocate().get(registry.ALTERNATE_DOMAIN) is None


def test_where_no_place_fits_there_is_no_room() -> None:
    client = world(always=True).client(host="2001:db8::7", transport=Transport.TLS)
    assert code_of(client.allocate()) == 508


def test_a_stranger_learns_of_no_other_server() -> None:
    reply = world(always=True).client(password="wrong").allocate()
    assert code_of(reply) == 401
    assert reply.get(registry.ALTERNATE_SERVER) is None


def test_while_draining_new_ones_go_elsewhere_and_old_ones_stay() -> None:
    here = world()
    old = here.client()
    assert code_of(old.allocate()) == 0
    here.engine.draining = True
    place_of(here.client().allocate())
    assert code_of(old.refresh()) == 0


def test_those_beyond_the_limit_go_elsewhere() -> None:
    here = world(limits=Limits(allocations=1))
    assert code_of(here.client().allocate()) == 0
    place_of(here.client().allocate())


def test_those_without_a_port_go_elsewhere() -> None:
    here = world()
    here.opener.free.clear()
    place_of(here.client().allocate())


def test_a_users_own_share_is_no_reason_to_go_elsewhere() -> None:
    here = world(limits=Limits(allocations_per_user=1))
    assert code_of(here.client().allocate()) == 0
    assert code_of(here.client().allocate()) == 486


def test_a_reserved_port_is_here_or_nowhere() -> None:
    client = world().client()
    assert code_of(client.allocate((registry.RESERVATION_TOKEN, bytes(8)))) == 508


def test_without_other_servers_there_is_no_room() -> None:
    here = World(limits=Limits(allocations=1))
    here.client().allocate()
    assert code_of(here.client().allocate()) == 508


@pytest.mark.parametrize("public_of", [{}, {SERVER.host: "203.0.113.77"}], ids=["itself", "NAT"])
def test_nobody_is_sent_to_where_it_is(public_of: dict[str, str]) -> None:
    """All relays may have one list, each of them among the others; a client would go round."""
    here = Address(public_of.get(SERVER.host, SERVER.host), SERVER.port)
    alternates = Alternates([here, *PLAIN], [], always=True, public_of=public_of)
    relay = World(options=Options(alternates=alternates))
    places = {place_of(relay.client().allocate()) for _ in range(6)}
    assert places == set(PLAIN[:2])
    alone = Alternates([here], [], always=True, public_of=public_of)
    assert code_of(World(options=Options(alternates=alone)).client().allocate()) == 508


@pytest.mark.parametrize(("mobility", "code"), [(True, 400), (False, 405)])
def test_a_ticket_of_another_relay_is_no_reason_to_go_elsewhere(mobility: bool, code: int) -> None:
    """It may be the other one's, but who comes with it begins anew (RFC 8016 §3.2.2)."""
    alternates = Alternates(PLAIN, SECURE, always=True)
    there = World(options=Options(mobility=True))
    here = World(options=Options(mobility=mobility, alternates=alternates))
    reply = there.client().allocate((registry.MOBILITY_TICKET, b""))
    shown = (registry.MOBILITY_TICKET, reply.get(registry.MOBILITY_TICKET))
    refused = here.client().request(Method.REFRESH, shown)
    assert code_of(refused) == code
    assert refused.get(registry.ALTERNATE_SERVER) is None
