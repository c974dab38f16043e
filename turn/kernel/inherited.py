"""What another process has written into the maps, and died or was replaced: packets go by it still.

A route that is written again finds its ways here and goes on with their meters; what nobody has
asked for when all is written again is cleaned away.
"""

from collections.abc import Mapping

from turn.codec.values import Address
from turn.kernel.bpf import Map
from turn.kernel.layout import INDEX, PORT_WORDS, TUPLE, WAY_END, WORD, Way, named_in
from turn.routes import FiveTuple, Transport

Place = tuple[str, bytes]
"""A map's name and a key."""


class Inherited:
    """The ways that are there, by their place."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._maps = maps
        self._ways: dict[Place, tuple[int, int, int]] = {}
        for family in (4, 6):
            for name in (f"ways{family}", f"names{family}"):
                for key, value in maps[name].items():
                    meter, behind, ahead, _ = WAY_END[family].unpack_from(value, TUPLE[family].size)
                    self._ways[name, key] = meter, behind, ahead
        self.numbers = {meter // 2 for meter, _, _ in self._ways.values()}
        """Of the routes."""
        self.hops = {hop for _, *hops in self._ways.values() for hop in hops if hop}
        """Places of the next hops that they use."""
        self.ports = {
            index: int.from_bytes(maps["ports"].get(INDEX.pack(index)) or b"", "little")
            for index in range(PORT_WORDS)
        }
        """The words of the ports that are listened on."""

    def named(self) -> list[tuple[FiveTuple, Address]]:
        """Clients and the peers that their Send indications may name."""
        found = [named_in(key) for name, key in self._ways if name.startswith("names")]
        return [(FiveTuple(Transport.UDP, client, server), peer) for client, server, peer in found]

    def has(self, ways: tuple[Way, Way]) -> bool:
        """Whether packets go by one of these."""
        return bool(self._ways) and any((way.map, way.key()) in self._ways for way in ways)

    def take(self, ways: tuple[Way, Way]) -> int | None:
        """The number of a route that has both these ways. They are no longer inherited."""
        if not self._ways:
            return None
        one, other = (self._ways.pop((way.map, way.key()), None) for way in ways)
        if one is None or other is None or other[0] != one[0] + 1 or one[0] % 2:
            return None
        self.numbers.discard(one[0] // 2)
        return one[0] // 2

    def clean(self) -> None:
        """Take out of the maps what nobody has asked for."""
        for name, key in self._ways:
            self._maps[name].delete(key)
        for index, word in self.ports.items():
            if word:
                self._maps["ports"].update(INDEX.pack(index), WORD.pack(word))
        self._ways.clear()
