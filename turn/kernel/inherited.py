"""What another process has written into the maps, and died or was replaced: packets go by it still.

A way that is written again is found here and goes on, with what it has counted; what nobody has
asked for when all is written again is cleaned away.
"""

from turn.codec.values import Address
from turn.kernel.bpf import Map
from turn.kernel.layout import INDEX, PORT_WORDS, WORD, Found, Way
from turn.kernel.ways import Place, Table, Ways
from turn.routes import NOTHING, Carried, FiveTuple, Transport


class Inherited:
    """The ways that are there, by their keys."""

    def __init__(self, ways: Ways, ports: Map) -> None:
        self._ports = ports
        self._ways: dict[bytes, tuple[Table, Place, Found]] = {}
        self.hops: set[int] = set()
        """Places of the next hops that they use."""
        self.buckets: set[int] = set()
        """Places of the token buckets that they use."""
        for table, place, found in ways.all():
            self._ways[found.key] = table, place, found
            self.hops |= {found.behind, found.ahead} - {0}
            self.buckets |= found.buckets
        self.ports = {
            index: int.from_bytes(ports.get(INDEX.pack(index)) or b"", "little")
            for index in range(PORT_WORDS)
        }
        """The words of the ports that are listened on."""

    def __bool__(self) -> bool:
        """Whether there is anything left."""
        return bool(self._ways)

    def named(self) -> list[tuple[FiveTuple, Address]]:
        """Clients and the peers that their Send indications may name."""
        found = [way.named for _, _, way in self._ways.values() if way.named]
        return [(FiveTuple(Transport.UDP, client, server), peer) for client, server, peer in found]

    def has(self, ways: tuple[Way, Way]) -> bool:
        """Whether packets go by one of these."""
        return any(way.key() in self._ways for way in ways)

    def take(self, way: Way) -> Place | None:
        """Where a way is, no longer inherited; None: it is not there, or now is another."""
        found = self._ways.pop(way.key(), None) if self._ways else None
        if found is None:
            return None
        table, place, _ = found
        if way.is_in(table.value(place.number)):
            return place
        table.free(place)
        return None

    def clean(self) -> Carried:
        """Take out of the maps what nobody has asked for; gives what went by it."""
        total = NOTHING
        for table, place, found in self._ways.values():
            table.free(place)
            packets, size, spoiled = table.read(place)
            sent, received = (packets, size), (0, 0)
            if not found.is_from_client:
                sent, received = received, sent
            total = total.plus(Carried(*sent, *received, spoiled))
        for index, word in self.ports.items():
            if word:
                self._ports.update(INDEX.pack(index), WORD.pack(word))
        self._ways.clear()
        return total
