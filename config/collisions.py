"""A TCP port that two listeners of one process want: whichever begins later could not start."""

from collections.abc import Collection, Iterator
from itertools import combinations
from typing import NamedTuple

from config.schema import Settings
from config.section import Problem
from config.values import Endpoint

TCP_KEYS = {
    "turn": ("listen", "listen_tcp", "listen_tls"),
    "signaling": ("listen",),
    "admin": ("listen",),
}
"""What is listened on for TCP, in the order of the start; a service shares with nobody."""
UDP_ALONE = "write turn.listen_udp where only UDP is meant there"
APART = "or run and check the services by themselves (--only) where each has a machine of its own"


class _Place(NamedTuple):
    section: str
    key: str
    endpoint: Endpoint

    def __str__(self) -> str:
        return f"{self.section}.{self.key}"


def collisions(settings: Settings, services: Collection[str]) -> list[tuple[str, Problem]]:
    """The problems of a process with these services, each with its section."""
    pairs = combinations(_places(settings, services), 2)
    return [
        _problem(settings, first, second)
        for first, second in pairs
        if first.section != second.section and first.endpoint.meets(second.endpoint)
    ]


def _places(settings: Settings, services: Collection[str]) -> Iterator[_Place]:
    for section, keys in TCP_KEYS.items():
        if section not in {*services, "admin"}:
            continue
        for key in keys:
            value = getattr(getattr(settings, section), key)
            endpoints = [value] if isinstance(value, Endpoint) else value
            yield from (_Place(section, key, endpoint) for endpoint in endpoints)


def _problem(settings: Settings, first: _Place, second: _Place) -> tuple[str, Problem]:
    """Told where an operator has written something: a default has no line."""
    if second.key in getattr(settings, second.section).model_fields_set:
        first, second = second, first
    advice = ["give one of them another port or address"]
    if "turn.listen" in {str(first), str(second)}:
        advice.append(UDP_ALONE)
    if "admin" not in {first.section, second.section}:
        advice.append(APART)
    text = f"{first.endpoint} meets {second} ({second.endpoint}) over TCP; {', '.join(advice)}"
    return first.section, Problem(first.key, text)
