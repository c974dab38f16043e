"""Whether TLS can begin with the files that an operator names."""

import ssl
from collections.abc import Iterator
from pathlib import Path


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
            yield name, f"{file} cannot be read: {error.strerror}"
    try:
        if readable:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        text = f"{certificate} and {key} are no certificate and its key (PEM, without a password)"
        yield "tls_certificate", f"{text}: {error}"
