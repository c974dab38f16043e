"""The operators' tools are nobody else's: no secret in what they keep, and no way in unasked."""

import json
import time
import urllib.request
from typing import Any

from tests.interop.process import free_port, icebroker
from tests.patience import PATIENCE
from tests.turn.live import UDP, Client
from turn.auth.credentials import long_term_key
from turn.auth.ephemeral import mint
from turn.codec import registry
from turn.codec.registry import Method
from turn.codec.values import Address

TOKEN, SECRET = "canary-token-of-the-operator", "canary-secret-of-the-relay"
PATHS = ("status", "refusals", "errors", "allocations", "allocations/1", "revocations", "drain")


def ask(port: int, path: str, method: str = "GET", body: Any = None) -> str:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v1/{path}",
        method=method,
        headers={"Authorization": f"Bearer {TOKEN}"},
        data=None if body is None else json.dumps(body).encode(),
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        text: str = answer.read().decode()
        return text


async def test_nothing_that_is_shown_or_logged_is_a_secret(tmp_path, connect):
    port, admin = free_port(), free_port()
    file = tmp_path / "icebroker.toml"
    file.write_text(
        f'[turn]\nlisten = ["127.0.0.1:{port}"]\nsecret = "{SECRET}"\ndata_plane = "userspace"\n'
        f'[admin]\nlisten = "127.0.0.1:{admin}"\ntoken = "{TOKEN}"\n[log]\nlevel = "debug"\n'
    )
    username, password = mint(SECRET, "anna", int(time.time()) + 600)
    with icebroker(["turn", "-c", str(file)], admin, tmp_path / "log"):
        good: Client = await connect(port)
        good.username, good.key = username, long_term_key(username, "icebroker", password)
        await good.allocate()
        peer = (registry.XOR_PEER_ADDRESS, Address("10.0.0.1", 9))
        await good.request(Method.CREATE_PERMISSION, peer)
        bad: Client = await connect(port)
        await bad.request(Method.ALLOCATE, UDP)
        shown = "".join(ask(admin, path) for path in PATHS)
        shown += ask(admin, "revocations/anna", "PUT", {"seconds": 60})
        shown += ask(admin, "log", "PUT", {"level": "debug"})
    written = shown + (tmp_path / "log").read_text()
    assert '"why":"there is no such user"' in shown
    assert good.nonce is not None
    for secret in (TOKEN, SECRET, password, good.nonce, good.key.hex()):
        assert secret not in written
