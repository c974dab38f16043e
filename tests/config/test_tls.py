"""Certificates that a service cannot begin with: named before it starts, with file and key."""

import pytest

from config.certificate import self_signed
from config.load import ConfigError, load
from config.tls import server_context

LOOPBACK = {"ICEBROKER_SIGNALING__LISTEN": "127.0.0.1:0"}


@pytest.fixture
def pair(tmp_path):
    return self_signed(["127.0.0.1"], tmp_path)


def problem(tmp_path, certificate, key, section="turn"):
    listen = 'listen_tls = ["127.0.0.1:0"]' if section == "turn" else 'listen = "127.0.0.1:0"'
    file = tmp_path / "icebroker.toml"
    file.write_text(
        f'[{section}]\n{listen}\ntls_certificate = "{certificate}"\ntls_key = "{key}"\n'
    )
    if section == "turn":
        file.write_text(file.read_text() + 'listen = ["127.0.0.1:0"]\n')
    with pytest.raises(ConfigError) as refused:
        load(file, {}, services=[section])
    return refused.value.problems[0].removeprefix(f"{tmp_path}/")


@pytest.mark.parametrize("section", ["turn", "signaling"])
def test_a_file_that_is_not_there(tmp_path, pair, section):
    missing = tmp_path / "nowhere.pem"
    assert problem(tmp_path, missing, pair[1], section) == (
        f"icebroker.toml:3: {section}.tls_certificate: {missing} cannot be read: "
        "No such file or directory"
    )
    assert problem(tmp_path, pair[0], missing, section).startswith(
        f"icebroker.toml:4: {section}.tls_key: {missing} cannot be read"
    )


def test_files_that_do_not_belong_together(tmp_path, pair):
    (tmp_path / "other").mkdir()
    _, other = self_signed(["127.0.0.1"], tmp_path / "other")
    assert "are no certificate and its key" in problem(tmp_path, pair[0], other)
    assert "are no certificate and its key" in problem(tmp_path, pair[1], pair[1])


def test_a_pair_that_is_right(tmp_path, pair):
    file = tmp_path / "icebroker.toml"
    file.write_text(
        f'[turn]\nlisten = ["127.0.0.1:0"]\nlisten_tls = ["127.0.0.1:0"]\n'
        f'tls_certificate = "{pair[0]}"\ntls_key = "{pair[1]}"\n'
    )
    assert load(file, {}, services=["turn"]).turn.tls_key == pair[1]


def test_what_redis_is_to_be_shown_and_known_by(tmp_path, pair):
    file = tmp_path / "icebroker.toml"
    missing, noise = tmp_path / "nowhere.pem", tmp_path / "noise.pem"
    noise.write_text("nothing")

    def problems(authority):
        file.write_text(
            f'[redis]\nurl = "rediss://localhost"\nca_certificate = "{authority}"\n'
            f'tls_certificate = "{pair[0]}"\ntls_key = "{missing}"\n'
        )
        with pytest.raises(ConfigError) as refused:
            load(file, LOOPBACK, services=["signaling"])
        return [one.removeprefix(f"{tmp_path}/") for one in refused.value.problems]

    no_key = f"icebroker.toml:5: redis.tls_key: {missing} cannot be read: No such file or directory"
    assert problems(pair[0]) == [no_key]
    assert problems(missing) == [
        no_key,
        no_key.replace("5: redis.tls_key", "3: redis.ca_certificate"),
    ]
    _, no_authority = problems(noise)
    assert f"{noise} is no certificate of an authority" in no_authority
    load(file, {})  # a command that starts nothing reads what is there


def test_our_servers_take_only_suites_with_forward_secrecy():
    # Whatever the distribution's Python takes by itself (Debian's: all that OpenSSL knows).
    suites = [one["name"] for one in server_context().get_ciphers() if one["protocol"] != "TLSv1.3"]
    assert suites
    assert all(name.startswith("ECDHE-") for name in suites), suites
