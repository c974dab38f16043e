"""What settings say against each other, and what makes running a service dangerous."""

from typing import Any

import pytest

from config.schema import Settings
from config.turn import TurnSettings
from config.values import Endpoint

GOOD = "a secret of 16 or more bytes"
UNSIGNED = (
    "webhook_secret is missing: requests are signed; make one with: "
    'echo "whsec_$(openssl rand -base64 32)"'
)
SHORT = "the secret is shorter than 16 bytes; make one with: openssl rand -base64 32"
NEEDS_FILES = "needs tls_certificate and tls_key, PEM files"
NOT_THERE = "No such file or directory"
NO_CREDENTIALS = (
    "other machines can reach the relay, but neither turn.secret nor turn.users is set, so nobody "
    "could use it. Set turn.secret (make one with: openssl rand -base64 32), or turn.stun_only = "
    "true for a server that relays nothing"
)
OPEN_ROOMS = (
    "signaling is open to other machines on {}, but signaling.token_secret is not set: anyone "
    "could join any room. Set it (make one with: openssl rand -base64 32), listen on 127.0.0.1, "
    "or set signaling.open = true if that is what you want"
)


@pytest.mark.parametrize(
    ("toml", "problems"),
    [
        (
            '[turn]\nlisten_dtls = ["0.0.0.0:5349"]',
            [f"icebroker.toml:2: turn.listen_dtls: DTLS {NEEDS_FILES}"],
        ),
        (
            '[turn]\nworkers = 2\ndata_plane = "kernel"',
            [
                (
                    "icebroker.toml:3: turn.data_plane: the kernel relays UDP on all cores by "
                    'itself, for one process; set workers = 1, or data_plane = "auto" where most '
                    "clients come over TCP and TLS"
                ),
            ],
        ),
        (
            (
                '[turn]\nlisten = ["0.0.0.0:443"]\nlisten_udp = ["0.0.0.0:5349"]\n'
                'listen_tls = ["0.0.0.0:443", "0.0.0.0:5349"]\n'
                'listen_dtls = ["0.0.0.0:5349"]\ntls_certificate = "c"\ntls_key = "k"'
            ),
            [
                (
                    "icebroker.toml:5: turn.listen_dtls: 0.0.0.0:5349 is taken for UDP by listen "
                    "or listen_udp; where only TCP is meant there, write listen_tcp"
                ),
            ],
        ),
        (
            '[turn.users]\nanna = "0xbc807ee29df3c9ffa736523fb2c4e8ee"',
            [
                (
                    "icebroker.toml:1: turn.users: 'anna' has a key of coturn's turnadmin; write "
                    "the password itself"
                )
            ],
        ),
        (
            "[turn]\nonly_allowed_peers = true",
            [
                (
                    "icebroker.toml:2: turn.only_allowed_peers: needs allow_peers: without them "
                    "there is nobody to relay to"
                )
            ],
        ),
        (
            '[turn]\nalternate_servers = ["0.0.0.0:3478"]',
            [
                (
                    "icebroker.toml:2: turn.alternate_servers: wants addresses and ports that "
                    "clients can reach"
                )
            ],
        ),
        *(
            (
                f'[turn]\nproxy_protocol_from = ["{everybody}"]',
                [
                    (
                        "icebroker.toml:2: turn.proxy_protocol_from: names everybody, and whoever "
                        "sends a header is whom it says; name the proxies"
                    )
                ],
            )
            for everybody in ("0.0.0.0/0", "::/0")
        ),
        (
            '[turn]\nredirect = "always"',
            [
                (
                    'icebroker.toml:2: turn.redirect: "always" needs alternate_servers to send '
                    "clients to"
                )
            ],
        ),
        *(
            (
                f"[turn]\nnat_discovery = {ends}",
                [
                    (
                        "icebroker.toml:2: turn.nat_discovery: wants pairs of addresses of one "
                        "family that differ in host and in port"
                    )
                ],
            )
            for ends in (
                '["192.0.2.1:1"]',
                '["192.0.2.1:1", "192.0.2.2:1"]',
                '["192.0.2.1:1", "192.0.2.1:2"]',
                '["192.0.2.1:1", "[2001:db8::1]:2"]',
                '["0.0.0.0:1", "192.0.2.1:2"]',
            )
        ),
        (
            '[turn]\nlisten_tls = ["0.0.0.0:5349"]\ntls_key = "key.pem"',
            ["icebroker.toml:2: turn.listen_tls: TLS needs tls_certificate and tls_key, PEM files"],
        ),
        (
            '[turn.users]\n"a:b" = "pw"\n"" = "pw"\ncarol = ""',
            [
                "icebroker.toml:1: turn.users: 'a:b' is no user name: no colon, not empty",
                "icebroker.toml:1: turn.users: '' is no user name: no colon, not empty",
                "icebroker.toml:1: turn.users: the password of 'carol' is empty",
            ],
        ),
        (
            '[signaling]\ntls_certificate = "c.pem"',
            [
                (
                    "icebroker.toml:2: signaling.tls_certificate: tls_key is missing: set both for "
                    "HTTPS, or neither"
                )
            ],
        ),
        (
            '[signaling]\ntls_key = "k.pem"',
            [
                (
                    "icebroker.toml:2: signaling.tls_key: tls_certificate is missing: set both for "
                    "HTTPS, or neither"
                )
            ],
        ),
        (
            f'[signaling]\nallowed_origins = ["*"]\ntoken_secret = "{GOOD}"',
            [
                (
                    'icebroker.toml:2: signaling.allowed_origins: "*" together with token_secret '
                    "or join_url lets any page use a token that it gets hold of; name the origins"
                )
            ],
        ),
        (
            '[signaling]\nwebhook_url = "https://app.example.org/hooks"\njoin_url = "http://x/"',
            [
                f"icebroker.toml:3: signaling.join_url: {UNSIGNED}",
                f"icebroker.toml:2: signaling.webhook_url: {UNSIGNED}",
            ],
        ),
        (
            '[turn]\nwebhook_url = "https://app.example.org/hooks"\nuser_url = "http://x/"',
            [
                f"icebroker.toml:3: turn.user_url: {UNSIGNED}",
                f"icebroker.toml:2: turn.webhook_url: {UNSIGNED}",
            ],
        ),
        (
            f'[signaling]\njoin_url = "https://x/"\nwebhook_secret = "{GOOD}"\nwebhook_timeout = 5',
            [
                (
                    "icebroker.toml:4: signaling.webhook_timeout: not below hello_timeout: a "
                    "client would be cut before your back end answers"
                )
            ],
        ),
        (
            '[redis]\nurl = "redis://localhost"\nca_certificate = "ca.pem"\ntls_key = "k.pem"',
            [
                "icebroker.toml:4: redis.tls_key: tls_certificate is missing: set both, or neither",
                (
                    "icebroker.toml:2: redis.url: ca_certificate and tls_certificate are for TLS; "
                    "write rediss://, or rediss+…://"
                ),
            ],
        ),
        (
            '[redis]\nurl = "redis://localhost"\nsentinel_username = "a"',
            ["icebroker.toml:3: redis.sentinel_username: it needs sentinel_password"],
        ),
        (
            '[redis]\nurl = "redis://localhost"\nsentinel_password = "a"',
            [
                (
                    "icebroker.toml:3: redis.sentinel_password: url names no Sentinels; write "
                    "redis+sentinel://HOST,HOST/SERVICE there"
                )
            ],
        ),
        (
            '[redis]\nurl = "memcached://localhost"',
            [
                (
                    "icebroker.toml:2: redis.url: write redis://HOST, rediss://HOST (TLS), "
                    "redis+sentinel://HOST,HOST/SERVICE or redis+cluster://HOST,HOST"
                )
            ],
        ),
        (
            '[admin]\nprobe_targets = ["turn:a"]',
            [
                (
                    "icebroker.toml:2: admin.probe_targets: probes need admin.token; make one "
                    "with: openssl rand -base64 32"
                )
            ],
        ),
        (
            '[admin]\ntoken = "t"',
            [
                (
                    "icebroker.toml:2: admin.token: the secret is shorter than 16 bytes; make one "
                    "with: openssl rand -base64 32"
                )
            ],
        ),
    ],
)
def test_contradictions(operator: Any, toml: str, problems: list[str]):
    assert operator.problems(toml) == problems


