"""Requests that no browser sends: each is answered, none by an error of ours."""

import asyncio
import logging

import pytest
from structlog.testing import capture_logs

from tests.patience import PATIENCE
from tests.signaling.live import signaling
from tests.threats.forged import SECRET

KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
UPGRADE = b"Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n"
REQUESTS = {
    "a token of bytes":
        b"GET /ice HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer \xff\xfe.a.b\r\n\r\n",
    "half a letter": b"GET /ice?token=%ED%A0%80.a.b HTTP/1.1\r\nHost: h\r\n\r\n",
    "a token of nothing": b"GET /ice?token=%00 HTTP/1.1\r\nHost: h\r\n\r\n",
    "a room of bytes": b"GET /ice?token=x&room=%ff%fe HTTP/1.1\r\nHost: h\r\n\r\n",
    "half an address": b"GET /ws HTTP/1.1\r\nHost: [\r\nOrigin: http://[\r\n\r\n",
    "an address of a later kind": b"GET /ws HTTP/1.1\r\nHost: [v1.x]\r\nOrigin: http://[v1.x]\r\n\r\n",
    "a name with another form":
        "GET /ws HTTP/1.1\r\nHost: a\u2100b\r\nOrigin: http://a\u2100b\r\n\r\n".encode(),
    "an origin of bytes": b"GET /ws HTTP/1.1\r\nHost: h\r\nOrigin: http://\xff\r\n\r\n",
    "no host": b"GET /ice HTTP/1.0\r\n\r\n",
    "a key of bytes": b"GET /ws HTTP/1.1\r\nHost: h\r\n" + UPGRADE
        + b"Sec-WebSocket-Key: \xff\xff\r\n\r\n",
    "an expectation of bytes": b"GET /ice HTTP/1.1\r\nHost: h\r\nExpect: 100-\xff\r\n\r\n",
    "an expectation of bytes of nothing": b"GET /x HTTP/1.1\r\nHost: h\r\nExpect: \xff\r\n\r\n",
    "no key": b"GET /ws HTTP/1.1\r\nHost: h\r\n" + UPGRADE + b"\r\n",
    "a version of bytes": b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n"
        b"Connection: upgrade\r\nSec-WebSocket-Version: \xff\r\n" + KEY + b"\r\n",
    "a protocol of bytes": b"GET /ws HTTP/1.1\r\nHost: h\r\n" + UPGRADE + KEY
        + b"Sec-WebSocket-Protocol: \xff\r\n\r\n",
    "a name too long for a file": b"GET /assets/" + b"a" * 300 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
    "a file above": b"GET /assets/..%2f..%2fserver.py HTTP/1.1\r\nHost: h\r\n\r\n",
    "a file with a zero": b"GET /assets/client/room.js%00 HTTP/1.1\r\nHost: h\r\n\r\n",
    "a folder": b"GET /assets/ HTTP/1.1\r\nHost: h\r\n\r\n",
    "years before Christ":
        b"GET /client.js HTTP/1.1\r\nHost: h\r\n"
        b"If-Modified-Since: Mon, 01 Jan 0000 00:00:00 GMT\r\n\r\n",
    "a body that is no gzip":
        b"GET /ice HTTP/1.1\r\nHost: h\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    "a body that is no gzip, to what takes none":
        b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Encoding: deflate\r\nContent-Length: 2\r\n\r\n{}",
    "a body in an encoding that nobody knows":
        b"GET /ice HTTP/1.1\r\nHost: h\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}",
    "a piece of no length":
        b"POST /ice HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a piece of no length, after one": b"GET /ice HTTP/1.1\r\nHost: h\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n-1\r\n\r\n",
    "many ranges": b"GET /client.js HTTP/1.1\r\nHost: h\r\nRange: bytes=0-0,-1,5-1\r\n\r\n",
}  # fmt: skip


async def ask(service, request):
    """Write a request as it is; the first line of the answer."""
    reader, writer = await asyncio.open_connection(*service.addresses[0])
    writer.write(request)
    async with asyncio.timeout(PATIENCE):
        line = await reader.readline()
    writer.close()
    return line


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_a_request_that_makes_no_sense_is_refused_and_nothing_fails(request_, caplog):
    """A line of the log with a traceback for each would fill a disk, for the asking."""
    with capture_logs() as logs:
        await none_fails(request_)
    assert not [entry for entry in logs if entry["log_level"] == "error"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def none_fails(request):
    async with signaling(token_secret=SECRET) as service:
        answer = await ask(service, request)
        assert b" 200 " in answer or b" 4" in answer, answer
        # What is wrong with a body is found out after the answer.
        assert b" 200 " in await ask(service, b"GET /client.js HTTP/1.1\r\nHost: h\r\n\r\n")
