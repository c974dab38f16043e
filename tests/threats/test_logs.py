"""No secret in the logs: a relay at debug, every kind of request, and canaries that must not show.

The real process is run, with its own logging, since a library's lines count too.
"""

import asyncio
import subprocess
import sys
import time

import pytest

from tests.interop.process import ROOT, relay
from tests.turn.live import UDP, Client
from turn.auth.credentials import long_term_key
from turn.auth.ephemeral import mint
from turn.codec import registry
from turn.codec.registry import Method
from turn.codec.values import Address

SECRET = "canary-secret-of-the-relay"
PASSWORD = "secretpw"
NAME = "canary-name"
PAYLOAD = b"canary-payload"
PEER = (registry.XOR_PEER_ADDRESS, Address("127.0.0.1", 9))


async def test_no_secret_no_credential_and_no_payload_is_logged(tmp_path, connect):
    username, password = mint(SECRET, NAME, int(time.time()) + 600)
    seen = {SECRET, PASSWORD, username, NAME, password, PAYLOAD.decode()}
    with relay(tmp_path, secret=SECRET) as running:
        for tcp in (False, True):
            good: Client = await connect(running.port, tcp=tcp)
            good.username, good.key = username, long_term_key(username, "icebroker", password)
            await good.allocate()
            await good.request(Method.CREATE_PERMISSION, PEER)
            await good.request(Method.CHANNEL_BIND, (registry.CHANNEL_NUMBER, 0x4000), PEER)
            await good.send(b"\x40\x00" + len(PAYLOAD).to_bytes(2) + PAYLOAD + bytes(2))
            bad: Client = await connect(running.port, tcp=tcp)
            bad.username = username
            await bad.request(Method.ALLOCATE, UDP)
            await bad.send(b"\xff" + PAYLOAD)
            assert good.nonce is not None
            seen |= {good.nonce, good.key.hex()}
            await good.request(Method.REFRESH, (registry.LIFETIME, 0))
    written = running.log.read_text()
    assert "draining" in written  # it logs at all
    for canary in seen:
        assert canary not in written


NO_HTTP = (
    (b"GET /ws?token=canary-token\xff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"400"),
    (b"canary-token\r\n\r\n", b"400"),
    (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\ncanary-token \x01\r\n\r\n", b"400"),
    (
        b"GET /api/v1 HTTP/1.1\r\nHost: [::1]\r\nAuthorization: Bearer canary-token\xff\r\n\r\n",
        b"401",
    ),
)


async def test_what_is_no_http_is_not_logged(tmp_path, monkeypatch):
    monkeypatch.setenv("ICEBROKER_ADMIN__TOKEN", "the operator's token")
    with relay(tmp_path) as running:
        before = running.log.read_text()
        for sent, status in NO_HTTP:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.admin_port)
            writer.write(sent)
            assert (await asyncio.wait_for(reader.readline(), 5)).split()[1] == status
            writer.close()
        logged = running.log.read_text()[len(before) :]
        assert "canary-token" not in logged
        assert "Error" not in logged


FAULTY = """
import sys, structlog
from config.log import set_up
from config.schema import LogSettings
set_up(LogSettings(format=sys.argv[1]))
def check(token):
    raise ValueError("a fault of ours")
try:
    check("canary-" + "token")
except ValueError:
    structlog.get_logger("signaling").exception("a request failed")
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_fault_is_told_without_what_variables_held(form):
    """On a terminal, too: a traceback that shows every variable shows tokens."""
    command = [sys.executable, "-c", FAULTY, form]
    written = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stderr
    assert "a fault of ours" in written
    assert "canary" not in written.replace('check("canary-" + "token")', "")
