"""The TOML file: its many forms, and each mistake told with its file and line."""

from pathlib import Path
from typing import Any

import pytest

from config.load import SAMPLE, ConfigError, load
from config.schema import Settings
from config.signaling import IceServer
from config.values import Endpoint

NO_KEY = f"no such key; {SAMPLE} shows every one"


@pytest.mark.parametrize(
    ("toml", "path", "expected"),
    [
        ('[turn]\nrealm = "a"', "turn.realm", "a"),
        ('turn.realm = "a"', "turn.realm", "a"),
        ('turn = {realm = "a"}', "turn.realm", "a"),
        ('["turn"]\n"realm" = "a"', "turn.realm", "a"),
        ('[turn]\nrealm = """\\\n  a"""', "turn.realm", "a"),
        ('[turn]\r\nrealm = "a"\r\n', "turn.realm", "a"),
        ('\ufeff[turn]\nrealm = "a"', "turn.realm", "a"),
        ('[turn]\nlisten = "127.0.0.1:1"', "turn.listen", (Endpoint("127.0.0.1", 1),)),
        ("[turn]\nlisten = []\nmax_channels = '7'", "turn.max_channels", 7),
        ('[turn]\nmax_lifetime = "15m"', "turn.max_lifetime", 900.0),
        ('[turn]\ntls_key = "k.pem"', "turn.tls_key", Path("k.pem")),
        ('[turn]\ntls_key = ""', "turn.tls_key", None),
        (
            (
                '[[signaling.ice_servers]]\nurls = "stun:a"\n'
                '[[signaling.ice_servers]]\nurls = "turn:b"'
            ),
            "signaling.ice_servers",
            (IceServer(urls=("stun:a",)), IceServer(urls=("turn:b",))),
        ),
    ],
)
def test_toml_in_its_many_forms(operator: Any, toml: str, path: str, expected: object):
    assert operator.value(operator.settings(toml), path) == expected


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ("foo = 1", f"icebroker.toml:1: foo: {NO_KEY}"),
        ("[foo]\na = 1", f"icebroker.toml:1: foo: {NO_KEY}"),
        ("\n[turn]\nlissten = []", f"icebroker.toml:3: turn.lissten: {NO_KEY}"),
        ("turn = 5", "icebroker.toml:1: turn: expected a table"),
        ("[[turn]]", "icebroker.toml:1: turn: expected a table"),
        ("[turn]\nlisten = 3478", "icebroker.toml:2: turn.listen: expected a list"),
        (
            '[turn]\nallow_peers = [\n  "10.0.0.0/8",\n  "lan",\n]',
            (
                "icebroker.toml:4: turn.allow_peers[1]: 'lan' is not a network; write a CIDR "
                'such as "10.0.0.0/8"'
            ),
        ),
        ('[turn]\nusers = "a"', "icebroker.toml:2: turn.users: expected a table"),
        ("[turn.users]\na = 5", "icebroker.toml:2: turn.users.a: expected a text in quotes"),
        ('[turn]\nrealm = ""', "icebroker.toml:2: turn.realm: is empty"),
        (
            "[turn]\ntls_key = 5",
            "icebroker.toml:2: turn.tls_key: expected the name of a file, in quotes",
        ),
        (
            "[turn]\nmax_permissions = 0",
            "icebroker.toml:2: turn.max_permissions: input should be greater than or equal to 1",
        ),
        (
            "[turn]\nmax_lifetime = 0",
            "icebroker.toml:2: turn.max_lifetime: input should be greater than 0",
        ),
        (
            '[turn]\nmobility = "perhaps"',
            (
                "icebroker.toml:2: turn.mobility: input should be a valid boolean, unable to "
                "interpret input"
            ),
        ),
        (
            '[log]\nlevel = "loud"',
            "icebroker.toml:2: log.level: input should be 'debug', 'info', 'warning' or 'error'",
        ),
        (
            '[signaling]\nice_ttl = "59s"',
            "icebroker.toml:2: signaling.ice_ttl: input should be greater than or equal to 60",
        ),
        (
            '[[signaling.ice_servers]]\nurls = "stun:a"\n[[signaling.ice_servers]]\nurls = []',
            "icebroker.toml:4: signaling.ice_servers[1].urls: is empty",
        ),
        (
            '[[signaling.ice_servers]]\nusername = "me"',
            "icebroker.toml:1: signaling.ice_servers[0].urls: is missing",
        ),
        (
            (
                'signaling.ice_servers = [\n  {urls = "stun:a"},\n  {urls = "stun:b", '
                'password = "x"},\n]'
            ),
            f"icebroker.toml:3: signaling.ice_servers[1].password: {NO_KEY}",
        ),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_line(operator: Any, toml: str, problem: str):
    assert operator.problems(toml) == [problem]


