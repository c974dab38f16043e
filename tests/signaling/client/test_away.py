"""The Python client before it is connected: it tries on, and says why it has to."""

import asyncio

import pytest

from signaling.client import Client, pacing
from tests.interop.process import free_port
from tests.patience import until
from tests.signaling.live import signaling

AWAY = "no connection to signaling"


@pytest.fixture
def told(capsys):
    """Gives all that was logged so far."""
    lines: list[str] = []

    def read() -> str:
        lines.append(capsys.readouterr().out)
        return "".join(lines)

    return read


async def test_why_there_is_no_connection_is_told_once_and_when_there_is_one(told, monkeypatch):
    monkeypatch.setattr(pacing, "LONGEST_DELAY", 0.1)
    port = free_port()
    one = Client(f"ws://127.0.0.1:{port}/ws")
    entering = asyncio.create_task(one.__aenter__())
    await until(lambda: AWAY in told())
    assert "Cannot connect" in told()
    await asyncio.sleep(0.5)  # it tries on
    async with signaling(listen=f"127.0.0.1:{port}"):
        await entering
        assert "connected to signaling" in told()
        assert told().count(AWAY) == 1
        await one.close()


async def test_a_path_that_is_not_there_is_told_without_what_is_in_the_url(told):
    async with signaling() as service:
        host, port = service.addresses[0]
        wrong = Client(f"ws://{host}:{port}/nowhere?key=canary")
        entering = asyncio.create_task(wrong.__aenter__())
        await until(lambda: AWAY in told())
        entering.cancel()
        await asyncio.gather(entering, return_exceptions=True)
    (line,) = [line for line in told().splitlines() if AWAY in line]
    assert "HTTP status 404" in line
    assert "canary" not in line
