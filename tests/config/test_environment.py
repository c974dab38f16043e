"""Environment variables and files with secrets, and which source is the stronger."""

from pathlib import Path
from typing import Any

import pytest

from config.load import SAMPLE
from config.schema import Settings
from config.signaling import IceServer
from config.values import Endpoint

NO_KEY = f"no such key; {SAMPLE} shows every one"
NO_SETTING = (
    "no such setting; sections are ICEBROKER_TURN__…, ICEBROKER_SIGNALING__…, "
    "ICEBROKER_REDIS__…, ICEBROKER_ADMIN__…, ICEBROKER_LOG__…"
)
SECRET = "ICEBROKER_TURN__SECRET"


def secrets(settings: Settings) -> list[str]:
    return [secret.get_secret_value() for secret in settings.turn.secret]


@pytest.mark.parametrize(
    ("variable", "text", "path", "expected"),
    [
        ("ICEBROKER_TURN__REALM", "a", "turn.realm", "a"),
        ("icebroker_turn__realm", "a", "turn.realm", "a"),
        ("ICEBROKER_TURN__MAX_CHANNELS", "7", "turn.max_channels", 7),
        ("ICEBROKER_TURN__STUN_ONLY", "true", "turn.stun_only", True),
        ("ICEBROKER_TURN__STUN_ONLY", "0", "turn.stun_only", False),
        ("ICEBROKER_TURN__MAX_LIFETIME", "1h", "turn.max_lifetime", 3600.0),
        ("ICEBROKER_TURN__TLS_KEY", "", "turn.tls_key", None),
        ("ICEBROKER_TURN__LISTEN", "", "turn.listen", ()),
        (
            "ICEBROKER_TURN__LISTEN",
            "[::]:1, 0.0.0.0:1",
            "turn.listen",
            (Endpoint("::", 1), Endpoint("0.0.0.0", 1)),
        ),
        (
            "ICEBROKER_TURN__LISTEN",
            '["[::]:1", "0.0.0.0:1"]',
            "turn.listen",
            (Endpoint("::", 1), Endpoint("0.0.0.0", 1)),
        ),
        ("ICEBROKER_SIGNALING__ALLOWED_ORIGINS", "*", "signaling.allowed_origins", ("*",)),
        (
            "ICEBROKER_SIGNALING__ICE_SERVERS",
            '[{"urls": "stun:a"}]',
            "signaling.ice_servers",
            (IceServer(urls=("stun:a",)),),
        ),
        ("ICEBROKER_TURN__USERS", "", "turn.users", {}),
    ],
)
def test_a_variable_for_every_kind_of_value(
    operator: Any, variable: str, text: str, path: str, expected: object
):
    assert operator.value(operator.settings("", {variable: text}), path) == expected


def test_a_table_in_a_variable_replaces_that_of_the_file_and_one_key_joins_it(operator: Any):
    toml = '[turn.users]\nalice = "1"'
    replaced = operator.settings(toml, {"ICEBROKER_TURN__USERS": '{"bob": "2"}'})
    assert replaced.turn.users.keys() == {"bob"}
    joined = operator.settings(toml, {"ICEBROKER_TURN__USERS__BOB": "2"})
    assert joined.turn.users.keys() == {"alice", "bob"}


@pytest.mark.parametrize(
    ("variable", "text", "problem"),
    [
        ("ICEBROKER_TURN", "x", f"ICEBROKER_TURN: {NO_SETTING}"),
        ("ICEBROKER_TURNS__REALM", "x", f"ICEBROKER_TURNS__REALM: {NO_SETTING}"),
        ("ICEBROKER_TURNS__REALM_FILE", "/x", f"ICEBROKER_TURNS__REALM_FILE: {NO_SETTING}"),
        ("ICEBROKER_TURN_REALM", "x", f"ICEBROKER_TURN_REALM: {NO_SETTING}"),
        ("ICEBROKER_TURN__PORT", "1", f"ICEBROKER_TURN__PORT: turn.port: {NO_KEY}"),
        (
            "ICEBROKER_TURN__LISTEN",
            "0.0.0.0:1, x:1",
            (
                "ICEBROKER_TURN__LISTEN: turn.listen[1]: 'x' is not an IP address; names cannot be "
                "listened on"
            ),
        ),
        (
            "ICEBROKER_TURN__LISTEN__0",
            "0.0.0.0:1",
            "ICEBROKER_TURN__LISTEN__0: turn.listen: expected a list",
        ),
        ("ICEBROKER_TURN__USERS", "a=b", "ICEBROKER_TURN__USERS: turn.users: expected a table"),
        (
            "ICEBROKER_TURN__USERS__BOB",
            "",
            "ICEBROKER_TURN__USERS__BOB: turn.users: the password of 'bob' is empty",
        ),
        (
            "ICEBROKER_TURN__SECRET_FILE",
            "/no/such/file",
            "ICEBROKER_TURN__SECRET_FILE: /no/such/file: cannot be read: No such file or directory",
        ),
    ],
)
def test_a_mistake_in_a_variable_is_told_with_its_name(
    operator: Any, variable: str, text: str, problem: str
):
    assert operator.problems("", {variable: text}) == [problem]


