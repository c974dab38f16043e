"""Which address and port a relay gets: in range, free, not to be foretold, and given back."""

import asyncio
import itertools
import socket

import pytest

from turn.allocation.model import NoPort
from turn.codec.values import Address, Family
from turn.relay.forward import Forwarder
from turn.relay.poll import Poller
from turn.relay.ports import RelayPorts, random_below
from turn.relay.sockets import RelaySocket
from turn.stats import Stats

LOCAL = {Family.IPV4: ["127.0.0.1", "127.0.0.2"], Family.IPV6: ["::1"]}
RANGE = (21000, 21099)


class Ports(RelayPorts):
    """Keeps what it opened, so that all can be closed."""

    def __init__(self, *args):
        super().__init__(*args)
        self.opened: list[RelaySocket] = []

    def open(self, family, server, *, even):
        self.opened.append(super().open(family, server, even=even))
        return self.opened[-1]

    def open_pair(self, family, server):
        pair = super().open_pair(family, server)
        self.opened += pair
        return pair


@pytest.fixture
async def make():
    """Makes ports; what they opened is closed in the end."""
    loop, poller = asyncio.get_running_loop(), Poller()
    forwarder = Forwarder(Stats(), lambda *_: None)
    poller.start(loop)
    made: list[Ports] = []

    def make(ports=RANGE, addresses=LOCAL, public_of=None, random_below=random_below):
        both = (poller, forwarder)
        made.append(Ports(ports, addresses, public_of or {}, both, random_below))
        return made[-1]

    yield make
    for ports in made:
        for relay in ports.opened:
            relay.close()
    poller.stop(loop)


def taken(port, host="127.0.0.1"):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, port))
    return sock


@pytest.mark.parametrize("family", list(Family))
async def test_a_port_of_the_range_on_an_address_of_the_family(make, family):
    ports = make()
    relay = ports.open(family, "", even=False)
    assert relay.address.host == LOCAL[family][0]
    assert relay.public == relay.address
    assert RANGE[0] <= relay.address.port <= RANGE[1]
    assert ports.in_use == 1


async def test_it_relays_from_where_it_was_asked_if_it_can(make):
    ports = make()
    assert ports.open(Family.IPV4, "127.0.0.2", even=False).address.host == "127.0.0.2"
    assert ports.open(Family.IPV4, "192.0.2.1", even=False).address.host == "127.0.0.1"
    assert ports.open(Family.IPV6, "127.0.0.2", even=False).address.host == "::1"


async def test_behind_nat_clients_are_told_the_public_address(make):
    ports = make(public_of={"127.0.0.1": "203.0.113.7"})
    relay = ports.open(Family.IPV4, "", even=False)
    assert relay.address == Address("127.0.0.1", relay.address.port)
    assert relay.public == Address("203.0.113.7", relay.address.port)
    relay.close()
    assert ports.in_use == 0


async def test_every_port_of_the_range_is_had_once_and_then_none(make):
    ports = make(ports=(21100, 21119))
    relays = [ports.open(Family.IPV4, "", even=False) for _ in range(20)]
    assert {relay.address.port for relay in relays} == set(range(21100, 21120))
    with pytest.raises(NoPort):
        ports.open(Family.IPV4, "", even=False)
    assert ports.open(Family.IPV4, "127.0.0.2", even=False)  # each address has ports of its own
    assert (ports.size, ports.free) == (20, 0)
    relays[7].close()
    assert ports.free == 1
    assert ports.open(Family.IPV4, "", even=False).address == relays[7].address
    assert ports.in_use == 21


@pytest.mark.parametrize("first", [21120, 21121])
async def test_even_ports(make, first):
    ports = make(ports=(first, first + 8))
    even = [port for port in range(first, first + 9) if port % 2 == 0]
    found = [ports.open(Family.IPV4, "", even=True).address.port for _ in even]
    assert sorted(found) == even
    with pytest.raises(NoPort):
        ports.open(Family.IPV4, "", even=True)