def test_of_thousands_of_mistakes_some_are_told_and_the_rest_counted(tmp_path: Path):
    rows = "".join(f"  'mistake {number}',\n" for number in range(2000))
    file = tmp_path / "icebroker.toml"
    file.write_text(f"[turn]\nallow_peers = [\n{rows}]\n")
    with pytest.raises(ConfigError) as refused:
        load(file, {})
    *told, last = refused.value.problems
    assert [problem.split(": ")[0] for problem in told] == [f"{file}:{n + 3}" for n in range(50)]
    assert last == f"{file}: and 1950 more"


@pytest.mark.parametrize(
    ("content", "begins"),
    [
        (b"[turn]\nlisten = here", "icebroker.toml:2: not valid TOML: "),
        (b"[turn]\n[turn]", "icebroker.toml:2: not valid TOML: "),
        (b'[turn]\nlisten = ["0.0.0.0:1"', "icebroker.toml: not valid TOML: "),
        (b"[turn]\nworkers = " + b"9" * 5000, "icebroker.toml: not valid TOML: "),
        (
            b"x = " + b"[" * 5000 + b"]" * 5000,
            "icebroker.toml: lists or tables are nested too deep",
        ),
        (b"[turn]\nrealm = '\xff'", "icebroker.toml: is not UTF-8 text"),
    ],
)
def test_a_file_that_is_not_toml(operator: Any, content: bytes, begins: str):
    path = operator.put("icebroker.toml", content)
    with pytest.raises(ConfigError) as caught:
        load(Path(path), {})
    assert str(caught.value).replace(f"{operator.folder}/", "").startswith(begins)


def test_a_file_that_is_missing(tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "gone.toml", {})
    assert str(caught.value) == f"{tmp_path}/gone.toml: cannot be read: No such file or directory"


def test_a_folder_is_no_file(tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {})
    assert str(caught.value) == f"{tmp_path}: cannot be read: Is a directory"


def test_the_file_of_this_folder_is_read_unasked(operator: Any, monkeypatch: pytest.MonkeyPatch):
    operator.put("icebroker.toml", '[turn]\nrealm = "here"')
    monkeypatch.chdir(operator.folder)
    assert load(environment={}).turn.realm == "here"


def test_no_file_and_no_variable_is_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert load(environment={}) == Settings()


def test_several_problems_are_told_together(operator: Any):
    toml = '[turn]\nlisten = ["here"]\nworkers = 0\n[log]\nlevel = "x"'
    assert operator.problems(toml, {"ICEBROKER_ADMIN__LISTEN": "9641"}) == [
        (
            "icebroker.toml:2: turn.listen[0]: 'here' has no port; "
            'write "ADDRESS:PORT", for example "0.0.0.0:3478"'
        ),
        "icebroker.toml:3: turn.workers: input should be greater than or equal to 1",
        (
            "ICEBROKER_ADMIN__LISTEN: admin.listen[0]: '9641' has no port; "
            'write "ADDRESS:PORT", for example "0.0.0.0:3478"'
        ),
        "icebroker.toml:5: log.level: input should be 'debug', 'info', 'warning' or 'error'",
    ]