@pytest.mark.parametrize(
    "variable",
    [
        "ICEBROKER_SERVICE_HOST",
        "ICEBROKER_SERVICE_PORT_HTTP",
        "ICEBROKER_PORT",
        "ICEBROKER_PORT_3478_UDP_ADDR",
        "ICEBROKER_TURN_SERVICE_PORT",
    ],
)
def test_what_kubernetes_says_of_a_service_named_icebroker_is_no_setting(
    operator: Any, variable: str
):
    assert operator.settings("", {variable: "tcp://10.0.0.1:80"}) == Settings()


def test_other_peoples_variables_are_left_alone(operator: Any):
    environment = {"PATH": "/bin", "TURN__SECRET": "x", "MY_ICEBROKER_TURN__SECRET": "x"}
    assert operator.settings("", environment) == Settings()


# Which is the stronger -----------------------------------------------------------------------


@pytest.fixture
def everywhere(operator: Any) -> tuple[str, dict[str, str], dict[str, Any]]:
    """The secret from each source, and named after it: (TOML, environment, defaults)."""
    directory = Path(operator.put("credentials/icebroker_turn__secret", "credential\n")).parent
    (directory / "other").write_text("not ours")
    environment = {
        SECRET: "variable",
        f"{SECRET}_FILE": operator.put("secret", "file\n"),
        "CREDENTIALS_DIRECTORY": str(directory),
    }
    return '[turn]\nsecret = "toml"', environment, {"turn": {"secret": "default"}}


@pytest.mark.parametrize(
    ("without", "strongest"),
    [
        ((), "variable"),
        ((SECRET,), "file"),
        ((SECRET, f"{SECRET}_FILE"), "credential"),
        ((SECRET, f"{SECRET}_FILE", "CREDENTIALS_DIRECTORY"), "toml"),
        ((SECRET, f"{SECRET}_FILE", "CREDENTIALS_DIRECTORY", "toml"), "default"),
    ],
)
def test_the_strongest_source_wins(
    operator: Any, everywhere: Any, without: tuple[str, ...], strongest: str
):
    toml, environment, defaults = everywhere
    left = {name: text for name, text in environment.items() if name not in without}
    toml = "" if "toml" in without else toml
    assert secrets(operator.settings(toml, left, defaults=defaults)) == [strongest]
    # The order in which the variables were set makes no difference.
    left = dict(reversed(left.items()))
    assert secrets(operator.settings(toml, left, defaults=defaults)) == [strongest]


def test_a_weaker_source_still_says_what_the_stronger_leaves_out(operator: Any):
    environment = {"ICEBROKER_TURN__REALM": "variable"}
    defaults = {"turn": {"stun_only": True, "max_channels": 5}}
    settings = operator.settings("[turn]\nmax_channels = 6", environment, defaults=defaults)
    assert settings.turn.realm == "variable"
    assert settings.turn.max_channels == 6
    assert settings.turn.stun_only


@pytest.mark.parametrize("name", ["ICEBROKER_TURN__LISTEN_FILE", "CREDENTIALS_DIRECTORY"])
def test_a_mistake_in_a_file_beside_is_told_with_what_names_it(operator: Any, name: str):
    path = operator.put("credentials/ICEBROKER_TURN__LISTEN", "here")
    source, text = (name, path) if name.endswith("_FILE") else (path, str(Path(path).parent))
    source = source.replace(f"{operator.folder}/", "")
    assert operator.problems("", {name: text}) == [
        (
            f"{source}: turn.listen[0]: 'here' has no port; write \"ADDRESS:PORT\", for example "
            '"0.0.0.0:3478"'
        )
    ]


def test_a_credential_of_no_setting_is_told(operator: Any):
    path = operator.put("credentials/ICEBROKER_SECRET", "x")
    environment = {"CREDENTIALS_DIRECTORY": str(Path(path).parent)}
    assert operator.problems("", environment) == [f"credentials/ICEBROKER_SECRET: {NO_SETTING}"]


def test_credentials_that_are_not_there_are_none(operator: Any):
    assert operator.settings("", {"CREDENTIALS_DIRECTORY": "/no/such/folder"}) == Settings()


def test_credentials_that_cannot_be_listed(operator: Any):
    path = operator.put("credentials", "a file where a folder should be")
    assert operator.problems("", {"CREDENTIALS_DIRECTORY": path}) == [
        "CREDENTIALS_DIRECTORY: credentials: cannot be read: Not a directory"
    ]
