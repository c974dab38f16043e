"""A socket's reading and its end, while what its client asked for waits for somebody else."""

import asyncio
import base64
import json
import os
import socket
import time

import pytest

from signaling import hub, outbox
from tests.redis_server import redis_server
from tests.signaling.live import on, signaling, sockets

WITHIN = 30
"""Seconds; bounds waiting alone."""


@pytest.fixture
def server(tmp_path):
    """A Redis that a test may put to sleep."""
    with redis_server(tmp_path / "redis") as running:
        yield running


async def two_in_a_room(connect):
    """Two sockets in one room, and the second one's peer id."""
    one, two = await connect(), await connect()
    await one.hello()
    peer = (await two.hello())["peer"]
    await one.join("r")
    await two.join("r")
    await one.hear("peer")
    return one, two, peer


async def test_a_ping_is_answered_while_a_request_waits_for_redis(server):
    async with signaling(on(server)) as service, sockets(service) as connect:
        one, two, peer = await two_in_a_room(connect)
        server.sleep()
        try:
            for number in range(3):
                await one.say(type="message", id=f"m{number}", to=peer, data=number)
            await one.say(type="ping", t=7)
            assert await one.hear() == {"type": "pong", "t": 7}
        finally:
            server.wake()
        assert [(await one.hear())["id"] for _ in range(3)] == ["m0", "m1", "m2"]
        assert [(await two.hear())["data"] for _ in range(3)] == [0, 1, 2]


@pytest.mark.usefixtures("soon_away")
async def test_two_clients_of_a_node_go_on_while_redis_answers_nobody(server):
    async with signaling(on(server)) as service, sockets(service) as connect:
        one, two, peer = await two_in_a_room(connect)
        server.sleep()
        try:
            await one.say(type="signal", id="m1", to=peer, description={"type": "offer"})
            await one.say(type="join", id="j", room="another")
            async with asyncio.timeout(WITHIN):
                heard = await patient(two, "signal")
                assert heard["description"] == {"type": "offer"}
                assert (await patient(one, "error"))["id"] == "j"  # and may be tried again
                # Answered when it has arrived: until then it might be lost with the node.
                await two.say(type="ack", seq=heard["seq"])
                answer = await patient(one, "ok")
                assert (answer["id"], answer["status"]) == ("m1", "delivered")
        finally:
            server.wake()


async def patient(client, kind):
    """The next message of a kind, however long it takes."""
    while True:
        frame = await client.ws.receive()
        message = json.loads(frame.data)
        if message["type"] == kind:
            return message


async def test_what_was_said_before_the_end_is_done_before_it(server):
    async with signaling(on(server)) as service, sockets(service) as connect:
        one, two, peer = await two_in_a_room(connect)
        for number in range(40):
            await one.say(type="message", id=f"m{number}", to=peer, data=number)
        await one.ws.close(code=1000)
        async with asyncio.timeout(WITHIN):
            heard = [await two.hear("message", "peer") for _ in range(41)]
        assert [message.get("data") for message in heard[:40]] == list(range(40))
        assert heard[40]["event"] == "leave"


async def test_a_request_that_waits_does_not_make_others_deliveries_look_slow(server):
    async with signaling(on(server)) as service, sockets(service) as connect:
        one, two, peer = await two_in_a_room(connect)
        session = next(s for s in service._hub._sessions.values() if s.record.peer == peer)
        server.sleep()
        try:
            await one.say(type="message", id="m", to=peer, data=1)
            await one.say(type="ping")
            await one.hear("pong")
            await asyncio.sleep(1)  # what waits is this old now
            before = service.stats.delivery.total
            service._hub.deliver(session.record.session, 1000, b'{"type":"message","seq":1000}')
            await two.hear("message")
            assert service.stats.delivery.total - before < 1
        finally:
            server.wake()


def frame(text: str) -> bytes:
    """A client's text frame, masked with zeros (RFC 6455 §5.2)."""
    payload = text.encode()
    assert 125 < len(payload) < 65536
    return b"\x81\xfe" + len(payload).to_bytes(2, "big") + bytes(4) + payload


async def test_who_is_cut_while_it_writes_hears_why(monkeypatch):
    """A connection that is closed under a writer is reset, and with it the close code is gone."""
    monkeypatch.setattr(outbox, "FAREWELL", WITHIN)
    ping = frame(json.dumps({"type": "ping", "x": "x" * 1000}))

    def begin(connection: socket.socket, host: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        connection.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Protocol: icebroker.v1\r\n\r\n".encode()
        )
        connection.sendall(frame(json.dumps({"type": "hello", "x": "x" * 125})))
        while b"welcome" not in connection.recv(1 << 16):
            pass

    def go_on_writing(connection: socket.socket) -> bytes:
        for _ in range(10):
            time.sleep(0.05)  # a reset is noticed by the write after the one that causes it
            connection.sendall(ping)
        connection.sendall(b"\x88\x82" + bytes(4) + (4000).to_bytes(2, "big"))
        read = b""
        while data := connection.recv(1 << 16):
            read += data
        return read

    async with signaling() as service:
        address = service.addresses[0]
        with socket.create_connection(address, timeout=WITHIN) as connection:
            await asyncio.to_thread(begin, connection, f"{address[0]}:{address[1]}")
            service._hub.close_all()
            read = await asyncio.to_thread(go_on_writing, connection)
            assert read.endswith((4000).to_bytes(2, "big") + b"the server stops")


async def test_who_goes_on_at_another_node_gets_fresh_ice_servers_there(server, monkeypatch):
    """Only the node that gave them out knows when the ones that it has will end."""
    monkeypatch.setattr(hub, "ICE_AGAIN_WITHIN", 0.1)
    redis = on(server)
    async with (
        signaling(redis) as here, signaling(redis) as there,
        sockets(here) as connect, sockets(there) as connect_there,
    ):  # fmt: skip
        one = await connect()
        welcome = await one.hello()
        await one.join("r")
        idle = await connect()
        never_joined = await idle.hello()
        await one.ws.close(code=4000)
        await idle.ws.close(code=4000)
        again, elsewhere = await connect_there(), await connect_there()
        for socket_there, before in ((again, welcome), (elsewhere, never_joined)):
            resume = {"session": before["session"], "secret": before["secret"], "seq": 0}
            assert (await socket_there.hello(resume=resume))["resumed"]
        turn = (await again.hear("ice"))["iceServers"][1]
        assert turn["credential"]
        await elsewhere.say(type="ping", t=1)
        assert await elsewhere.hear() == {"type": "pong", "t": 1}  # it never had any
