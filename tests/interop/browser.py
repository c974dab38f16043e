"""Chromium against the real services: what its tests start, and how they look into a page."""

import datetime
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from config.schema import SignalingSettings, TurnSettings
from signaling.ice import IceProvider, Server
from signaling.server import SignalingService
from turn.server import TurnService

FLAGS = (
    "--no-sandbox",
    "--disable-quic",
    "--disable-background-networking",
    # Without this there are no candidates on loopback, and nothing says so.
    "--allow-loopback-in-peer-connection",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    # Applies to `turns:` too; the certificate is the test's own.
    "--ignore-certificate-errors",
    "--auto-select-desktop-capture-source=Entire screen",
)
SECRET = "a secret of the browser tests"


class Stage(NamedTuple):
    """A running relay and signaling service, on loopback."""

    url: str
    urls: dict[str, str]
    """The relay's ICE URLs: stun, udp, tcp, tls."""
    signaling: SignalingService
    turn: TurnService

    @property
    def websocket(self) -> str:
        """Where the client connects to."""
        return self.url.replace("http", "ws") + "/ws"


@asynccontextmanager
async def stage(folder: Path, **signaling_settings: Any) -> AsyncIterator[Stage]:
    """Start both services; ``folder`` takes the certificate."""
    certificate, key = certificate_files(folder)
    port, tls_port = free_port(), free_port()
    turn = TurnService(
        TurnSettings.model_validate(
            {
                "listen": [f"127.0.0.1:{port}"],
                "listen_tls": [f"127.0.0.1:{tls_port}"],
                "tls_certificate": certificate,
                "tls_key": key,
                "secret": SECRET,
                "allow_peers": ["127.0.0.0/8"],
                "max_allocations_per_user": 0,
                "max_allocations_per_address": 0,
            }
        )
    )
    urls = {
        "stun": f"stun:127.0.0.1:{port}",
        "udp": f"turn:127.0.0.1:{port}?transport=udp",
        "tcp": f"turn:127.0.0.1:{port}?transport=tcp",
        "tls": f"turns:127.0.0.1:{tls_port}?transport=tcp",
    }
    relay = (urls["udp"], urls["tcp"], urls["tls"])
    ice = IceProvider([Server((urls["stun"],)), Server(relay)], SECRET, 3600)
    settings = {"listen": "127.0.0.1:0", **signaling_settings}
    signaling = SignalingService(SignalingSettings.model_validate(settings), ice)
    await turn.start()
    await signaling.start()
    try:
        host, signaling_port = signaling.addresses[0]
        yield Stage(f"http://{host}:{signaling_port}", urls, signaling, turn)
    finally:
        await signaling.stop()
        await turn.stop()


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Debian's Chromium, with a camera and a microphone that are not real."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=list(FLAGS)
        )
        yield browser
        await browser.close()


async def blank_page(context: BrowserContext, url: str) -> Page:
    """A page of the server's origin with nothing on it but the client, as ``window.icebroker``."""
    page = await context.new_page()
    # Any file that the server itself serves: Chromium keeps a page from elsewhere off loopback.
    await page.goto(url + "/assets/client/sdp.js")
    await page.evaluate("import('/client.js').then((client) => { window.icebroker = client; })")
    return page


def free_port() -> int:
    """A port that is free now for UDP and TCP on loopback."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def certificate_files(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "cert.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_file, key_file
