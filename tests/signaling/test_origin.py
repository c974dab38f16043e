"""Origins and proxies: exact, and nothing that a client says of itself is believed."""

from ipaddress import ip_network

import pytest

from signaling.origin import OriginPolicy

HERE = "app.example.org"


def policy(*allowed, proxies=(), tokens=True):
    return OriginPolicy(allowed, [ip_network(p) for p in proxies], tokens=tokens)


@pytest.mark.parametrize(
    ("origin", "good"),
    [
        (None, True),
        ("https://app.example.org", True),
        ("https://other.example.org", True),
        ("https://OTHER.example.org", True),
        ("http://app.example.org", False),
        ("https://app.example.org:8443", False),
        ("https://app.example.org.evil.example", False),
        ("https://evil.example/app.example.org", False),
        ("https://xother.example.org", False),
        ("https://other.example.org.", False),
        ("https://user@other.example.org", False),
        ("https://example.org", False),
        ("null", False),
        ("", False),
        ("file://", False),
        ("https://app.example.org https://evil.example", False),
        ("https://аpp.example.org", False),  # noqa: RUF001 - a Cyrillic letter, on purpose
    ],
)
def test_an_origin_is_ours_or_allowed_to_the_letter(origin, good):
    judge = policy("https://other.example.org")
    assert judge.allows(origin, HERE, "https") is good


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("127.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("localhost:8080", True),
        ("192.168.1.5:8443", True),
        ("laptop.local:8443", True),
        ("rebound.evil.example:8080", False),
        ("localhost.evil.example:8080", False),
    ],
)
def test_without_tokens_a_name_that_dns_could_rebind_is_not_ours(host, good):
    assert policy(tokens=False).allows(f"http://{host}", host, "http") is good


def test_a_star_allows_all():
    assert policy("*").allows("https://anybody.example", HERE, "https")
    assert policy("*").shared_with("https://anybody.example") == "*"


def test_answers_are_shared_with_allowed_origins_only():
    judge = policy("https://other.example.org")
    assert judge.shared_with("https://other.example.org") == "https://other.example.org"
    assert judge.shared_with("https://evil.example") is None
    assert judge.shared_with(None) is None


FORWARDED = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9, 10.0.0.2", "X-Forwarded-Proto": "https"}


class TestProxies:
    def test_a_strangers_headers_are_not_believed(self):
        caller = policy().caller("203.0.113.1", "http", FORWARDED)
        assert caller == ("203.0.113.1", "http")

    def test_behind_trusted_proxies_the_first_address_that_is_none_counts(self):
        caller = policy(proxies=["10.0.0.0/8"]).caller("10.0.0.1", "http", FORWARDED)
        assert caller == ("203.0.113.9", "https")

    @pytest.mark.parametrize("chain", ["", "nonsense", "nonsense, 10.0.0.2"])
    def test_nonsense_in_the_header_leaves_the_last_address_that_is_sure(self, chain):
        caller = policy(proxies=["10.0.0.0/8"]).caller(
            "10.0.0.1", "http", {"X-Forwarded-For": chain}
        )
        assert caller.host in {"10.0.0.1", "10.0.0.2"}

    def test_an_ipv6_network_is_one_address(self):
        one = policy().caller("2001:db8::1", "http", {})
        two = policy().caller("2001:db8::ffff", "http", {})
        assert one.network == two.network
        assert one.network != policy().caller("2001:db8:0:1::1", "http", {}).network
