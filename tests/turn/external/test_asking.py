"""Asking servers over real sockets: in order, again where a packet is lost, and only them."""

import asyncio
import secrets
import socket
import threading

import pytest

from config.values import StunServer
from tests.patience import PATIENCE
from tests.turn.external.mirror import answer, mirror, nobody
from turn.codec.message import Message
from turn.external import asking
from turn.external.asking import Answered, Unanswered, ask

PUBLIC = "203.0.113.7"
HERE = "127.0.0.1"
SOON = 0.3
"""Seconds of patience with who is silent."""
LONG = 20.0


async def test_a_server_is_asked_from_the_very_address():
    async with mirror() as one:
        assert await ask("127.0.0.3", [one.server], LONG) == Answered(PUBLIC, one.server)
        assert [host for host, _ in one.asked] == ["127.0.0.3"]
        await ask("127.0.0.3", [one.server], LONG)
        assert len({transaction for _, transaction in one.asked}) == 2


async def test_by_ipv6():
    async with mirror("2001:db8::7", "::1") as one:
        assert await ask("::1", [one.server], LONG) == Answered("2001:db8::7", one.server)


async def test_a_port_that_the_nat_maps_is_told():
    async with mirror() as one:
        one.shift = 1
        assert await ask(HERE, [one.server], LONG) == Answered(PUBLIC, one.server, keeps_port=False)


async def test_a_lost_request_is_sent_again_as_it_was(monkeypatch):
    monkeypatch.setattr(asking, "RTO", 0.02)
    async with mirror() as one:
        one.say = lambda request: (
            [answer(request, PUBLIC, one.last[1])] if len(one.asked) == 3 else []
        )
        assert await ask(HERE, [one.server], LONG) == Answered(PUBLIC, one.server)
        assert len(one.asked) == 3
        assert len(set(one.asked)) == 1


async def test_the_next_server_is_asked_where_one_is_silent_away_or_of_no_use():
    async with mirror("") as silent, mirror("127.0.0.9") as liar, mirror() as good:
        away, unknown = nobody(), StunServer("nobody.invalid", 3478)
        servers = [silent.server, away, unknown, liar.server, good.server]
        assert await ask(HERE, servers, SOON) == Answered(PUBLIC, good.server)
        result = await ask(HERE, servers[:4], SOON)
        assert isinstance(result, Unanswered)
        told = result.reason.split("; ")
        assert told[0] == f"{silent.server} does not answer"
        assert told[1] == f"{away}: Connection refused"
        assert told[2].startswith("stun:nobody.invalid:3478")
        assert told[3] == f"{liar.server} says 127.0.0.9, where no peer could reach us"


async def test_a_server_of_another_family_is_not_asked():
    async with mirror() as one:
        assert await ask("::1", [one.server], LONG) is None
        assert not one.asked


async def test_an_address_that_is_gone_is_told():
    async with mirror() as one:
        result = await ask("192.0.2.77", [one.server], LONG)
    assert isinstance(result, Unanswered)
    assert "Cannot assign requested address" in result.reason


@pytest.mark.parametrize(
    "hostile",
    [
        lambda request: answer(request, "198.51.100.9", transaction_id=secrets.token_bytes(12)),
        lambda _: b"garbage",
        lambda _: b"",
        lambda request: request.raw,
        lambda request: answer(request, "198.51.100.9")[:-4],
    ],
    ids=["transaction", "garbage", "nothing", "echo", "truncated"],
)
async def test_what_is_no_answer_changes_nothing(hostile):
    async with mirror() as one:
        one.say = lambda request: [hostile(request)] * 50 + [answer(request, PUBLIC, one.last[1])]
        assert await ask(HERE, [one.server], LONG) == Answered(PUBLIC, one.server)
        one.say = lambda request: [hostile(request)] * 50
        assert isinstance(await ask(HERE, [one.server], SOON), Unanswered)


async def test_an_answer_from_elsewhere_is_nobodys():
    """It has everything right but where it comes from: another port, another address."""
    async with mirror() as one:
        others = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for other, host in zip(others, (HERE, "127.0.0.2"), strict=True):
            other.bind((host, 0))

        def from_elsewhere(request: Message) -> list[bytes]:
            for other in others:
                other.sendto(answer(request, "198.51.100.9"), one.last)
            return [answer(request, PUBLIC, one.last[1])] if one.public else []

        one.say = from_elsewhere
        assert await ask(HERE, [one.server], LONG) == Answered(PUBLIC, one.server)
        one.public = ""
        assert isinstance(await ask(HERE, [one.server], SOON), Unanswered)
        for other in others:
            other.close()


def test_a_resolver_that_hangs_keeps_no_process(monkeypatch):
    """A loop waits for its own threads when it ends: this one is not of them."""
    ends, told = threading.Event(), []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: ends.wait(PATIENCE) and [])
    server = StunServer("stun.example.org", 3478)
    whole = threading.Thread(target=lambda: told.append(asyncio.run(ask(HERE, [server], SOON))))
    whole.start()
    whole.join(PATIENCE / 2)
    is_kept = whole.is_alive()
    ends.set()
    whole.join()
    assert not is_kept
    assert told == [Unanswered(f"{server} does not answer")]
