"""The self-signed certificate of ``serve --lan``: browsers give the camera to HTTPS only.

It is kept in the user's cache folder, so that the exception that a phone was given outlives a
restart, and made anew when it is about to expire or the machine's addresses have changed.
"""

import os
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=365)
RENEW_BEFORE = timedelta(days=14)


def self_signed(addresses: Sequence[str], folder: Path | None = None) -> tuple[Path, Path]:
    """A certificate for these addresses and this machine's name; gives (certificate, key).

    :raises OSError: there is no folder for it, or it cannot be written.
    """
    folder = folder or _cache_folder()
    certificate, key = folder / "lan.pem", folder / "lan.key"
    names = _names(addresses)
    if not _is_good(certificate, key, names):
        folder.mkdir(parents=True, exist_ok=True)
        _make(certificate, key, names)
    return certificate, key


def _cache_folder() -> Path:
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "icebroker"
    try:
        return Path.home() / ".cache" / "icebroker"
    except RuntimeError:
        raise OSError("this user has no home folder; set XDG_CACHE_HOME to a folder") from None


def _names(addresses: Sequence[str]) -> list[x509.GeneralName]:
    hosts = ["localhost", socket.gethostname()]
    return [
        *(x509.DNSName(host) for host in dict.fromkeys(hosts)),
        *(x509.IPAddress(ip_address(address)) for address in sorted(set(addresses))),
    ]


def _is_good(certificate: Path, key: Path, names: list[x509.GeneralName]) -> bool:
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        kept = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    fresh = found.not_valid_after_utc - datetime.now(UTC) > RENEW_BEFORE
    # A write that was cut short may have left a key that is not this certificate's.
    return fresh and private.public_key() == found.public_key() and list(kept) == names


def _make(certificate: Path, key: Path, names: list[x509.GeneralName]) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Icebroker on this network")])
    begins = datetime.now(UTC) - timedelta(hours=1)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )
    # The key is never readable by others, not even for a moment.
    descriptor = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
