"""Strangers cause few questions to the operator's back end, and none that keeps users out."""

import asyncio
import time

import pytest
from aiohttp import web

from tests.patience import until
from tests.receiver import SECRET, receiver
from tests.turn.asked import allocate, asked, asking_relay, challenged, code_of, hangs, knows
from tests.turn.live import UDP, Client, port_of, relay
from tests.turn.secure import DtlsClient, connected, everywhere
from turn import back_end as shell
from turn.allocation.asking import LONGEST
from turn.codec.message import parse_untrusted
from turn.codec.registry import Attribute, Method
from turn.codec.values import octets
from turn.routes import Transport
from turn.stats import DropReason


@pytest.fixture
async def back_end():
    async with receiver() as running:
        knows(running, alice="pw")
        yield running


@pytest.fixture
def come():
    """Connects a client from an address of its own."""
    clients = []

    async def connect(service, name="alice", source="127.0.0.1", **how):
        clients.append(Client(name, "pw"))
        port = port_of(service, "tcp" if how.get("tcp") else "udp")
        return await clients[-1].connect(port, source=source, **how)

    yield connect
    for client in clients:
        client.close()


async def ask(client, name):
    """Send an Allocate in another name."""
    client.username = name
    await client.send(client.encode(Method.ALLOCATE, UDP))


async def test_who_echoes_no_fresh_nonce_of_its_own_address_causes_no_question(back_end, come):
    async with asking_relay(back_end, nonce_lifetime=1) as service:
        one, other = await come(service), await come(service, source="127.0.0.9")
        await challenged(one)
        for nonce, expected in ((one.nonce, 438), ("made up", 438), ("", 438)):
            other.nonce = nonce
            await ask(other, "alice")
            assert code_of(parse_untrusted(await other.receive())) == expected
        until_stale = time.time() + 1.1
        await until(lambda: time.time() > until_stale)
        await ask(one, "alice")
        assert code_of(parse_untrusted(await one.receive())) == 438
        for name in ("", "a\x00b", "a\nb"):  # which nobody can have
            one.nonce = None
            one.username = name
            assert code_of(await one.request(Method.ALLOCATE, UDP)) in {400, 401}
        assert back_end.got == []


async def test_a_flood_of_names_keeps_no_user_out(back_end, come):
    """One address fills its own share, of what is asked at a time and of what waits."""
    under_way, most = 0, 0

    async def answer(message):
        nonlocal under_way, most
        if message["data"]["user"] in {"alice", "bob"}:
            return web.json_response({"password": "pw"})
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(3600)
        return web.Response()

    back_end.answer = answer
    async with asking_relay(back_end, webhook_timeout=60) as service:
        assert await allocate(await come(service)) == 0
        flooder = await challenged(await come(service, source="127.0.0.9"))
        for number in range(300):
            await ask(flooder, f"name {number}")
        await until(lambda: service.stats.drops[DropReason.TOO_MANY_QUESTIONS] == 300 - 64)
        await until(lambda: under_way)
        back_end_asked = service._back_end
        assert back_end_asked._in_all == shell.MOST_OF_A_SOURCE
        assert await allocate(await come(service)) == 0, "it is remembered"
        assert await allocate(await come(service, "bob", "127.0.0.3")) == 0, "and this one is new"
        again = await come(service, source="127.0.0.9")
        assert await allocate(again) == 0, "also where the flood comes from"
        assert most <= shell.MOST_OF_A_SOURCE_AT_ONCE


async def test_what_all_together_may_have_wait_is_bounded(back_end, come, monkeypatch):
    monkeypatch.setattr(shell, "MOST_WAITING", 20)
    held = asyncio.Event()

    async def answer(_):
        await held.wait()
        return web.json_response({"password": "pw"})

    back_end.answer = answer
    async with asking_relay(back_end) as service:
        for number in range(30):
            client = await challenged(await come(service, source=f"127.0.1.{number + 1}"))
            await ask(client, "alice")
        await until(lambda: service.stats.drops[DropReason.TOO_MANY_QUESTIONS] == 10)
        assert service._back_end._in_all == 20
        over_tcp = await come(service, source="127.0.2.1", tcp=True)
        assert await allocate(over_tcp) == 500
        held.set()
        await until(lambda: len(service._engine.table) == 20)
        await until(lambda: not service._back_end._in_all)
        assert not service._back_end._questions
        assert not service._back_end._waiting


@pytest.mark.parametrize("tcp", [False, True])
async def test_what_waits_is_no_longer_than_requests_have_to_be(back_end, come, tcp):
    hangs(back_end)
    async with asking_relay(back_end, webhook_timeout=60) as service:
        client = await challenged(await come(service, tcp=tcp))
        filler = Attribute(0x8099, "", octets())
        assert code_of(await client.request(Method.ALLOCATE, UDP, (filler, bytes(LONGEST)))) == 400
        assert service._back_end._in_all == 0
        await client.send(client.encode(Method.ALLOCATE, UDP, (filler, bytes(LONGEST - 400))))
        await until(lambda: service._back_end._in_all == 1)


