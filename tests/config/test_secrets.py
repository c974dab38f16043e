"""No error message and no print of the settings tells a secret."""

from typing import Any

import pytest

CANARY = "canary-that-nobody-must-see"


@pytest.mark.parametrize(
    "toml",
    [
        f'[turn]\nsecret = ["{CANARY}", ""]',
        f'[turn]\nsecret = ["{CANARY}", 5]',
        f'[turn]\nsecret = {{a = "{CANARY}"}}',
        f'[turn]\nsecret = "{CANARY}',
        f"[turn]\nsecret = {CANARY}",
        f'[turn]\nsecret = "{CANARY}"\nsecret = "{CANARY}"',
        f'[turn]\nusers = "{CANARY}"',
        f'[turn]\nusers = ["{CANARY}"]',
        f'[turn.users]\n"a:b" = "{CANARY}"',
        f'[turn.users]\na = ["{CANARY}"]',
        f'[turn]\nworkers = 65\nsecret = "{CANARY}"\nusers = {{a = "{CANARY}"}}',
        f'[signaling]\ntoken_secret = ["{CANARY}", ""]',
        f'[signaling]\ntoken_secret = "{CANARY}"\nallowed_origins = ["*"]',
        f'[[signaling.ice_servers]]\ncredential = "{CANARY}"',
        f'[[signaling.ice_servers]]\nurls = "x"\ncredential = "{CANARY}"',
        f'[[signaling.ice_servers]]\nurls = "stun:a"\ncredential = ["{CANARY}"]',
        f'[redis]\nurl = "redis://:{CANARY}@local host"',
        f'[redis]\nurl = ["{CANARY}"]',
        '[admin]\ntoken = "canary"',
        f'[admin]\ntoken = ["{CANARY}"]',
        f'[admin]\ntoken = {{a = "{CANARY}"}}',
    ],
)
def test_no_secret_of_the_file_is_told(operator: Any, toml: str):
    assert "canary" not in "\n".join(operator.problems(toml))


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("ICEBROKER_TURN__SECRET", f'["{CANARY}", ""]'),
        ("ICEBROKER_TURN__SECRET", f'["{CANARY}", 5]'),
        ("ICEBROKER_TURN__USERS", CANARY),
        ("ICEBROKER_TURN__USERS", f'{{"a": "{CANARY}"'),
        ("ICEBROKER_TURN__USERS", f'{{"": "{CANARY}"}}'),
        ("ICEBROKER_SIGNALING__TOKEN_SECRET", f'["{CANARY}", ""]'),
        ("ICEBROKER_SIGNALING__ICE_SERVERS", f'[{{"urls": "x", "credential": "{CANARY}"}}]'),
        ("ICEBROKER_SIGNALING__ICE_SERVERS", f'[{{"urls": "stun:a", "credential": "{CANARY}"'),
        ("ICEBROKER_SIGNALING__ICE_SERVERS__0", CANARY),
        ("ICEBROKER_REDIS__URL", f"redis://:{CANARY}@local host"),
        ("ICEBROKER_ADMIN__TOKEN", "canary"),
        ("ICEBROKER_ADMIN__TOKENS", CANARY),
        ("ICEBROKER_TURN_SECRET", CANARY),
    ],
)
def test_no_secret_of_the_environment_is_told(operator: Any, variable: str, text: str):
    assert "canary" not in "\n".join(operator.problems("", {variable: text}))


def test_no_secret_is_shown_by_the_settings_themselves(operator: Any):
    settings = operator.settings(
        f'[turn]\nsecret = "{CANARY}"\nusers = {{a = "{CANARY}"}}\n[admin]\ntoken = "{CANARY}"\n'
        f'[signaling]\ntoken_secret = "{CANARY}"\n'
        f'ice_servers = [{{urls = "turn:a", username = "u", credential = "{CANARY}"}}]'
    )
    assert CANARY not in f"{settings!r} {settings} {settings.model_dump_json()}"
