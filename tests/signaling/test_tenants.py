"""Signaling for a tenant of the relay: its users have one name, with both and for everybody."""

import time
from typing import Any

import aiohttp
import jwt
import pytest

from signaling.revocations import RevocationWatch
from tests.patience import until
from tests.redis_server import redis_server
from tests.signaling.live import (
    RELAY_SECRET,
    TOKEN_SECRET,
    on,
    signaling,
    sockets,
    url,
)
from turn.auth.ephemeral import password_of


def token(user: str, **claims: str) -> str:
    what = {"room": "r", "exp": int(time.time()) + 60, **({"sub": user} if user else {})}
    return jwt.encode(what | claims, TOKEN_SECRET, "HS256")


def users_of(ice_servers: list[dict[str, str]]) -> list[str]:
    """Whom relay credentials are for, which have to be good."""
    shown = [server for server in ice_servers if "username" in server]
    for server in shown:
        assert server["credential"] == password_of(RELAY_SECRET, server["username"])
    return [server["username"].partition(":")[2] for server in shown]


@pytest.mark.parametrize("user", ["alice", "shop/alice", ""])
async def test_credentials_are_the_tenants_users_by_either_door(user):
    """Whatever a token says: its claims do not choose the tenant."""
    async with (
        signaling(token_secret=TOKEN_SECRET, ice_tenant="shop") as service,
        sockets(service) as connect,
        aiohttp.ClientSession() as http,
    ):
        socket = await connect()
        welcome = await socket.hello(token=token(user, tenant="clinic"))
        name = f"shop/{user or welcome['peer']}"
        assert users_of((await socket.join("r"))["iceServers"]) == [name]
        async with http.get(url(service, f"/ice?token={token(user)}")) as answer:
            (by_http,) = users_of((await answer.json())["iceServers"])
        assert by_http.startswith("shop/")
        assert by_http == name or not user
        (peer,) = (await service.collections[1].snapshot()).values()
        assert peer.session.user == name


async def test_who_is_revoked_is_so_by_the_relays_name_and_no_other(tmp_path):
    heard: list[tuple[str, bool, bool]] = []

    def heed(user: str, until: float, spent: float) -> None:
        heard.append((user, until > 0, spent > 0))

    changes: dict[str, Any] = {"token_secret": TOKEN_SECRET, "ice_tenant": "shop"}
    with redis_server(tmp_path) as server:
        redis = on(server)
        relay = RevocationWatch(redis, heed)
        async with (
            signaling(redis, **changes) as one,
            signaling(redis, **changes) as two,
            sockets(two) as connect,
        ):
            await relay.start()
            socket = await connect()
            await socket.hello(token=token("alice"))
            await one.revoke("alice", time.time() + 60)
            await one.revoke("clinic/alice", time.time() + 60)
            assert (await socket.join("r"))["type"] == "joined"
            again = await connect()
            await again.hello(token=token("alice"))
            await one.revoke("shop/alice", time.time() + 60)
            assert await socket.closed() == 4503
            late = await connect()
            await late.say(type="hello", token=token("alice"))
            assert await late.closed() == 4503
            await one.restore("shop/alice")
            back = await connect()
            await back.hello(token=token("alice"))
            (peer,) = (await two.collections[1].snapshot()).values()
            await two.collections[1].end(peer)
            await until(lambda: ("shop/alice", False, True) in heard)
            await relay.stop()
    assert {user for user, *_ in heard} == {"alice", "clinic/alice", "shop/alice"}
    assert ("shop/alice", True, True) in heard
