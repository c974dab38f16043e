"""The value parsers: what operators write, what it means, and what is said of a mistake."""

import contextlib
import re
from datetime import date
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import values
from config.turn import TurnSettings
from config.values import Endpoint, ExternalAddress, PortRange, StunServer

GOOD = [
    (values.parse_endpoint, "0.0.0.0:3478", Endpoint("0.0.0.0", 3478)),
    (values.parse_endpoint, " 127.0.0.1:0 ", Endpoint("127.0.0.1", 0)),
    (values.parse_endpoint, "[::]:3478", Endpoint("::", 3478)),
    (values.parse_endpoint, "[2001:DB8:0::1]:65535", Endpoint("2001:db8::1", 65535)),
    (values.parse_endpoint, Endpoint("::1", 1), Endpoint("::1", 1)),
    (values.parse_network, "10.0.0.0/8", ip_network("10.0.0.0/8")),
    (values.parse_network, "192.0.2.1", ip_network("192.0.2.1/32")),
    (values.parse_network, "2001:db8::/32", ip_network("2001:db8::/32")),
    (values.parse_network, "::1", ip_network("::1/128")),
    (values.parse_network, "0.0.0.0/0", ip_network("0.0.0.0/0")),
    (values.parse_network, ip_network("::/0"), ip_network("::/0")),
    (values.parse_port_range, "49152-65535", PortRange(49152, 65535)),
    (values.parse_port_range, " 1024 - 1024 ", PortRange(1024, 1024)),
    (values.parse_port_range, PortRange(2000, 3000), PortRange(2000, 3000)),
    (values.parse_address, "192.0.2.1", "192.0.2.1"),
    (values.parse_address, "2001:DB8::0:1", "2001:db8::1"),
    (values.parse_external, "203.0.113.7", ExternalAddress("203.0.113.7", "")),
    (values.parse_external, "203.0.113.7/10.0.0.5", ExternalAddress("203.0.113.7", "10.0.0.5")),
    (values.parse_external, "2001:DB8::1", ExternalAddress("2001:db8::1", "")),
    (values.parse_external, ExternalAddress("a", "b"), ExternalAddress("a", "b")),
    (values.parse_external, "stun:stun.example.org", StunServer("stun.example.org", 3478)),
    (values.parse_external, "STUN:192.0.2.1:19302", StunServer("192.0.2.1", 19302)),
    (values.parse_external, "stun:[2001:DB8::1]", StunServer("2001:db8::1", 3478)),
    (values.parse_external, "stun:[2001:db8::1]:5", StunServer("2001:db8::1", 5)),
    (values.parse_external, StunServer("a", 1), StunServer("a", 1)),
    (values.parse_duration, 0, 0.0),
    (values.parse_duration, 2.5, 2.5),
    (values.parse_duration, "90", 90.0),
    (values.parse_duration, "90s", 90.0),
    (values.parse_duration, "1.5 m", 90.0),
    (values.parse_duration, "1h", 3600.0),
    (values.parse_duration, "7d", 604800.0),
    (values.parse_duration, 315360000, 315360000.0),
    (values.parse_host, "", ""),
    (values.parse_host, "relay.example.org", "relay.example.org"),
    (values.parse_host, "relay.example.org.", "relay.example.org."),
    (values.parse_host, "xn--bcher-kva.example", "xn--bcher-kva.example"),
    (values.parse_host, "192.0.2.1", "192.0.2.1"),
    (values.parse_host, "[2001:DB8::1]", "2001:db8::1"),
    (values.parse_ice_url, "stun:relay.example.org", "stun:relay.example.org"),
    (values.parse_ice_url, "stuns:192.0.2.1:5349", "stuns:192.0.2.1:5349"),
    (values.parse_ice_url, "turn:[::1]:65535?transport=udp", "turn:[::1]:65535?transport=udp"),
    (values.parse_ice_url, "turns:r:443?transport=tcp", "turns:r:443?transport=tcp"),
    (values.prepare, "", ""),
    (values.prepare, "a\u00a0b", "a b"),
    (values.prepare, "cafe\u0301", "caf\u00e9"),
    (values.parse_origin, "*", "*"),
    (values.parse_origin, "https://App.Example.org", "https://app.example.org"),
    (values.parse_origin, "http://localhost:5173", "http://localhost:5173"),
    (values.parse_origin, "https://[::1]:8443", "https://[::1]:8443"),
]
NOT_AN_ICE_URL = (
    '{!r} is not a STUN or TURN URL; write "stun:HOST:PORT" or '
    '"turn:HOST:PORT?transport=udp" (no //)'
)
NO_STUN_SERVER = (
    '{!r} is no STUN server over UDP; write "stun:HOST" or "stun:HOST:PORT", for example '
    '"stun:stun.example.org:3478" (no //, an IPv6 address in brackets)'
)
NOT_AN_ORIGIN = (
    '{!r} is not an origin; write "https://app.example.org" (scheme, host, perhaps a port; no path)'
)
# The sentence, and what draws it ({!r} stands for what was written).
BAD: list[tuple[Any, str, tuple[object, ...]]] = [
    (
        values.parse_endpoint,
        '{!r} has no port; write "ADDRESS:PORT", for example "0.0.0.0:3478"',
        ("localhost", "3478", ""),
    ),
    (
        values.parse_endpoint,
        "'localhost' is not an IP address; names cannot be listened on",
        ("localhost:80",),
    ),
    (
        values.parse_endpoint,
        '{!r}: put an IPv6 address in brackets, for example "[::]:3478"',
        ("::1:80", "::1"),
    ),
    (values.parse_endpoint, "'65536' is not a port (0 to 65535)", ("127.0.0.1:65536",)),
    (values.parse_endpoint, "'-1' is not a port (0 to 65535)", ("127.0.0.1:-1",)),
    (values.parse_endpoint, "'' is not a port (0 to 65535)", ("127.0.0.1:", "[::]:")),
    (values.parse_endpoint, "'٣' is not a port (0 to 65535)", ("127.0.0.1:٣",)),
    (
        values.parse_endpoint,
        'expected an address and port such as "0.0.0.0:3478" or "[::]:3478", got {!r}',
        (3478, True, None, ["127.0.0.1:1"]),
    ),
    (
        values.parse_network,
        '{!r} has bits beyond its mask; did you mean "10.0.0.0/8"?',
        ("10.0.0.1/8", "10.1.0.0/8"),
    ),
    (
        values.parse_network,
        '{!r} is not a network; write a CIDR such as "10.0.0.0/8"',
        ("10.0.0.0/33", "lan", "", "10.0.0/8"),
    ),
    (
        values.parse_network,
        "{!r}: an IPv4 address inside IPv6 is judged as IPv4; write it so",
        ("::ffff:10.0.0.0/104", "::ffff:10.0.0.1"),
    ),
    (values.parse_network, 'expected a network such as "10.0.0.0/8", got {!r}', (10, 1.5)),
    (
        values.parse_port_range,
        '{!r} is not a port range; write "FIRST-LAST", as in "49152-65535"',
        ("49152", "49152:65535", "-", "100000-200000"),
    ),
    (
        values.parse_port_range,
        "{!r} is not a port range: it needs 1024 <= FIRST <= LAST <= 65535",
        ("1023-2000", "3000-2000", "49152-65536"),
    ),
    (values.parse_address, "{!r} is not an IP address", ("relay", "10.0.0.0/8", "")),
    (values.parse_external, "'nat' is not an IP address", ("203.0.113.7/nat", "nat")),
    (values.parse_external, "'' is not an IP address", ("/10.0.0.5", "")),
    (
        values.parse_external,
        NO_STUN_SERVER,
        (
            *("stun:", "stuns:a", "turn:a", "stun:a:0", "stun:a:65536", "stun:a:b", "stun:-a"),
            *("stun://a", "stun:a?transport=udp", "stun:a/10.0.0.5", "stun:[x]", "stun:[1.2.3.4]"),
            *("stun:2001:db8::1", "stun:[2001:db8::1%eth0]", "stun:[]:1"),
        ),
    ),
    (
        values.parse_duration,
        '{!r} is not a time; write seconds, or "90s", "15m", "1h", "7d"',
        ("1w", "-5", "", "1h30m", "1e3"),
    ),
    (
        values.parse_duration,
        "{!r} is not a time: it needs 0 <= seconds <= 315360000",
        # The integer is more than a float can hold.
        (-1, 315360001, float("nan"), float("inf"), "3651d", 10**400),
    ),
    (
        values.parse_duration,
        'expected a time such as 3600, "90s", "15m", "1h" or "7d", got {!r}',
        (True, None, date(2026, 1, 1)),
    ),
    (
        values.parse_host,
        '{!r} is not a host; write only the name, as in "relay.example.org" (no scheme, no port)',
        ("https://a.org", "a.org:443", "-a.org", "a-.org", "a..b", ".", "a" * 64, "bücher.example"),
    ),
    (
        values.parse_ice_url,
        NOT_AN_ICE_URL,
        (
            "turn://relay.example.org", "stun:relay?transport=udp", "turn:relay?transport=sctp",
            "turn:relay:65536", "turn:::1", "turn:", "https://relay", "",
        ),
    ),
    (
        values.parse_origin,
        NOT_AN_ORIGIN,
        (
            "app.example.org", "https://a.org/", "https://a.org/call", "https://a.org?q",
            "ftp://a.org", "https://a.org:65536", "https://[::1", "null", "",
        ),
    ),
    (
        values.parse_origin,
        "{!r} is not an origin; wildcards and user names cannot be in one",
        ("https://*.example.org", "https://me@example.org", "https://"),
    ),
    (
        values.parse_origin,
        "{!r}: browsers leave the default port out; so must you",
        ("https://example.org:443", "http://example.org:80"),
    ),
]  # fmt: skip
PARSERS = sorted({parser for parser, _, _ in GOOD}, key=lambda parser: parser.__name__)


