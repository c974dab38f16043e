"""The certificate of a ``turns:`` server: its dates, its names, and who vouches for it."""

import asyncio
import ssl
import time
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509

from turn.doctor.report import Section
from turn.doctor.target import Target
from turn.doctor.wire import StreamWire

DAY = 86400.0
SOON = 14 * DAY
PATIENCE = 4.0
# X509_V_ERR_* of <openssl/x509_vfy.h>.
OF_DATES = {9, 10}


def judge(section: Section, target: Target, der: bytes) -> None:
    """What the certificate says of itself."""
    certificate = x509.load_der_x509_certificate(der)
    now = time.time()
    begins = certificate.not_valid_before_utc.timestamp()
    ends = certificate.not_valid_after_utc.timestamp()
    if now > ends:
        section.fail(
            "certificate",
            f"the certificate expired on {_day(ends)}",
            "renew it, and have the server load it (systemctl reload, or SIGHUP)",
        )
    elif now < begins:
        section.fail(
            "certificate",
            f"the certificate begins on {_day(begins)}, and here it is {_day(now)}",
            "see whether the clock is right, here and where it was made",
        )
    elif ends - now < SOON:
        section.warn(
            "certificate",
            f"the certificate expires in {(ends - now) / DAY:.0f} days, on {_day(ends)}",
            "renew it, and see why that did not happen by itself",
        )
    else:
        section.ok("certificate", f"is good until {_day(ends)}")
    if not covers(certificate, target.host):
        section.fail(
            "name",
            f"the certificate is for {', '.join(_names(certificate)) or 'no name'}, not for "
            f"{target.host}",
            "use a name that it is for in the URL (turn.hostname), or get one for this name",
        )


async def judge_trust(section: Section, target: Target, host: str, authority: Path | None) -> None:
    """Whether clients can trace it to an authority that they know.

    :param authority: a PEM file with another one that is trusted; None: the system's.
    """
    try:
        # Reading all authorities takes so long that a relay would feel it.
        context = await asyncio.to_thread(ssl.create_default_context, cafile=authority)
    except (OSError, ssl.SSLError) as error:
        section.skip("trust", f"{authority} cannot be read: {error}")
        return
    # The name and the dates were judged; what is left is the chain.
    context.check_hostname = False
    try:
        async with asyncio.timeout(PATIENCE):
            wire = await StreamWire.open(host, target.port, context, target.host)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code not in OF_DATES:
            section.fail(
                "trust",
                f"clients do not trust the certificate: {error.verify_message}",
                "give the server the whole chain in tls_certificate (fullchain.pem), of an "
                "authority that browsers know",
            )
        return
    except (TimeoutError, OSError) as error:
        section.warn("trust", f"a second connection failed: {error}", "try again")
        return
    session = wire.tls
    section.ok("trust", f"{session.version()}, traced to a known authority")
    wire.close()


def covers(certificate: x509.Certificate, host: str) -> bool:
    """Whether a certificate is for this name or address (RFC 6125 §6.4)."""
    names = _alternatives(certificate)
    if names is None:
        return False
    try:
        return ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        pass
    host = host.rstrip(".").lower()
    return any(_matches(name.lower(), host) for name in names.get_values_for_type(x509.DNSName))


def _matches(pattern: str, host: str) -> bool:
    if pattern.startswith("*."):
        return host.partition(".")[2] == pattern[2:]
    return host == pattern


def _names(certificate: x509.Certificate) -> list[str]:
    names = _alternatives(certificate)
    if names is None:
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def _alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return None
    return found.value


def _day(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M UTC")
