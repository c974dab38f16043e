"""What holds, and what is said, when ``icebroker serve`` runs without a configuration."""

from typing import Any

import pytest

from config.laptop import banner, defaults, notes
from config.signaling import SignalingSettings

FACTS: dict[str, Any] = {
    "version": "1.2.3",
    "page": "http://127.0.0.1:8080/",
    "curl": "curl http://127.0.0.1:8080/ice",
    "metrics": "http://127.0.0.1:9641/metrics",
    "operator": "http://127.0.0.1:9641/#token=abcdefghijklmnopqrstuvwxyzABCDEF",
    "relay": [["stun:a:1", "stun:b:1"], ["turn:a:1?transport=udp", "turn:a:1?transport=tcp"]],
    "plane": "userspace",
    "plane_reason": "asyncio",
    "notes": ["One note.", "Another."],
}


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


def test_without_an_operators_page_nothing_is_said_of_it():
    assert "Operator" not in banner({**FACTS, "operator": ""})


def test_the_banner_says_everything_on_one_screen():
    text = banner(FACTS)
    lines = text.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    for said in ("1.2.3", "http://127.0.0.1:8080/trickle", FACTS["curl"], FACTS["metrics"],
                 FACTS["operator"], "userspace (asyncio)", "One note.", "Another.",
                 "Ctrl-C"):  # fmt: skip
        assert said in text


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ([["stun:a:1"], ["turn:a:1?transport=udp", "turn:a:1?transport=tcp"]], "turn:a:1"),
        ([["turn:a:1", "turns:a:2?transport=tcp"]], "turn:a:1  turns:a:2"),
        ([["turn:a:1", "turn:b:1"], ["turn:c:1", "turns:d:1"]], "turn:a:1  turn:b:1  and 2 more"),
        ([], ""),
    ],
)
def test_the_banner_names_each_place_of_the_relay_once(groups: list[list[str]], said: str):
    line = next(line for line in banner({**FACTS, "relay": groups}).splitlines() if "Relay" in line)
    assert line.replace("Relay", "").strip() == said


LOOPBACK, ANYWHERE = {"listen": "127.0.0.1:8080"}, {"listen": "0.0.0.0:8080", "open": True}
WITH_TOKENS = {"listen": "127.0.0.1:8080", "token_secret": "sixteen bytes or more"}
ONLY_HERE, PRIVATE, OPEN = "Only this machine", "private networks", "Rooms are open to everyone"


@pytest.mark.parametrize(
    ("options", "signaling", "said"),
    [
        ({"bare": True}, LOOPBACK, {ONLY_HERE}),
        ({"bare": True, "private": True}, LOOPBACK, {ONLY_HERE, PRIVATE}),
        ({"bare": True, "lan": True}, ANYWHERE, {"Everyone on your network", "certificate"}),
        ({"bare": True}, ANYWHERE, {OPEN}),
        ({}, ANYWHERE, {OPEN}),
        ({}, LOOPBACK, {OPEN}),
        ({}, WITH_TOKENS, {"icebroker token"}),
        ({"private": True}, WITH_TOKENS, {"icebroker token", PRIVATE}),
    ],
)
def test_notes(options: dict[str, bool], signaling: dict[str, Any], said: set[str]):
    settings = SignalingSettings.model_validate(signaling)
    given = {"bare": False, "lan": False, "private": False, **options}
    lines = notes(**given, signaling=settings)
    every = {ONLY_HERE, PRIVATE, OPEN, "Everyone on your network", "certificate", "icebroker token"}
    assert {words for words in every if words in " ".join(lines)} == said
    assert max(map(len, lines)) <= 78
