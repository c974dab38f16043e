"""What the laboratory expects, where everybody knows it."""

import itertools

from tests.natlab.networks import (
    IPV6,
    KINDS,
    NO_UDP,
    OPEN,
    PROXY,
    RESTRICTED,
    SYMMETRIC,
    Kind,
    direct,
    expected,
)


def test_who_meets_without_a_relay():
    pairs = itertools.combinations_with_replacement(KINDS, 2)
    assert {pair for pair in pairs if direct(*pair)} == {
        (OPEN, OPEN),
        (OPEN, RESTRICTED),
        (OPEN, SYMMETRIC),
        (OPEN, IPV6),
        (RESTRICTED, RESTRICTED),
        (IPV6, IPV6),
    }


def test_a_relay_is_reached_by_the_best_way_that_is_open():
    assert ways(NO_UDP, OPEN) == (["tcp"], ["direct"])
    assert ways(PROXY, RESTRICTED) == (["tls"], ["direct"])
    assert ways(NO_UDP, PROXY) == (["tcp"], ["tls"])
    # The one has no IPv4 address to be reached at, so that the other's relay is of no use to it.
    assert ways(SYMMETRIC, IPV6) == (["direct"], ["udp"])
    assert ways(NO_UDP, IPV6) == (["tcp"], ["udp"])
    # Either one's relay will do.
    assert ways(RESTRICTED, SYMMETRIC) == (["direct", "udp"],) * 2


def ways(one: Kind, other: Kind) -> tuple[list[str], list[str]]:
    must = expected(one, other)
    return sorted(must.one), sorted(must.other)