@pytest.mark.parametrize(
    "toml",
    [
        '[turn]\nlisten_tls = ["0.0.0.0:5349"]\ntls_certificate = "c.pem"\ntls_key = "k.pem"',
        (
            '[turn]\nlisten_udp = ["0.0.0.0:443"]\nlisten_tls = ["0.0.0.0:443"]\n'
            'tls_certificate = "c.pem"\ntls_key = "k.pem"'
        ),
        '[turn]\nonly_allowed_peers = true\nallow_peers = ["10.1.2.3/32"]',
        '[turn]\nnat_discovery = ["1.0.0.1:1", "1.0.0.2:2", "[2000::1]:1", "[2000::2]:2"]',
        '[turn]\ndata_plane = "userspace"',
        '[turn]\ndata_plane = "kernel"',
        '[signaling]\ntls_certificate = "c.pem"\ntls_key = "k.pem"',
        '[signaling]\nallowed_origins = ["*"]',
        f'[signaling]\nallowed_origins = ["https://a.org"]\ntoken_secret = "{GOOD}"',
    ],
)
def test_no_contradiction(operator: Any, toml: str):
    operator.settings(toml)


@pytest.mark.parametrize(
    ("toml", "problems"),
    [
        ("", [f"icebroker.toml: turn.secret: {NO_CREDENTIALS}"]),
        ("[turn]", [f"icebroker.toml:1: turn.secret: {NO_CREDENTIALS}"]),
        (
            '[turn]\nlisten = ["127.0.0.1:1", "192.0.2.1:1"]',
            [f"icebroker.toml:1: turn.secret: {NO_CREDENTIALS}"],
        ),
        (
            (
                '[turn]\nlisten = "127.0.0.1:1"\nlisten_tls = "0.0.0.0:2"\ntls_certificate = "c"\n'
                'tls_key = "k"'
            ),
            [
                f"icebroker.toml:4: turn.tls_certificate: c cannot be read: {NOT_THERE}",
                f"icebroker.toml:5: turn.tls_key: k cannot be read: {NOT_THERE}",
                f"icebroker.toml:1: turn.secret: {NO_CREDENTIALS}",
            ],
        ),
        (
            "[turn]\nlisten = []\nstun_only = true",
            [
                (
                    "icebroker.toml:2: turn.listen: listen, listen_udp, listen_tcp, listen_tls and "
                    "listen_dtls are all empty: nobody could come in"
                )
            ],
        ),
        ('[turn]\nsecret = "short"', [f"icebroker.toml:2: turn.secret: {SHORT}"]),
        (
            f'[turn]\nsecret = [\n  "{GOOD}",\n  "an old one",\n]',
            [f"icebroker.toml:2: turn.secret: {SHORT}"],
        ),
        ('[turn]\nlisten = "127.0.0.1:1"', []),
        (
            '[turn]\nlisten = "127.0.0.1:1"\nlisten_tcp = "192.0.2.1:1"',
            [f"icebroker.toml:1: turn.secret: {NO_CREDENTIALS}"],
        ),
        ('[turn]\nlisten = []\nlisten_udp = "127.0.0.1:1"', []),
        ('[turn]\nlisten = ["127.0.0.1:1", "[::1]:1"]\nsecret = "short"', []),
        (f'[turn]\nsecret = "{GOOD}"', []),
        ('[turn]\nsecret = "acht mal zwei: é"', []),  # 16 characters in 17 bytes
        ('[turn.users]\nalice = "pw"', []),
        ("[turn]\nstun_only = true", []),
    ],
)
def test_dangers_of_the_relay(operator: Any, toml: str, problems: list[str]):
    if problems:
        assert operator.problems(toml, services=["turn"]) == problems
    else:
        operator.settings(toml, services=["turn"])