async def test_who_comes_and_goes_leaves_no_more_questions_behind(back_end, tmp_path):
    """A session that is over waits for no answer, but its questions are still to be asked."""
    hangs(back_end)
    async with (
        asking_relay(back_end, webhook_timeout=60, **everywhere(tmp_path)) as service,
        connected(service, Transport.DTLS) as client,
    ):
        assert isinstance(client, DtlsClient)
        for visit in range(4):
            client.nonce = None
            await challenged(client)
            for number in range(shell.MOST_OF_A_SOURCE // 2):
                await ask(client, f"name {visit} {number}")
            client.begin_anew()
            await client.shake()
        most = shell.MOST_OF_A_SOURCE
        await until(lambda: service.stats.drops[DropReason.TOO_MANY_QUESTIONS] == most)
        assert len(service._back_end._questions) == most


async def test_what_nobody_waits_for_any_more_is_not_asked(back_end, tmp_path):
    go_on = hangs(back_end)
    async with asking_relay(back_end, webhook_timeout=60, **everywhere(tmp_path)) as service:
        async with connected(service, Transport.DTLS) as client:
            assert isinstance(client, DtlsClient)
            await challenged(client)
            for number in range(3 * shell.MOST_OF_A_SOURCE_AT_ONCE):
                await ask(client, f"name {number}")
            await until(lambda: len(back_end.got) == shell.MOST_OF_A_SOURCE_AT_ONCE)
            client.begin_anew()
            await client.shake()
        go_on.set()
        await until(lambda: not service._back_end._questions)
        assert (service._back_end._in_all, service._back_end._waiting) == (0, {})
        assert len(back_end.got) == shell.MOST_OF_A_SOURCE_AT_ONCE


async def test_one_address_asks_no_more_a_second_than_it_may_draw_replies(back_end, come):
    async with asking_relay(back_end, max_unproved_replies_per_second=20, user_cache=0) as service:
        flooder = await challenged(await come(service, source="127.0.0.9"))
        began = time.monotonic()
        for number in range(60):
            await ask(flooder, f"name {number}")
        await until(lambda: len(back_end.got) == 60)
        assert time.monotonic() - began > 1.8, "20 at once and 20 a second"
        assert service.stats.user_decisions == {"refused": 60}


async def test_what_users_ask_for_takes_nothing_of_that_share(back_end, come):
    async with asking_relay(back_end, max_unproved_replies_per_second=1, user_cache=0) as service:
        began = time.monotonic()
        for _ in range(20):
            assert await allocate(await come(service, tcp=True)) == 0
        assert time.monotonic() - began < 10, "and not a second each"


async def test_a_no_is_not_sent_to_whoever_else_asks_by_that_name(back_end, come):
    """Of one name, host and transport there is one question, and each gets a verdict of its own."""
    held = asyncio.Event()

    async def answer(_):
        await held.wait()
        return web.json_response({"password": "pw"})

    back_end.answer = answer
    async with asking_relay(back_end) as service:
        good, bad = await challenged(await come(service)), await challenged(await come(service))
        bad.key = bytes(16)
        for client in (bad, good):
            await ask(client, "alice")
        await until(lambda: service._back_end._in_all == 2)
        held.set()
        assert code_of(parse_untrusted(await good.receive())) == 0
        assert code_of(parse_untrusted(await bad.receive())) == 401
        assert asked(back_end) == ["alice"]


async def test_passwords_and_keys_are_in_no_line_of_the_log(back_end, come, capsys):
    secret = "canary-of-a-password"
    back_end.says(password=secret)
    async with asking_relay(back_end) as service:
        assert await allocate(await come(service)) == 401
        back_end.says(500, password=secret)
        assert await allocate(await come(service, "bob", tcp=True)) == 500
    written = "".join(capsys.readouterr())
    assert secret not in written
    assert "nobody says who clients are" in written


@pytest.mark.parametrize(
    "answer",
    [
        b'{"password":"canary"}\r\n\r\n',
        b'HTTP/1.1 200 OK\r\n{"password":"canary"}\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{"password":"canary"}\r\n',
        b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"password":"canary"}',
        b"HTTP/1.1 200 OK\r\nX-Password: canary\r\n",
    ],
)
async def test_nor_is_what_garbles_them_or_the_query_of_the_url(come, capsys, answer):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as garbled:
        host, port = garbled.sockets[0].getsockname()
        url = f"http://{host}:{port}/hooks?token=canary"
        async with relay(users={}, user_url=url, webhook_secret=[SECRET]) as service:
            assert await allocate(await come(service, tcp=True)) == 500
    written = "".join(capsys.readouterr())
    assert "nobody says who clients are" in written
    assert "canary" not in written
