"""The self-signed certificate: whom it is for, who may read its key, and when it is made anew."""

import socket
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from config import certificate
from config.certificate import self_signed

ADDRESSES = ["192.0.2.1", "2001:db8::1"]


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def alternatives(path: Path) -> x509.SubjectAlternativeName:
    return read(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_whom_it_is_for(tmp_path: Path):
    names = alternatives(self_signed(ADDRESSES, tmp_path)[0])
    hosts = list(dict.fromkeys(["localhost", socket.gethostname()]))
    assert names.get_values_for_type(x509.DNSName) == hosts
    assert names.get_values_for_type(x509.IPAddress) == [ip_address(a) for a in ADDRESSES]


def test_it_is_good_from_now_on_for_less_than_browsers_allow(tmp_path: Path):
    found = read(self_signed(ADDRESSES, tmp_path)[0])
    # The clock of a phone may be behind ours; 398 days is the most that browsers accept.
    assert found.not_valid_before_utc <= datetime.now(UTC) - timedelta(minutes=59)
    assert found.not_valid_after_utc - found.not_valid_before_utc < timedelta(days=398)


def test_it_is_no_certificate_authority(tmp_path: Path):
    found = read(self_signed(ADDRESSES, tmp_path)[0])
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_nobody_else_may_read_the_key(tmp_path: Path):
    (tmp_path / "lan.key").write_text("an old one, open to all")
    (tmp_path / "lan.key").chmod(0o644)
    key = self_signed(ADDRESSES, tmp_path)[1]
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_tls_client_that_trusts_it_shakes_hands(tmp_path: Path):
    files = self_signed(["127.0.0.1"], tmp_path)
    theirs = ssl.create_default_context(cafile=files[0])
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(*files)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = theirs.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    server = ours.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.version() == "TLSv1.3"


def test_it_is_kept(tmp_path: Path):
    first = self_signed(ADDRESSES, tmp_path)
    contents = [path.read_bytes() for path in first]
    # The order of the addresses makes no difference, nor does one that is there twice.
    second = self_signed([*reversed(ADDRESSES), ADDRESSES[0]], tmp_path)
    assert second == first
    assert [path.read_bytes() for path in second] == contents


def test_it_is_made_anew_for_other_addresses(tmp_path: Path):
    first = read(self_signed(ADDRESSES, tmp_path)[0])
    assert read(self_signed(["192.0.2.9"], tmp_path)[0]).serial_number != first.serial_number


@pytest.mark.parametrize(
    ("left", "kept"),
    [(timedelta(days=15), True), (timedelta(days=13), False), (timedelta(minutes=-30), False)],
)
def test_it_is_made_anew_before_it_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: timedelta, *, kept: bool
):
    with monkeypatch.context() as patch:
        # It begins an hour ago.
        patch.setattr(certificate, "LIFETIME", timedelta(hours=1) + left)
        first = read(self_signed(ADDRESSES, tmp_path)[0])
    second = read(self_signed(ADDRESSES, tmp_path)[0])
    assert (second.serial_number == first.serial_number) is kept


@pytest.mark.parametrize("broken", ["lan.key", "lan.pem"])
@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN"])
def test_a_file_that_is_missing_or_cut_short_is_made_anew(
    tmp_path: Path, broken: str, content: bytes | None
):
    self_signed(ADDRESSES, tmp_path)
    (tmp_path / broken).unlink()
    if content is not None:
        (tmp_path / broken).write_bytes(content)
    assert_fits(*self_signed(ADDRESSES, tmp_path))


def test_a_key_of_another_certificate_is_made_anew(tmp_path: Path):
    other = self_signed(ADDRESSES, tmp_path / "other")[1]
    key = self_signed(ADDRESSES, tmp_path)[1]
    key.write_bytes(other.read_bytes())
    assert_fits(*self_signed(ADDRESSES, tmp_path))


def assert_fits(pem: Path, key: Path) -> None:
    assert load_pem_private_key(key.read_bytes(), None).public_key() == read(pem).public_key()


def test_it_lies_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert self_signed(ADDRESSES)[0] == tmp_path / "icebroker" / "lan.pem"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert self_signed(ADDRESSES)[0] == tmp_path / "home" / ".cache" / "icebroker" / "lan.pem"


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        self_signed(ADDRESSES, tmp_path / "file" / "folder")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch):
    def home() -> Path:  # as it does in a container that runs as a number
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(OSError, match="XDG_CACHE_HOME"):
        self_signed(ADDRESSES)
