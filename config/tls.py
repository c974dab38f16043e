"""How our servers speak TLS, and whether it can begin with the files that an operator names."""

import ssl
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from config.files import reason

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:!aNULL:!AESCCM"
"""Forward secrecy, always (RFC 8489 §6.2.3, RFC 9325 §4.2); TLS 1.3 has nothing else."""


def server_context() -> ssl.SSLContext:
    """For TLS 1.2 and 1.3, without a certificate yet.

    The suites are named, as what Python takes by itself is the distribution's choice: Debian's
    Python takes what OpenSSL knows, also without forward secrecy.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    return context


def expiry(certificate: Path) -> float:
    """Unix time at which the first of a chain ends. :raises OSError, ValueError: there is none."""
    loaded = x509.load_pem_x509_certificates(certificate.read_bytes())
    return min(one.not_valid_after_utc.timestamp() for one in loaded)


def unusable(certificate: Path | None, key: Path | None) -> Iterator[tuple[str, str]]:
    """The key of a section and what is wrong with its file; nothing where none is set."""
    if not certificate or not key:
        return
    readable = True
    for name, file in (("tls_certificate", certificate), ("tls_key", key)):
        try:
            file.read_bytes()
        except OSError as error:
            readable = False
            yield name, f"{file} cannot be read: {reason(error)}"
    try:
        if readable:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        text = f"{certificate} and {key} are no certificate and its key (PEM, without a password)"
        yield "tls_certificate", f"{text}: {error}"


def unusable_authority(name: str, file: Path | None) -> Iterator[tuple[str, str]]:
    """The same for a file with authorities. :param name: the key that names it."""
    if not file:
        return
    try:
        ssl.create_default_context(cafile=str(file))
    except ssl.SSLError as error:
        yield name, f"{file} is no certificate of an authority (PEM): {error}"
    except OSError as error:
        yield name, f"{file} cannot be read: {reason(error)}"
