"""What holds, and what is said, when ``icebroker serve`` runs without a configuration."""

from typing import Any

import pytest

from config.laptop import Running, banner, defaults
from config.schema import Settings

RELAY = [("stun:a:1", "stun:b:1"), ("turn:a:1?transport=udp", "turn:a:1?transport=tcp")]
RUNNING = Running("1.2.3", ("127.0.0.1", 9641), RELAY, "userspace", "asyncio")
MACHINE = ["192.0.2.7", "2001:db8::7"]
HERE = {"listen": "127.0.0.1:8080"}
ANYWHERE = {"listen": "0.0.0.0:8080", "open": True}
WITH_TOKENS = {**HERE, "token_secret": "sixteen bytes or more"}
SIGNS = {"secret": "sixteen bytes or more"}
TOKEN = "abcdefghijklmnopqrstuvwxyzABCDEF"


def said(
    running: Running = RUNNING, *, bare: bool = True, lan: bool = False, **sections: Any
) -> str:
    """The first screen, with these settings."""
    settings = Settings.model_validate({"signaling": HERE, "turn": SIGNS, **sections})
    return banner(settings, running, MACHINE, bare=bare, lan=lan)


@pytest.mark.parametrize("lan", [False, True])
def test_the_defaults_are_safe_to_run(operator: Any, *, lan: bool):
    settings = operator.settings(services=["turn", "signaling"], defaults=defaults(lan=lan))
    assert settings.turn.open_private_peers
    assert settings.signaling.listen.is_loopback is not lan
    assert settings.signaling.open is lan


def test_every_start_has_secrets_of_its_own():
    first, second = (defaults(lan=False) for _ in range(2))
    for section, key in (("turn", "secret"), ("admin", "token")):
        assert first[section][key] != second[section][key]
        assert len(first[section][key]) >= 32


def test_the_banner_says_everything_on_one_screen():
    text = said(admin={"token": TOKEN}, turn={"open_private_peers": True})
    lines = text.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    for words in (
        "1.2.3", "http://127.0.0.1:8080/trickle", "curl http://127.0.0.1:8080/ice",
        "http://127.0.0.1:9641/metrics", f"http://127.0.0.1:9641/#token={TOKEN}",
        "userspace (asyncio)", "Ctrl-C",
    ):  # fmt: skip
        assert words in text


def test_an_operators_own_token_is_never_shown():
    text = said(bare=False, admin={"token": TOKEN})
    assert "http://127.0.0.1:9641/\n" in text
    assert TOKEN not in text


def test_without_an_operators_page_nothing_is_said_of_it():
    assert "Operator" not in said()


@pytest.mark.parametrize(
    ("listen", "page"),
    [
        ("0.0.0.0:8080", "http://192.0.2.7:8080/"),
        ("[::1]:8080", "http://[::1]:8080/"),
    ],
)
def test_the_page_is_named_as_a_browser_reaches_it(listen: str, page: str):
    assert f"Call page     {page}\n" in said(signaling={"listen": listen, "open": True})


def test_where_rooms_need_a_token_so_does_the_curl_line():
    assert 'curl "http://127.0.0.1:8080/ice?token=$(icebroker token ROOM)"' in said(
        bare=False, signaling=WITH_TOKENS
    )


@pytest.mark.parametrize(
    ("groups", "places"),
    [
        (RELAY, "turn:a:1"),
        ([("turn:a:1", "turns:a:2?transport=tcp")], "turn:a:1  turns:a:2"),
        ([("turn:a:1", "turn:b:1"), ("turn:c:1", "turns:d:1")], "turn:a:1  turn:b:1  and 2 more"),
        ([], ""),
    ],
)
def test_the_banner_names_each_place_of_the_relay_once(groups: Any, places: str):
    text = said(RUNNING._replace(relay=groups))
    line = next(line for line in text.splitlines() if "Relay" in line)
    assert line.replace("Relay", "").strip() == places


ONLY_HERE, PRIVATE, OPEN = "Only this machine", "private networks", "Rooms are open to everyone"
TO_PRIVATE = {**SIGNS, "open_private_peers": True}
NO_RELAY = "Pages get no relay"
SHOP = {"tenants": {"shop": {"secret": "the shop's own secret"}}}
ELSEWHERE = {**HERE, "ice_servers": [{"urls": ["stun:stun.example.org"]}]}


@pytest.mark.parametrize(
    ("options", "signaling", "notes"),
    [
        ({}, HERE, {ONLY_HERE}),
        ({"turn": TO_PRIVATE}, HERE, {ONLY_HERE, PRIVATE}),
        ({"lan": True}, ANYWHERE, {"Everyone on your network", "certificate"}),
        ({}, ANYWHERE, {OPEN}),
        ({"bare": False}, ANYWHERE, {OPEN}),
        ({"bare": False}, HERE, {OPEN}),
        ({"bare": False, "turn": SHOP}, HERE, {OPEN, NO_RELAY}),
        ({"bare": False, "turn": SHOP}, {**HERE, "ice_tenant": "shop"}, {OPEN}),
        ({"bare": False, "turn": SHOP}, ELSEWHERE, {OPEN}),
        ({"bare": False, "turn": {"stun_only": True}}, HERE, {OPEN}),
        ({"bare": False}, WITH_TOKENS, {"A room needs a token"}),
        ({"bare": False, "turn": TO_PRIVATE}, WITH_TOKENS, {"A room needs a token", PRIVATE}),
    ],
)
def test_notes(options: dict[str, Any], signaling: dict[str, Any], notes: set[str]):
    text = said(signaling=signaling, **options)
    every = {
        ONLY_HERE, PRIVATE, OPEN, "Everyone on your network", "certificate",
        "A room needs a token", NO_RELAY,
    }  # fmt: skip
    assert {words for words in every if words in text} == notes
