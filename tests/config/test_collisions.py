"""TCP ports that two listeners of one process want are told before it starts, with the line."""

import asyncio
import errno
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import uvloop
from aiohttp import web

from config.values import Endpoint, parse_endpoint
from tests.interop.process import free_port
from turn.admin.door import Door
from turn.transport.bind import bind_tcp

GOOD = "a secret of 16 or more bytes"
MOVE = "give one of them another port or address"
UDP_ALONE = "write turn.listen_udp where only UDP is meant there"
APART = "or run and check the services by themselves (--only) where each has a machine of its own"
BOTH = ("turn", "signaling")
HOSTS = ("0.0.0.0", "127.0.0.1", "127.0.0.2", "::", "::1")


def toml(turn: str = "", signaling: str = "", admin: str = "") -> str:
    return (
        f'[turn]\nsecret = "{GOOD}"\n{turn}\n'
        f'[signaling]\ntoken_secret = "{GOOD}"\n{signaling}\n[admin]\n{admin}\n'
    )


@pytest.mark.parametrize(
    ("text", "services", "problem"),
    [
        (
            toml('listen = "0.0.0.0:443"', 'listen = "10.0.0.5:443"'),
            BOTH,
            (
                "icebroker.toml:6: signaling.listen: 10.0.0.5:443 meets turn.listen (0.0.0.0:443) "
                f"over TCP; {MOVE}, {UDP_ALONE}, {APART}"
            ),
        ),
        (
            toml('listen_tcp = ["10.0.0.5:444", "10.0.0.5:443"]', 'listen = "0.0.0.0:443"'),
            BOTH,
            (
                "icebroker.toml:6: signaling.listen: 0.0.0.0:443 meets turn.listen_tcp "
                f"(10.0.0.5:443) over TCP; {MOVE}, {APART}"
            ),
        ),
        (  # signaling's default has no line
            toml('listen = "[::]:8080"\nlisten_tcp = ["10.0.0.5:8080"]'),
            BOTH,
            (
                "icebroker.toml:4: turn.listen_tcp: 10.0.0.5:8080 meets signaling.listen "
                f"(0.0.0.0:8080) over TCP; {MOVE}, {APART}"
            ),
        ),
        (
            toml(admin='listen = ["127.0.0.1:9641", "0.0.0.0:3478"]'),
            ["turn"],
            (
                "icebroker.toml:8: admin.listen: 0.0.0.0:3478 meets turn.listen (0.0.0.0:3478) "
                f"over TCP; {MOVE}, {UDP_ALONE}"
            ),
        ),
        (
            toml(signaling='listen = "[::]:80"', admin='listen = ["127.0.0.1:1", "[::1]:80"]'),
            ["signaling"],
            (
                "icebroker.toml:8: admin.listen: [::1]:80 meets signaling.listen ([::]:80) over "
                f"TCP; {MOVE}"
            ),
        ),
    ],
)
def test_a_port_that_two_want(operator: Any, text: str, services: Sequence[str], problem: str):
    assert operator.problems(text, services=services) == [problem]


def test_tls_wants_tcp_as_well(operator: Any):
    pair = 'listen_tls = "0.0.0.0:443"\ntls_certificate = "c"\ntls_key = "k"'
    *_, told = operator.problems(toml(pair, 'listen = "10.0.0.5:443"'), services=BOTH)
    assert told.startswith("icebroker.toml:8: signaling.listen: 10.0.0.5:443 meets turn.listen_tls")


def test_it_is_told_with_the_variable(operator: Any):
    variables = {"ICEBROKER_ADMIN__LISTEN": "127.0.0.1:8080"}
    (told,) = operator.problems(toml(), variables, services=BOTH)
    assert told.startswith("ICEBROKER_ADMIN__LISTEN: admin.listen: 127.0.0.1:8080 meets signaling.")


@pytest.mark.parametrize(
    ("text", "services"),
    [
        (toml('listen = "0.0.0.0:443"', 'listen = "[::]:443"'), BOTH),
        (toml('listen = "10.0.0.5:443"', 'listen = "10.0.0.6:443"'), BOTH),
        (toml('listen_udp = "0.0.0.0:443"', 'listen = "0.0.0.0:443"'), BOTH),
        (toml('listen = "0.0.0.0:443"', 'listen = "0.0.0.0:443"'), ["turn"]),
        (toml('listen = "0.0.0.0:443"', 'listen = "0.0.0.0:443"'), ["signaling"]),
        (toml('listen = "0.0.0.0:443"', 'listen = "0.0.0.0:443"'), []),
        (
            toml('listen = "0.0.0.0:0"', 'listen = "0.0.0.0:0"', 'listen = "127.0.0.1:0"'),
            BOTH,
        ),
    ],
    ids=["families", "hosts", "udp", "turn", "signaling", "nothing-runs", "any-port"],
)
def test_ports_that_nobody_else_wants(operator: Any, text: str, services: Sequence[str]):
    operator.settings(text, services=services)


async def both_listen(relay: Endpoint, other: Endpoint, *, workers: bool) -> bool:
    """Whether real listeners of the relay and of HTTP can have these places at once."""
    runner = web.AppRunner(web.Application())
    await runner.setup()
    try:
        with bind_tcp(*relay, shared=workers) as sock:
            sock.listen()
            await Door(runner, other).start()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    finally:
        await runner.cleanup()
    return True


@pytest.mark.parametrize("workers", [False, True])
def test_the_kernel_says_the_same(workers: bool):
    async def differences() -> list[str]:
        found = []
        for pair in product(HOSTS, repeat=2):
            port = free_port()
            relay, other = (Endpoint(host, port) for host in pair)
            if await both_listen(relay, other, workers=workers) == relay.meets(other):
                found.append(f"{relay} {other}")
        return found

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(differences()) == []


def test_port_0_is_another_one_each_time():
    place = parse_endpoint("127.0.0.1:0")
    assert not place.meets(place)
