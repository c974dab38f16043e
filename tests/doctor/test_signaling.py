"""What the doctor says of signaling, in front of which somebody may have put a proxy."""

import datetime
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web

from config.signaling import SignalingSettings
from signaling.examine import Examined, Finding, _hello, examine_own, examine_signaling
from tests.certificates import certificate
from tests.interop.process import free_port
from tests.shell import Shell, answers
from tests.signaling.live import signaling, url
from tests.signaling.test_admin import TOKEN_SECRET, token

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def by_check(examined: Examined) -> dict[str, Finding]:
    return {one.check: one for one in examined.findings}


async def test_a_server_that_is_well() -> None:
    async with signaling() as service:
        examined = await examine_signaling(url(service))
    assert {one.check: one.status for one in examined.findings} == {
        "ice-servers": "ok",
        "websocket": "ok",
        "join": "ok",
    }
    assert [server.urls for server in examined.ice_servers] == [
        ["stun:127.0.0.1:3478"],
        ["turn:127.0.0.1:3478?transport=udp"],
    ]
    assert examined.ice_servers[1].credential


async def test_our_own() -> None:
    async with signaling(token_secret=TOKEN_SECRET) as service:
        port = service.addresses[0][1]
        settings = SignalingSettings.model_validate({"listen": f"0.0.0.0:{port}"})
        place, findings = await examine_own(settings, token("anna"))
        assert place == f"http://127.0.0.1:{port}"
        assert {one.status for one in findings} == {"ok"}
    _, gone = await examine_own(settings)
    assert [(one.check, one.status) for one in gone] == [("http", "skip")]
    assert "no signaling runs here" in gone[0].says


async def test_a_server_with_tokens() -> None:
    async with signaling(token_secret=TOKEN_SECRET) as service:
        without = by_check(await examine_signaling(url(service)))
        assert (without["ice-servers"].status, without["websocket"].status) == ("skip", "ok")
        assert without["join"].status == "skip"
        assert "--token" in without["ice-servers"].next
        assert "--token" in without["join"].next
        wrong = by_check(await examine_signaling(url(service), "wrong"))
        assert (wrong["websocket"].status, "token" in wrong["websocket"].next) == ("fail", True)
        good = by_check(await examine_signaling(url(service), token("anna")))
        assert {one.status for one in good.values()} == {"ok"}
        assert "two peers met" in good["join"].says


async def test_a_token_that_only_listens_is_no_fault() -> None:
    claims = {"room": "demo", "canPublish": False, "exp": int(time.time()) + 60}
    muted = jwt.encode(claims, TOKEN_SECRET, algorithm="HS256")
    async with signaling(token_secret=TOKEN_SECRET) as service:
        found = by_check(await examine_signaling(url(service), muted))["join"]
    assert (found.status, "of this token" in found.says) == ("skip", True)


