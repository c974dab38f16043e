"""Certificates that the servers of the tests show: each signs itself."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID


def certificate(
    folder: Path,
    *hosts: str,
    days: float = 30,
    authority: bool | None = None,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
) -> tuple[Path, Path]:
    """PEM files of a certificate and its key.

    :param hosts: names and addresses; none: 127.0.0.1.
    :param days: until it ends; negative: since it has ended.
    :param authority: whether others may be signed with it; None: it does not say.
    :param key: None: one on a curve.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    names = hosts or ("127.0.0.1",)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=days)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - datetime.timedelta(hours=1))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName(list(map(_general_name, names))), critical=False)
    )
    if authority is not None:
        constraints = x509.BasicConstraints(ca=authority, path_length=None)
        built = built.add_extension(constraints, critical=True)
    pem, private = folder / "certificate.pem", folder / "key.pem"
    signed = built.sign(key, hashes.SHA256())
    pem.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, private


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
