"""Whoever leaves is gone at once, over TLS too, where a farewell is easily lost."""

import asyncio
import ssl
from pathlib import Path

from config.certificate import self_signed
from signaling.client import Client
from tests.interop.process import free_port, icebroker


async def leave_and_be_missed(url: str, trust: ssl.SSLContext) -> str:
    """What a peer who stays is told of one who has left."""
    async with Client(url, ssl=trust) as stays:
        await stays.join("room")
        async with Client(url, ssl=trust) as leaves:
            await leaves.join("room")
        async for event in stays.events():
            if event["type"] == "peer" and event["event"] != "join":
                return str(event["event"])
    return "nothing"


def test_a_farewell_over_tls_arrives(tmp_path: Path):
    # The real service: its event loop ends TLS in another way than the one of the tests.
    certificate, key = self_signed(["127.0.0.1"], tmp_path)
    port, admin = free_port(), free_port()
    file = tmp_path / "icebroker.toml"
    file.write_text(
        f"""
        [signaling]
        listen = "127.0.0.1:{port}"
        tls_certificate = "{certificate}"
        tls_key = "{key}"
        [admin]
        listen = "127.0.0.1:{admin}"
        """
    )
    trust = ssl.create_default_context(cafile=str(certificate))
    with icebroker(["signaling", "-c", str(file)], admin, tmp_path / "log"):
        for _ in range(3):
            assert asyncio.run(leave_and_be_missed(f"wss://127.0.0.1:{port}/ws", trust)) == "leave"
