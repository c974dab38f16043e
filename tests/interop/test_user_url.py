"""Clients whom only a back end knows, aioice and coturn's, and what it is told of them."""

import asyncio
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aioice
import pytest

from tests.interop.process import relay
from tests.interop.test_aioice import agent, connect
from tests.interop.uclient import echo_peer, run
from tests.patience import until
from tests.receiver import SECRET, Receiver, receiver
from tests.turn.asked import asked, knows
from tests.turn.live import Client


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


@pytest.mark.parametrize("workers", [1, 2])
async def test_what_a_process_closes_as_it_ends_is_in_the_bill(
    tmp_path: Path, workers: int
) -> None:
    async with receiver() as back_end:
        knows(back_end, carol="secretpw")
        urls = {"user_url": back_end.url, "webhook_url": back_end.url, "webhook_secret": SECRET}
        turn: dict[str, Any] = {**urls, "workers": workers, "drain_timeout": 0}
        with ExitStack() as stack:
            server = stack.enter_context(relay(tmp_path, **turn))
            one = await Client("carol", "secretpw").connect(server.port)
            stack.callback(one.close)
            await one.allocate()
            await until(lambda: "allocation.created" in kinds(back_end))
            os.kill(server.pid, signal.SIGHUP)
            await until(lambda: "configuration reloaded" in server.log.read_text())
            await asyncio.to_thread(stack.close)  # SIGTERM; the back end answers meanwhile
        closed = back_end.got[-1]["data"]
    assert (closed["user"], closed["reason"]) == ("carol", "shutdown")


def kinds(back_end: Receiver) -> list[str]:
    """What came, in short."""
    return [message["type"] for message in back_end.got]
