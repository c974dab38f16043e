"""The table of ways: what is written there the program finds, wherever it is, and nothing else."""

from collections.abc import Iterator

import pytest

from turn.codec.indication import data_indication_header
from turn.codec.values import Address
from turn.kernel import bpf
from turn.kernel.inherited import Inherited
from turn.kernel.layout import (
    BUCKET,
    HOP,
    INDEX,
    LEAST_PLACES,
    MOST_WAYS,
    PORTS_PER_WORD,
    ROW,
    SEED,
    WORD,
    Way,
)
from turn.kernel.program import Program, load
from turn.kernel.selftest import FAMILIES, LABEL, NEVER, PAYLOAD, Sides, frame
from turn.kernel.ways import RECENT, Place, Table, Ways, _is_of
from turn.routes import Carried, FiveTuple, Transport

REDIRECT = 7
"""TC_ACT_REDIRECT"""
UP = -1
LOST = 2
"""TC_ACT_SHOT"""
LOOPBACK = 1
MAC = bytes(6)
SECRET = bytes(range(1, 192, 3))
CHANNEL = 0x4000
CHANNEL_DATA = CHANNEL.to_bytes(2, "big") + len(PAYLOAD).to_bytes(2, "big") + PAYLOAD


@pytest.fixture(name="program", scope="module")
def program_fixture(need_kernel: None) -> Iterator[Program]:
    """The program and its maps; at no device, but frames can be shown to it."""
    program = load()
    hop = HOP.pack(LOOPBACK, 1500, MAC, MAC, 0)
    program.maps["hops"].update(INDEX.pack(1), hop)
    word, bit = divmod(FAMILIES[0].server.port, PORTS_PER_WORD)
    program.maps["ports"].update(INDEX.pack(word), WORD.pack(1 << bit))
    # Always the same, as chance has it where a table is too full.
    program.maps["seeds"].update(INDEX.pack(0), SEED.pack(SECRET, LEAST_PLACES, LEAST_PLACES))
    yield program
    program.close()


@pytest.fixture(name="ways")
def ways_fixture(program: Program) -> Iterator[Ways]:
    ways = Ways(program.maps)
    yield ways
    for table, place, _ in ways.all():
        table.free(place)
    ways.close()


def verdict(program: Program, shown: bytes) -> int:
    """What the program says to a frame."""
    given, made = bytearray(shown), bytearray(len(shown) + 256)
    fields = (program.fd, 0, len(given), len(made), bpf.address_of(given), bpf.address_of(made))
    room = bpf._attribute(bpf.OF_TEST.pack(*fields, 1, 0, *[0] * 7))
    bpf._system_call(bpf.TEST_RUN, "asking the program", room)
    said = int(bpf.OF_TEST.unpack_from(room.raw)[1])
    return said - (1 << 32) if said >> 31 else said


def of(sides: Sides) -> dict[str, tuple[Way, bytes]]:
    """A way of each kind, and a packet that goes there."""
    client, server, relayed, peer = sides
    head = bytearray(data_indication_header(b"of a client ", peer))
    head[:2] = b"\0\x16"  # Send
    head[2:4] = (len(head) - 20 + len(PAYLOAD) + (-len(PAYLOAD) & 3)).to_bytes(2, "big")
    head[-2:] = len(PAYLOAD).to_bytes(2, "big")
    send = bytes(head) + PAYLOAD + bytes(-len(PAYLOAD) & 3)
    return {
        "channel": (
            Way(client, server, relayed, peer, channel_in=CHANNEL),
            frame(MAC, client, server, CHANNEL_DATA, 64),
        ),
        "send": (
            Way(client, server, relayed, peer, named=peer),
            frame(MAC, client, server, send, 64),
        ),
        "peer": (
            Way(peer, relayed, server, client, channel_out=CHANNEL),
            frame(MAC, peer, relayed, PAYLOAD, 64),
        ),
        "data": (
            Way(peer, relayed, server, client, shown=peer),
            frame(MAC, peer, relayed, PAYLOAD, 64),
        ),
    }


