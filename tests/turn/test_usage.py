"""A line in the log as each allocation begins and ends, for those who ask for it."""

import asyncio
import json
import signal
import socket
from typing import Any

import pytest

from tests.patience import PATIENCE
from tests.shell import Ports, Service, Shell, answers
from tests.turn.live import Client
from turn.codec import registry
from turn.codec.registry import Method
from turn.codec.values import Address

LINES = ("allocation begins", "allocation ends")
PAYLOAD = bytes(100)


def configuration(ports: Ports, *, log: str, turn: str = "") -> str:
    return (
        f'[turn]\nlisten = "127.0.0.1:{ports.turn}"\nusers = {{alice = "pw"}}\n'
        f'data_plane = "userspace"\nallow_peers = ["127.0.0.0/8"]\n{turn}\n'
        f'[admin]\nlisten = "127.0.0.1:{ports.admin}"\n[log]\n{log}\n'
    )


def told(service: Service) -> list[dict[str, Any]]:
    """The lines about allocations, as their reader gets them."""
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    return [line for line in lines if line["event"] in LINES]


def reload(service: Service) -> None:
    """Have it read its configuration again."""

    def times() -> int:
        return service.log.read_text().count("configuration reloaded")

    before = times()
    service.process.send_signal(signal.SIGHUP)
    service.wait_for(lambda: times() > before)


async def call(client: Client) -> Address:
    """An allocation that sends one packet, and its end; gives the relayed address."""
    relayed = await client.allocate()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(PATIENCE)
        channel = (
            (registry.CHANNEL_NUMBER, 0x4000),
            (registry.XOR_PEER_ADDRESS, Address(*peer.getsockname())),
        )
        await client.request(Method.CHANNEL_BIND, *channel)
        await client.send(b"\x40\x00" + len(PAYLOAD).to_bytes(2) + PAYLOAD)
        # Workers have requests in another queue than data: the end could come first.
        assert await asyncio.to_thread(peer.recv, 200) == PAYLOAD
    await client.request(Method.REFRESH, (registry.LIFETIME, 0))
    return relayed


@pytest.mark.parametrize("workers", [1, 2])
async def test_it_says_who_had_which_address_and_what_it_carried(
    shell: Shell, ports: Ports, connect: Any, workers: int
):
    """Also where nothing else of that importance is written."""
    log = 'level = "error"\nallocations = true'
    shell.write(configuration(ports, log=log, turn=f"workers = {workers}"))
    with shell.running("turn") as service:
        service.wait_for(lambda: answers(f"http://127.0.0.1:{ports.admin}/readyz"))
        client = await connect(ports.turn)
        relayed = await call(client)
        service.wait_for(lambda: len(told(service)) == 2)
        who = {
            "user": "alice",
            "transport": "udp",
            "client": "{}:{}".format(*client.sock.getsockname()),
            "relayed": [str(relayed)],
        }
        begins, ends = told(service)
        assert begins | who | {"event": LINES[0], "level": "info"} == begins
        carried = {"sent_packets": 1, "sent_bytes": len(PAYLOAD), "received_packets": 0}
        assert ends | who | carried | {"event": LINES[1], "reason": "released"} == ends
        assert begins["allocation"] == ends["allocation"]
        assert {"timestamp", *(("worker",) if workers > 1 else ())} <= begins.keys()


async def test_without_being_asked_it_says_nothing_and_a_reload_asks(
    shell: Shell, ports: Ports, connect: Any
):
    shell.write(configuration(ports, log='level = "debug"'))
    with shell.running("turn") as service:
        service.wait_for(lambda: answers(f"http://127.0.0.1:{ports.admin}/readyz"))
        await call(await connect(ports.turn))
        for setting, lines in (("true", 2), ("false", 2)):
            shell.write(configuration(ports, log=f"allocations = {setting}"))
            reload(service)
            await call(await connect(ports.turn))
            assert len(told(service)) == lines
