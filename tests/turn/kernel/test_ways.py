"""The table of ways: what is written there the program finds, wherever it is, and nothing else."""

from collections.abc import Iterator

import pytest

from turn.codec.indication import data_indication_header
from turn.codec.values import Address
from turn.kernel import bpf
from turn.kernel.inherited import Inherited
from turn.kernel.layout import BUCKET, HOP, INDEX, MOST_WAYS, PORTS_PER_WORD, ROW, WORD, Way
from turn.kernel.program import Program, load
from turn.kernel.selftest import FAMILIES, LABEL, NEVER, PAYLOAD, Sides, frame
from turn.kernel.ways import RECENT, Table, Ways
from turn.routes import Carried, FiveTuple, Transport

REDIRECT = 7
"""TC_ACT_REDIRECT"""
UP = -1
LOST = 2
"""TC_ACT_SHOT"""
LOOPBACK = 1
MAC = bytes(6)
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
    yield program
    program.close()


@pytest.fixture(name="ways")
def ways_fixture(program: Program) -> Iterator[Ways]:
    ways = Ways(program.maps)
    yield ways
    for table, number, _ in ways.all():
        table.free(number)
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


def write(table: Table, way: Way, expires: float = NEVER) -> int | None:
    return table.write(way, (1, 1), expires, (), LABEL)


def take(table: Table, number: int) -> None:
    """Have something else be at a place."""
    table.free(number)
    table._recent.clear()
    table._words[number * table._parts.size + table._parts.ports] = (1 << 64) - 1


@pytest.mark.parametrize("sides", FAMILIES, ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("kind", ["channel", "send", "peer", "data"])
def test_a_way_is_found_at_each_of_its_places_and_nowhere_else(program, ways, sides, kind):
    way, packet = of(sides)[kind]
    table, places = ways.of(way.family), []
    while (number := write(table, way)) is not None:
        assert verdict(program, packet) == REDIRECT
        assert table.read(number) == (1, len(PAYLOAD), 0)
        take(table, number)
        assert verdict(program, packet) == UP
        places.append(number)
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
        number = write(table, way)
        assert number is not None
        at = number * 8 * table._parts.size
        start, end = at, at + 8 * table._parts.size
        table._memory[start:end] = different.value(1, 1, 1 << 62, b"", LABEL)
        assert verdict(program, packet) == UP
        table._memory[start:end] = way.value(1, 1, 1 << 62, b"", LABEL)
        assert verdict(program, packet) == REDIRECT
        table.free(number)


def test_a_way_ends_when_it_should(program, ways):
    way, packet = of(FAMILIES[0])["channel"]
    table = ways.of(4)
    number = write(table, way, expires=0.0)
    assert verdict(program, packet) == UP
    table.move(number, NEVER)
    assert verdict(program, packet) == REDIRECT
    table.lead(number, (0, 1))
    assert verdict(program, packet) == UP
    table.lead(number, (1, 1))
    program.maps["buckets"].update(INDEX.pack(7), BUCKET.pack(1 << 62, 0, 1, 0))  # it is empty
    table.limit(number, (7,))
    table.lead(number, (1, 1))
    assert verdict(program, packet) == LOST
    table.limit(number, ())
    assert verdict(program, packet) == REDIRECT
    table.free(number)
    assert verdict(program, packet) == UP


def test_a_place_rests_when_its_way_has_ended(ways):
    way, _ = of(FAMILIES[0])["peer"]
    table, numbers = ways.of(4), []
    for _ in range(4 * ROW):
        numbers.append(write(table, way))
        table.free(numbers[-1])
    # Eight others were in use before it is again.
    assert len(set(numbers[: 2 * ROW])) == 2 * ROW
    assert numbers[2 * ROW :] == numbers[: 2 * ROW]
    for port in range(2 * RECENT):
        table.free(write(table, way._replace(source=Address("192.0.2.9", 1 + port))))
    assert len(table._recent) == RECENT


def test_a_table_that_is_two_fifths_full_has_a_place_for_everyone(ways):
    """And the first ten thousand lie where the program looks first."""
    way, _ = of(FAMILIES[0])["peer"]
    table, first, count = ways.of(4), 0, MOST_WAYS[4] * 2 // 5
    for index in range(count):
        source = Address(f"198.51.{index >> 12}.1", 1 + (index & 4095))
        number = write(table, way._replace(source=source))
        assert number is not None
        if index < 10_000:
            first += number % ROW == 0
    assert first > 8000
    assert len(list(table.all())) == count


@pytest.mark.parametrize("sides", FAMILIES, ids=["IPv4", "IPv6"])
def test_another_process_goes_on_with_what_it_finds(program, ways, sides):
    both, ports = of(sides), program.maps["ports"]
    (send, sent), (data, _) = both["send"], both["data"]
    table = ways.of(send.family)
    numbers = [table.write(way, (3, 4), NEVER, (5, 6), b"drawn before") for way in (send, data)]
    found = Inherited(ways, ports)
    assert (found.hops, found.buckets) == ({3, 4}, {5, 6})
    assert found.named() == [(FiveTuple(Transport.UDP, *sides[:2]), sides.peer)]
    assert found.has((send, data))
    assert not found.has((both["channel"][0],) * 2)
    assert [found.take(way) for way in (send, data)] == numbers
    assert not found.has((send, data))
    assert found.take(send) is None
    # What goes elsewhere now ends, and so does what nobody asks for.
    found = Inherited(ways, ports)
    assert found.take(data._replace(new_destination=sides.peer)) is None
    table.lead(numbers[0], (1, 1))
    table.limit(numbers[0], ())
    assert verdict(program, sent) == REDIRECT
    assert found.clean() == Carried(1, len(PAYLOAD), 0, 0, 0)
    assert not list(table.all())
    assert ports.get(INDEX.pack(FAMILIES[0].server.port // PORTS_PER_WORD)) != bytes(8)
