"""What is dangerous does not start: each refusal names the key and says what would be right."""

import pytest
from typer.testing import CliRunner

from icebroker import app

PUBLIC = '[turn]\nlisten = "0.0.0.0:3478"\n'
SHORT = "fifteen bytes.."
REFUSED = [
    ("turn", PUBLIC, "turn.secret", "nobody could use it"),
    ("turn", f'{PUBLIC}secret = "{SHORT}"\n', "turn.secret", "shorter than 16 bytes"),
    ("turn", f'{PUBLIC}secret = ["{"x" * 16}", "{SHORT}"]\n', "turn.secret", "shorter than 16"),
    ("turn", '[turn]\nlisten = ["127.0.0.1:3478", "[::]:3478"]\n', "turn.secret", "nobody"),
    ("turn", '[turn]\nallow_peers = "10.0.0.1/8"\n', "turn.allow_peers", 'mean "10.0.0.0/8"'),
    ("turn", '[turn]\ndeny_peers = "10.0.0.0/33"\n', "turn.deny_peers", "not a network"),
    ("turn", '[turn]\ndeny_peers = "::ffff:10.0.0.0/104"\n', "turn.deny_peers", "IPv4"),
    ("turn", '[turn]\nalow_peers = "10.0.0.0/8"\n', "turn.alow_peers", "no such key"),
    ("turn", '[turn.users]\nalice = ""\n', "turn.users", "empty"),
    ("signaling", '[signaling]\nlisten = "0.0.0.0:8080"\n', "signaling.token_secret", "anyone"),
    ("signaling", f'[signaling]\ntoken_secret = "{SHORT}"\n', "signaling.token_secret", "16 bytes"),
    (
        "signaling",
        f'[signaling]\ntoken_secret = "{"x" * 32}"\nallowed_origins = "*"\n',
        "signaling.allowed_origins",
        "name the origins",
    ),
    ("signaling", '[signaling]\ntrusted_proxies = "10.1/16"\n', "trusted_proxies", "not a network"),
]


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Runs a command on a configuration; gives the exit code and what was said."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "icebroker.toml"

    def check(text, *command):
        file.write_text(text)
        result = CliRunner().invoke(app, [*command, "-c", str(file)], env={})
        return result.exit_code, result.output

    return check


@pytest.mark.parametrize(("service", "text", "key", "why"), REFUSED)
def test_a_weak_configuration_is_refused_before_anything_listens(check, service, text, key, why):
    for command in (["check", "--only", service], [service]):
        code, said = check(text, *command)
        assert code == 1
        assert key in said
        assert why in said
        assert "icebroker.toml" in said
        assert SHORT not in said


@pytest.mark.parametrize(
    "text",
    [
        '[turn]\nlisten = ["127.0.0.1:3478", "[::1]:3478"]\n',
        f'{PUBLIC}secret = "{"x" * 16}"\n',
        f'{PUBLIC}[turn.users]\nalice = "pw"\n',
        f"{PUBLIC}stun_only = true\n",
    ],
)
def test_what_is_safe_or_meant_is_accepted(check, text):
    assert check(text, "check", "--only", "turn")[0] == 0