@pytest.mark.parametrize(("parser", "written", "meant"), GOOD)
def test_what_is_good_is_understood(parser: Any, written: object, meant: object):
    assert parser(written) == meant


@pytest.mark.parametrize(
    ("parser", "sentence", "written"),
    [(parser, sentence, text) for parser, sentence, texts in BAD for text in texts],
)
def test_what_is_bad_gets_a_sentence(parser: Any, sentence: str, written: object):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence.format(written))}$"):
        parser(written)


TOML_VALUES = st.one_of(
    st.text(max_size=40), st.integers(), st.floats(), st.booleans(), st.dates(), st.binary(),
    st.lists(st.text()),
)  # fmt: skip


@pytest.mark.parametrize("parser", PARSERS)
@given(written=TOML_VALUES)
def test_a_parser_gives_a_value_or_a_sentence(parser: Any, written: object):
    with contextlib.suppress(ValueError):
        meant = parser(written)
        assert parser(meant) == meant, "what was understood once stays so"


@pytest.mark.parametrize("parser", [values.parse_endpoint, values.parse_port_range])
def test_what_is_printed_can_be_read_again(parser: Any):
    for known, _, meant in GOOD:
        if known is parser:
            assert parser(str(meant)) == meant


@pytest.mark.parametrize(
    ("host", "loopback", "wildcard"),
    [
        ("127.0.0.1", True, False),
        ("127.255.0.1", True, False),
        ("::1", True, False),
        ("0.0.0.0", False, True),
        ("::", False, True),
        ("192.0.2.1", False, False),
    ],
)
def test_how_open_an_endpoint_is(host: str, loopback: bool, wildcard: bool):
    endpoint = Endpoint(host, 1)
    assert (endpoint.is_loopback, endpoint.is_wildcard) == (loopback, wildcard)