def write(table: Table, way: Way, expires: float = NEVER) -> Place | None:
    return table.write(way, (1, 1), expires, (), LABEL)


def take(table: Table, place: Place) -> None:
    """Have something else be at a place."""
    table.free(place)
    table._recent.clear()
    table._words[place.number * table._parts.size + table._parts.ports] = (1 << 64) - 1


@pytest.mark.parametrize("sides", FAMILIES, ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("kind", ["channel", "send", "peer", "data"])
def test_a_way_is_found_at_each_of_its_places_and_nowhere_else(program, ways, sides, kind):
    way, packet = of(sides)[kind]
    table, places = ways.of(way.family), []
    for _ in range(2 * ROW):
        place = write(table, way)
        assert place is not None
        assert verdict(program, packet) == REDIRECT
        assert table.read(place) == (1, len(PAYLOAD), 0)
        take(table, place)
        assert verdict(program, packet) == UP
        places.append(place.number)
    assert len(set(places)) == 2 * ROW
    assert len({number // ROW for number in places}) == 2


@pytest.mark.parametrize("sides", FAMILIES, ids=["IPv4", "IPv6"])
def test_a_way_of_another_is_not_found(program, ways, sides):
    """One that lies where it would be looked for, and differs in one thing."""
    way, packet = of(sides)["send"]
    other = Address(way.source.host, way.source.port + 1)
    for different in (
        way._replace(source=other),
        way._replace(source=Address(way.destination.host, way.source.port)),
        way._replace(destination=Address(way.source.host, way.destination.port)),
        way._replace(destination=Address(way.destination.host, 9)),
        way._replace(named=None, channel_in=CHANNEL),
        way._replace(named=None),
        way._replace(named=Address(sides.peer.host, sides.peer.port + 1)),
        way._replace(named=Address(way.source.host, sides.peer.port)),
    ):
        table = ways.of(way.family)
        place = write(table, way)
        assert place is not None
        table._put(place.number, different.value(1, 1, 1 << 62, b"", LABEL))
        assert verdict(program, packet) == UP
        table._put(place.number, way.value(1, 1, 1 << 62, b"", LABEL))
        assert verdict(program, packet) == REDIRECT
        table.free(place)


def test_a_way_ends_when_it_should(program, ways):
    way, packet = of(FAMILIES[0])["channel"]
    table = ways.of(4)
    place = write(table, way, expires=0.0)
    assert verdict(program, packet) == UP
    table.move(place, NEVER)
    assert verdict(program, packet) == REDIRECT
    table.lead(place, (0, 1))
    assert verdict(program, packet) == UP
    table.lead(place, (1, 1))
    program.maps["buckets"].update(INDEX.pack(7), BUCKET.pack(1 << 62, 0, 1, 0))  # it is empty
    table.limit(place, (7,))
    table.lead(place, (1, 1))
    assert verdict(program, packet) == LOST
    table.limit(place, ())
    assert verdict(program, packet) == REDIRECT
    table.free(place)
    assert verdict(program, packet) == UP


def test_a_place_rests_when_its_way_has_ended(ways):
    way, _ = of(FAMILIES[0])["peer"]
    table, numbers = ways.of(4), []
    for _ in range(4 * ROW):
        place = write(table, way)
        numbers.append(place.number)
        table.free(place)
    # Fifteen others were in use before it is again.
    assert len(set(numbers[: 2 * ROW])) == 2 * ROW
    assert numbers[2 * ROW :] == numbers[: 2 * ROW]
    for port in range(2 * RECENT):
        table.free(write(table, way._replace(source=Address("192.0.2.9", 1 + port))))
    assert len(table._recent) == RECENT


def crowd(count: int) -> Iterator[Address]:
    """So many peers."""
    return (Address(f"198.51.{index >> 12}.1", 1 + (index & 4095)) for index in range(count))


def test_a_table_grows_under_traffic(program, ways):
    """And a way counts on, wherever it is."""
    sides, table = FAMILIES[0], ways.of(4)
    way, _ = of(sides)["peer"]
    places, sizes, most = {}, [table._places_in_use], MOST_WAYS[4] * 3 // 5
    for index, peer in enumerate(crowd(most)):
        places[peer] = write(table, way._replace(source=peer))
        assert places[peer] is not None
        if table._places_in_use not in sizes:
            sizes.append(table._places_in_use)
            asked = list(places)[:: index // 50] + list(places)[-1:]
            for one in asked:
                before = table.read(places[one])[0]
                assert verdict(program, frame(MAC, one, sides.relayed, PAYLOAD, 64)) == REDIRECT
                assert table.read(places[one]) == (before + 1, (before + 1) * len(PAYLOAD), 0)
    assert sizes == [LEAST_PLACES << doublings for doublings in range(len(sizes))]
    assert sizes[-1] == MOST_WAYS[4]
    assert len(list(table.all())) == most
    first = next(iter(places))
    assert table.read(places[first])[0] == len(sizes) - 1
    # Another process finds all of them.
    other = Ways(program.maps)
    assert sum(1 for _ in other.all()) == most
    other.close()


def write_one_that_moves(table, kind):
    """A way of IPv6 that a table twice as large has elsewhere; gives it, its place, a packet."""
    sides, larger = FAMILIES[1], 2 * table._places_in_use
    while True:
        way, packet = of(sides)[kind]
        place = write(table, way)
        if not _is_of(place.hash, place.number, larger):
            return way, place, packet
        table.free(place)
        client, peer = (side._replace(port=side.port + 1) for side in (sides.client, sides.peer))
        sides = sides._replace(client=client, peer=peer)


def test_the_rest_of_a_way_moves_with_it(program, ways):
    table = ways.of(6)
    places = table._places_in_use
    _, place, packet = write_one_that_moves(table, "send")
    assert table._grow()
    assert place.number >= places
    assert verdict(program, packet) == REDIRECT


def test_a_process_that_dies_while_the_table_grows_leaves_nothing_behind(program, ways):
    table = ways.of(6)
    places = table._places_in_use
    way, place, packet = write_one_that_moves(table, "peer")
    # It had copied the way and had not told the program, which goes by the first one.
    table._put(place.number + places, table.value(place.number))
    assert [found.number for found, _ in table.all()] == [place.number]
    table.free(place)
    assert table._grow()
    assert verdict(program, packet) == UP
    # It had told the program, and not taken away the first one.
    place, wrong = write(table, way), 0
    while _is_of(place.hash, wrong, table._places_in_use):
        wrong += ROW
    table._put(wrong, table.value(place.number))
    assert [found.number for found, _ in table.all()] == [place.number]
    assert not table._words[wrong * table._parts.size + table._parts.ports]


@pytest.mark.parametrize("sides", FAMILIES, ids=["IPv4", "IPv6"])
def test_another_process_goes_on_with_what_it_finds(program, ways, sides):
    both, ports = of(sides), program.maps["ports"]
    (send, sent), (data, _) = both["send"], both["data"]
    table = ways.of(send.family)
    for way in (send, data):
        assert table.write(way, (3, 4), NEVER, (5, 6), b"drawn before")
    places = [place for place, _ in table.all()]
    found = Inherited(ways, ports)
    assert (found.hops, found.buckets) == ({3, 4}, {5, 6})
    assert found.named() == [(FiveTuple(Transport.UDP, *sides[:2]), sides.peer)]
    assert found.has((send, data))
    assert not found.has((both["channel"][0],) * 2)
    assert {found.take(way) for way in (send, data)} == set(places)
    assert not found.has((send, data))
    assert found.take(send) is None
    # What goes elsewhere now ends, and so does what nobody asks for.
    found = Inherited(ways, ports)
    assert found.take(data._replace(new_destination=sides.peer)) is None
    (place,) = (place for place, _ in table.all())
    table.lead(place, (1, 1))
    table.limit(place, ())
    assert verdict(program, sent) == REDIRECT
    assert found.clean() == Carried(1, len(PAYLOAD), 0, 0, 0)
    assert not list(table.all())
    assert ports.get(INDEX.pack(FAMILIES[0].server.port // PORTS_PER_WORD)) != bytes(8)
