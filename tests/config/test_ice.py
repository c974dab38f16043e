"""The URLs that clients are told for each listening address."""

from typing import Any

import pytest

from config.ice import relay_urls
from config.turn import TurnSettings

MACHINE = ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
FILES = {"tls_certificate": "c.pem", "tls_key": "k.pem"}


def both(place: str) -> tuple[str, str]:
    return f"turn:{place}?transport=udp", f"turn:{place}?transport=tcp"


@pytest.mark.parametrize(
    ("turn", "stun", "relay"),
    [
        # A wildcard is the machine's best address of its family.
        (
            {"listen": ["0.0.0.0:3478", "[::]:3478"]},
            ("stun:192.0.2.1:3478", "stun:[2001:db8::1]:3478"),
            (*both("192.0.2.1:3478"), *both("[2001:db8::1]:3478")),
        ),
        ({"listen": ["192.0.2.2:1"]}, ("stun:192.0.2.2:1",), both("192.0.2.2:1")),
        ({"listen": ["[::1]:1"]}, ("stun:[::1]:1",), both("[::1]:1")),
        # A name stands for every address, so that each port is told once.
        (
            {"listen": ["0.0.0.0:1", "[::]:1", "0.0.0.0:2"], "hostname": "relay.example.org"},
            ("stun:relay.example.org:1", "stun:relay.example.org:2"),
            (*both("relay.example.org:1"), *both("relay.example.org:2")),
        ),
        (
            {"listen": ["[::]:1"], "hostname": "2001:db8::7"},
            ("stun:[2001:db8::7]:1",),
            both("[2001:db8::7]:1"),
        ),
        # Behind NAT the public address is told, for its family.
        (
            {
                "listen": ["10.0.0.5:1", "[::]:1"],
                "external_addresses": ["203.0.113.7/10.0.0.5"],
            },
            ("stun:203.0.113.7:1", "stun:[2001:db8::1]:1"),
            (*both("203.0.113.7:1"), *both("[2001:db8::1]:1")),
        ),
        (
            {"listen": ["[::]:1"], "external_addresses": ["stun:192.0.2.9", "2001:db8::7"]},
            ("stun:[2001:db8::7]:1",),
            both("[2001:db8::7]:1"),
        ),
        # A transport that is not there is not told, and one that is there twice is told once.
        (
            {
                "listen": ["192.0.2.1:1"],
                "listen_udp": ["192.0.2.1:443", "192.0.2.2:7"],
                "listen_tcp": ["192.0.2.2:8", "192.0.2.2:7"],
                "listen_tls": ["192.0.2.1:443"],
                **FILES,
            },
            ("stun:192.0.2.1:1", "stun:192.0.2.1:443", "stun:192.0.2.2:7"),
            (
                *both("192.0.2.1:1"),
                "turn:192.0.2.1:443?transport=udp",
                *both("192.0.2.2:7"),
                "turn:192.0.2.2:8?transport=tcp",
                "turns:192.0.2.1:443?transport=tcp",
            ),
        ),
        # TLS comes last, and has no STUN of its own.
        (
            {"listen": ["0.0.0.0:1"], "listen_tls": ["0.0.0.0:2"], **FILES},
            ("stun:192.0.2.1:1",),
            (*both("192.0.2.1:1"), "turns:192.0.2.1:2?transport=tcp"),
        ),
    ],
)
def test_urls(turn: dict[str, Any], stun: tuple[str, ...], relay: tuple[str, ...]):
    assert relay_urls(TurnSettings.model_validate(turn), MACHINE) == [stun, relay]


def test_only_stun():
    turn = TurnSettings.model_validate({"listen": ["192.0.2.1:1"], "stun_only": True})
    assert relay_urls(turn, MACHINE) == [("stun:192.0.2.1:1",)]


def test_only_tls():
    turn = TurnSettings.model_validate({"listen": [], "listen_tls": ["192.0.2.1:443"], **FILES})
    assert relay_urls(turn, MACHINE)[-1] == ("turns:192.0.2.1:443?transport=tcp",)
    assert all(relay_urls(turn, MACHINE)), "an entry without URLs is refused by browsers"


def test_a_machine_without_addresses_has_its_loopback():
    turn = TurnSettings.model_validate({"listen": ["0.0.0.0:1", "[::]:1"]})
    assert relay_urls(turn, [])[0] == ("stun:127.0.0.1:1", "stun:[::1]:1")


def test_no_listener_no_urls():
    assert relay_urls(TurnSettings(listen=()), MACHINE) == []


def test_a_family_that_the_machine_has_no_address_of_is_not_told():
    turn = TurnSettings.model_validate(
        {"listen": ["0.0.0.0:1", "[::]:1"], "listen_tls": ["[::]:2"], "secret": "s" * 32, **FILES}
    )
    assert relay_urls(turn, ["192.0.2.1"]) == [("stun:192.0.2.1:1",), both("192.0.2.1:1")]
    # Nothing but this machine itself can be told where there is nothing else.
    assert "stun:[::1]:1" in relay_urls(turn, [])[0]