# Several values in one text ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("", []),
        (" , ", []),
        ("a", ["a"]),
        ("a, b,", ["a", "b"]),
        ('["a", "b"]', ["a", "b"]),
        ("[]", []),
        ("[::]:3478, 0.0.0.0:3478", ["[::]:3478", "0.0.0.0:3478"]),
        ('[{"urls": "stun:h"}]', [{"urls": "stun:h"}]),
        (["a"], ["a"]),
        (5, 5),
    ],
)
def test_lists_with_commas_or_as_json(written: object, meant: object):
    assert values.read_list(written) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("", []),
        ("one, with a comma", ["one, with a comma"]),
        ('["one", "two"]', ["one", "two"]),
        ("[begins with a bracket", ["[begins with a bracket"]),
        ("[1, 2]", ["[1, 2]"]),
        ('["not JSON', ['["not JSON']),
        (["one", "two"], ["one", "two"]),
    ],
)
def test_secrets_may_hold_commas(written: object, meant: object):
    assert values.read_secrets(written) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("", {}),
        ("{}", {}),
        ('{"alice": "pw"}', {"alice": "pw"}),
        ("alice=pw", "alice=pw"),  # which is then told not to be a table
        ({"alice": "pw"}, {"alice": "pw"}),
    ],
)
def test_tables_as_json(written: object, meant: object):
    assert values.read_table(written) == meant


@pytest.mark.parametrize("text", ["a\x00b", "\x7f", "tab\t"])
def test_a_name_that_no_client_may_send_is_refused_without_telling_it(text):
    with pytest.raises(ValueError, match="no client may send") as refused:
        values.prepare(text)
    assert text not in str(refused.value)


def test_users_are_kept_as_their_clients_write_them():
    settings = TurnSettings.model_validate({"users": {"Jose\u0301": "pass\u00a0word"}})
    ((name, password),) = settings.users.items()
    assert (name, password.get_secret_value()) == ("Jos\u00e9", "pass word")