@pytest.mark.parametrize(
    ("toml", "problems"),
    [
        ("", [f"icebroker.toml: signaling.token_secret: {OPEN_ROOMS.format('0.0.0.0:8080')}"]),
        (
            '[signaling]\nlisten = "[::]:80"',
            [f"icebroker.toml:1: signaling.token_secret: {OPEN_ROOMS.format('[::]:80')}"],
        ),
        (
            '[signaling]\ntoken_secret = "short"',
            [f"icebroker.toml:2: signaling.token_secret: {SHORT}"],
        ),
        (
            # A short secret closes nothing: it can be guessed from one token.
            '[signaling]\nlisten = "127.0.0.1:1"\ntoken_secret = "short"',
            [f"icebroker.toml:3: signaling.token_secret: {SHORT}"],
        ),
        ('[signaling]\nlisten = "127.0.0.1:1"', []),
        ('[signaling]\nlisten = "[::1]:1"', []),
        ("[signaling]\nopen = true", []),
        (f'[signaling]\ntoken_secret = "{GOOD}"', []),
    ],
)
def test_dangers_of_signaling(operator: Any, toml: str, problems: list[str]):
    if problems:
        assert operator.problems(toml, services=["signaling"]) == problems
    else:
        operator.settings(toml, services=["signaling"])


def test_the_dangers_of_all_services_that_are_to_run_are_told_together(operator: Any):
    assert operator.problems("[turn]\n[signaling]", services=["turn", "signaling"]) == [
        f"icebroker.toml:1: turn.secret: {NO_CREDENTIALS}",
        f"icebroker.toml:2: signaling.token_secret: {OPEN_ROOMS.format('0.0.0.0:8080')}",
    ]


def test_a_danger_in_a_variable_is_told_with_its_name(operator: Any):
    environment = {"ICEBROKER_TURN__SECRET": "short"}
    assert operator.problems("", environment, services=["turn"]) == [
        f"ICEBROKER_TURN__SECRET: turn.secret: {SHORT}"
    ]


def test_dangers_do_not_keep_other_commands_from_reading(operator: Any):
    assert operator.settings("") == Settings()


def test_the_tree_is_frozen():
    settings = TurnSettings(listen=(Endpoint("127.0.0.1", 1),))
    with pytest.raises(ValueError, match="frozen"):
        settings.realm = "other"
