"""Hypothesis strategies for STUN messages: any attribute with any value that it may have."""

import socket
from typing import Any

from hypothesis import strategies as st

from turn.codec import registry
from turn.codec.integrity import Integrity
from turn.codec.registry import Attribute, MessageClass
from turn.codec.values import Address, AddressError, Algorithm, Icmp

ports = st.integers(0, 0xFFFF)
# Words that make runs of zeros and embedded IPv4 addresses likely.
words = st.sampled_from([0, 0, 0, 1, 0xFFFF]) | st.integers(0, 0xFFFF)
packed_ipv6 = st.lists(words, min_size=8, max_size=8).map(
    lambda eight: b"".join(word.to_bytes(2) for word in eight)
)
ipv4_hosts = st.ip_addresses(v=4).map(str)
ipv6_hosts = packed_ipv6.map(lambda packed: socket.inet_ntop(socket.AF_INET6, packed))
addresses = st.builds(Address, ipv4_hosts | ipv6_hosts, ports)


def text(most_characters: int, most_bytes: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=most_characters).filter(
        lambda value: len(value.encode()) <= most_bytes
    )


def octets(most: int = 40, least: int = 0) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=least, max_size=most)


def number(size: int) -> st.SearchStrategy[int]:
    return st.integers(0, 256**size - 1)


quoted = text(127, 509)
error_codes = st.integers(300, 699)
algorithms = st.builds(Algorithm, number(2), octets(9))

VALUES: dict[Attribute[Any], st.SearchStrategy[Any]] = {
    registry.MAPPED_ADDRESS: addresses,
    registry.USERNAME: text(508, 508),
    registry.ERROR_CODE: st.tuples(error_codes, quoted),
    registry.UNKNOWN_ATTRIBUTES: st.lists(number(2), max_size=9).map(tuple),
    registry.REALM: quoted,
    registry.NONCE: quoted,
    registry.PASSWORD_ALGORITHM: algorithms,
    registry.USERHASH: octets(32, 32),
    registry.XOR_MAPPED_ADDRESS: addresses,
    registry.PASSWORD_ALGORITHMS: st.lists(algorithms, max_size=4).map(tuple),
    registry.ALTERNATE_DOMAIN: text(255, 255),
    registry.SOFTWARE: quoted,
    registry.ALTERNATE_SERVER: addresses,
    registry.CHANNEL_NUMBER: number(2),
    registry.LIFETIME: number(4),
    registry.XOR_PEER_ADDRESS: addresses,
    registry.DATA: octets(300),
    registry.XOR_RELAYED_ADDRESS: addresses,
    registry.REQUESTED_ADDRESS_FAMILY: number(1),
    registry.EVEN_PORT: st.booleans(),
    registry.REQUESTED_TRANSPORT: number(1),
    registry.DONT_FRAGMENT: st.just(True),
    registry.RESERVATION_TOKEN: octets(8, 8),
    registry.ADDITIONAL_ADDRESS_FAMILY: number(1),
    registry.ADDRESS_ERROR_CODE: st.builds(AddressError, number(1), error_codes, quoted),
    registry.ICMP: st.builds(Icmp, st.integers(0, 127), st.integers(0, 511), number(4)),
    registry.PRIORITY: number(4),
    registry.USE_CANDIDATE: st.just(True),
    registry.ICE_CONTROLLED: number(8),
    registry.ICE_CONTROLLING: number(8),
    registry.CHANGE_REQUEST: number(4),
    registry.PADDING: octets(),
    registry.RESPONSE_PORT: number(2),
    registry.CACHE_TIMEOUT: number(4),
    registry.RESPONSE_ORIGIN: addresses,
    registry.OTHER_ADDRESS: addresses,
    registry.CONNECTION_ID: number(4),
    registry.ACCESS_TOKEN: octets(),
    registry.THIRD_PARTY_AUTHORIZATION: quoted,
    registry.MOBILITY_TICKET: octets(),
}
"""All but the three that protect a message: ``build`` adds those itself."""

transaction_ids = octets(12, 12)
methods = st.integers(0, 0xFFF)
stream_methods = st.integers(0, 0xFF)
"""Those whose first byte is STUN's by RFC 7983; no others will be given out (RFC 8489 §18.1)."""
classes = st.sampled_from(MessageClass)
pairs = st.sampled_from(list(VALUES)).flatmap(
    lambda attribute: st.tuples(st.just(attribute), VALUES[attribute])
)
attribute_lists = st.lists(pairs, max_size=8)
protections = st.fixed_dictionaries(
    {
        "key": octets(64),
        "integrity": st.sampled_from(Integrity),
        "fingerprint": st.booleans(),
    }
)
