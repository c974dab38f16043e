"""Clients whom only a back end knows: aioice and coturn's, over UDP, TCP and TLS."""

import asyncio
from pathlib import Path
from typing import Any

import aioice
import pytest

from tests.interop.process import relay
from tests.interop.test_aioice import agent, connect
from tests.interop.uclient import echo_peer, run
from tests.receiver import SECRET, receiver
from tests.turn.asked import asked, knows


async def meet(one: aioice.Connection, two: aioice.Connection) -> None:
    """Let two agents find each other through the relay, and close them."""
    await asyncio.gather(one.gather_candidates(), two.gather_candidates())
    await connect(one, two)
    await one.send(b"by way of the relay")
    assert await two.recv() == b"by way of the relay"
    await asyncio.gather(one.close(), two.close())


@pytest.mark.parametrize("workers", [1, 2])
async def test_aioice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    async with receiver() as back_end:
        knows(back_end, carol="secretpw")
        turn: dict[str, Any] = {
            "user_url": back_end.url,
            "webhook_secret": SECRET,
            "workers": workers,
        }
        with relay(tmp_path, **turn) as server:
            monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
            for transport in ("udp", "tcp", "tls"):
                pair = [agent(server, transport, controlling=first) for first in (True, False)]
                for one in pair:
                    one.turn_username = "carol"
                await meet(*pair)
            name = 'icebroker_turn_user_decisions_total{result="%s"}'
            assert server.metrics()[name % "allowed"] == len(asked(back_end))
            stranger = agent(server, "udp", controlling=True)
            stranger.turn_username = "mallory"
            await stranger.gather_candidates()
            assert stranger.local_candidates == []
            await stranger.close()
            assert server.metrics()[name % "refused"] >= 1
    assert set(asked(back_end)) == {"carol", "mallory"}


@pytest.mark.parametrize("line", ["", "-t", "-t -S", "-S"])
async def test_coturn_s_client(tmp_path: Path, line: str) -> None:
    async with receiver() as back_end:
        knows(back_end, carol="secretpw")
        turn: dict[str, Any] = {"user_url": back_end.url, "webhook_secret": SECRET, "user_cache": 0}
        with relay(tmp_path, **turn) as server, echo_peer() as peer:
            port = server.tls_port if "-S" in line else server.port
            places = ["-p", str(port), "-e", "127.0.0.1", "-r", str(peer)]
            user = ["-u", "carol", "-w", "secretpw"]
            options = [*line.split(), "-c", "-n", "5", *places, *user, "127.0.0.1"]
            code, output = await asyncio.to_thread(run, options)
    assert code == 0, output
    assert asked(back_end)