@pytest.mark.parametrize("first", [21140, 21141])
async def test_a_pair_is_an_even_port_and_the_next_one(make, first):
    last = first + 8
    ports = make(ports=(first, last))
    pairs = [port for port in range(first, last) if port % 2 == 0 and port + 1 <= last]
    found = [ports.open_pair(Family.IPV4, "") for _ in pairs]
    assert sorted(one.address.port for one, _ in found) == pairs
    assert all(two.address.port == one.address.port + 1 for one, two in found)
    with pytest.raises(NoPort):
        ports.open_pair(Family.IPV4, "")
    assert ports.in_use == 2 * len(pairs)


async def test_ports_of_other_programs_are_passed_over(make):
    ports = make(ports=(21160, 21163))
    with taken(21160), taken(21163):
        found = {ports.open(Family.IPV4, "", even=False).address.port for _ in range(2)}
        assert found == {21161, 21162}
        with pytest.raises(NoPort):
            ports.open(Family.IPV4, "", even=False)


async def test_a_pair_whose_second_port_is_taken_leaves_the_first_one_free(make):
    ports = make(ports=(21170, 21173))
    with taken(21171):
        one, two = ports.open_pair(Family.IPV4, "")
        assert (one.address.port, two.address.port) == (21172, 21173)
        with pytest.raises(NoPort):
            ports.open_pair(Family.IPV4, "")
        assert ports.open(Family.IPV4, "", even=False).address.port == 21170


async def test_an_address_that_is_gone_is_no_port(make):
    ports = make(addresses={Family.IPV4: ["192.0.2.1"], Family.IPV6: []})
    for open_ in (lambda: ports.open(Family.IPV4, "", even=False),
                  lambda: ports.open_pair(Family.IPV4, "")):  # fmt: skip
        with pytest.raises(NoPort):
            open_()
    assert ports.in_use == 0


async def test_no_descriptors_left_is_no_port(make, monkeypatch):
    ports = make()

    def none_left(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socket", none_left)
    for open_ in (lambda: ports.open(Family.IPV4, "", even=False),
                  lambda: ports.open_pair(Family.IPV4, "")):  # fmt: skip
        with pytest.raises(NoPort):
            open_()
    assert ports.in_use == 0


async def test_descriptors_that_end_in_the_middle_of_a_pair_leave_nothing_open(make, monkeypatch):
    """A ResourceWarning of a socket that was let go of would fail this test."""
    ports, real, left = make(), socket.socket, [1]

    def one_left(*args):
        if not left:
            raise OSError(24, "Too many open files")
        left.pop()
        return real(*args)

    monkeypatch.setattr(socket, "socket", one_left)
    with pytest.raises(NoPort):
        ports.open_pair(Family.IPV4, "")
    assert ports.in_use == 0


async def test_families_follow_the_addresses(make):
    ports = make(addresses={Family.IPV4: ["127.0.0.1"], Family.IPV6: []})
    assert ports.families == {Family.IPV4}
    old = ports.open(Family.IPV4, "", even=False)
    ports.set_addresses({Family.IPV4: ["127.0.0.2"], Family.IPV6: ["::1"]})
    assert ports.families == set(Family)
    assert ports.open(Family.IPV4, "127.0.0.1", even=False).address.host == "127.0.0.2"
    assert ports.in_use == 2
    old.close()
    assert ports.in_use == 1


async def test_the_port_is_what_chance_says_and_follows_from_no_other(make):
    """An attacker who allocates next to a victim must not know the victim's port."""
    asked = []

    def chance(below):
        asked.append(below)
        return 42

    assert make(random_below=chance).open(Family.IPV4, "", even=False).address.port == 21042
    assert set(asked) == {100}
    ports = make(ports=(22000, 29999))
    found = [ports.open(Family.IPV4, "", even=False).address.port for _ in range(64)]
    steps = {after - before for before, after in itertools.pairwise(found)}
    assert len(steps) > 50
    assert max(found) - min(found) > 4000


async def test_nobody_else_listens_at_a_relayed_address_for_tcp(make):
    """Neither another worker nor another relay of this user: both may try the same port."""
    one, other = make(ports=(21042, 21042)), make(ports=(21042, 21042))
    relay = one.open_tcp(Family.IPV4, "")
    with pytest.raises(NoPort):
        other.open_tcp(Family.IPV4, "")
    relay.close()
    other.open_tcp(Family.IPV4, "").close()