async def test_rooms_that_nobody_can_enter() -> None:
    async def welcome_only(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(protocols=("icebroker.v1",))
        await ws.prepare(request)
        await ws.receive()
        await ws.send_json({"type": "welcome"})
        return ws

    async with proxy({"/ice": ice(), "/ws": welcome_only}) as base:
        found = by_check(await examine_signaling(base))
    assert (found["websocket"].status, found["join"].status) == ("ok", "fail")


def test_the_verdict_says_what_was_not_tried(tmp_path: Path) -> None:
    shell, port = Shell(tmp_path), free_port()
    page = f"http://127.0.0.1:{port}"
    settings = {
        "ICEBROKER_SIGNALING__LISTEN": f"127.0.0.1:{port}",
        "ICEBROKER_SIGNALING__TOKEN_SECRET": TOKEN_SECRET,
        "ICEBROKER_SIGNALING__ICE_SERVERS": '[{"urls": ["stun:127.0.0.1:9"]}]',
        "ICEBROKER_ADMIN__LISTEN": f"127.0.0.1:{free_port()}",
    }
    with shell.running("signaling", **settings) as service:
        service.wait_for(lambda: answers(page))
        stranger = shell.run("doctor", page).out.splitlines()[-1]
        assert "as far as it was tried" in stranger
        assert "nobody has joined a room" in stranger
        assert "--token" in stranger
        # Where the configuration has the secret, it makes a token by itself.
        ours = json.loads(shell.run("doctor", "--json", "--no-load", page, **settings).out)
    (section, *_) = ours["sections"]
    assert section["untried"] == []
    assert {one["check"]: one["status"] for one in section["findings"]}["join"] == "ok"


@pytest.mark.parametrize("said", [b"[" * 100_000, b"[1]", b"1", b"x", b"\xff"])
async def test_somebody_elses_server_may_say_anything(said: bytes) -> None:
    async def ice(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Date": "Mon, 99 Foo 0000 99:99:99"})
        await response.prepare(request)
        with suppress(ConnectionError):
            for _ in range(100 if said[:2] == b"[[" else 1):  # ten megabytes
                await response.write(said)
        return response

    async def talk(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(protocols=("icebroker.v1",))
        await ws.prepare(request)
        await ws.receive()
        await ws.send_str(said.decode("latin-1"))
        return ws

    app = web.Application()
    app.add_routes([web.get("/ice", ice), web.get("/ws", talk)])
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession() as http:
        found = by_check(await examine_signaling(base))
        assert found["ice-servers"].status == "fail"
        assert (await _hello(http, base, "")).status == "fail"
    await runner.cleanup()


async def test_nothing_there() -> None:
    (found,) = (await examine_signaling(f"http://127.0.0.1:{free_port()}")).findings
    assert (found.check, found.status) == ("http", "fail")
    assert "nothing answers" in found.says


async def test_no_such_name() -> None:
    (found,) = (await examine_signaling("https://no-such-host.invalid")).findings
    assert (found.check, found.status) == ("dns", "fail")


@asynccontextmanager
async def proxy(
    answers: dict[str, Answer], tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Something that stands where signaling should."""
    app = web.Application()
    for path, answer in answers.items():
        app.router.add_get(path, answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"{'https' if tls else 'http'}://{host}:{port}"
    finally:
        await runner.cleanup()


def ice(document: Any = None, **headers: str) -> Answer:
    body = {"iceServers": [{"urls": "turn:127.0.0.1"}]} if document is None else document

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, headers=headers)

    return answer


async def refuse(_: web.Request) -> web.StreamResponse:
    return web.Response(status=400, text='Can "Upgrade" only to "WebSocket".')


async def test_a_proxy_that_passes_no_websocket() -> None:
    async with proxy({"/ice": ice(), "/ws": refuse}) as base:
        found = by_check(await examine_signaling(base))["websocket"]
    assert (found.status, "answered by 400" in found.says) == ("fail", True)
    assert "proxy_set_header Upgrade" in found.next


async def test_a_clock_that_is_wrong() -> None:
    late = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=10)
    async with proxy({"/ice": ice(Date=format_datetime(late, usegmt=True))}) as base:
        found = by_check(await examine_signaling(base))["clock"]
    assert (found.status, "behind ours" in found.says, "NTP" in found.next) == ("warn", True, True)


@pytest.mark.parametrize(
    "document", [[], {}, {"iceServers": 5}, {"iceServers": [{}]}, {"iceServers": [{"urls": 5}]}]
)
async def test_what_is_no_list_of_ice_servers(document: Any) -> None:
    async with proxy({"/ice": ice(document)}) as base:
        found = by_check(await examine_signaling(base))["ice-servers"]
    assert (found.status, "by no list of ICE servers" in found.says) == ("fail", True)


async def test_no_relay_among_them() -> None:
    async with proxy({"/ice": ice({"iceServers": [{"urls": "stun:a"}]})}) as base:
        found = by_check(await examine_signaling(base))["ice-servers"]
    assert (found.status, "no relay" in found.says) == ("warn", True)


async def test_a_certificate_that_nobody_knows(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    async with proxy({"/ice": ice(), "/ws": refuse}, context) as base:
        (found,) = (await examine_signaling(base)).findings
        assert (found.check, found.status) == ("https", "fail")
        assert "self-signed" in found.says
        trusted = by_check(await examine_signaling(base, "", Path(pem)))
        assert trusted["ice-servers"].status == "ok"
