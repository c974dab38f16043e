"""An operator revokes a user, or removes a peer, at one node: it ends at every node and relay."""

import asyncio
import contextlib
import time
import urllib.error
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aioice
import jwt
import pytest

from signaling.client import Client, SignalingError
from tests.interop.cluster import Node, cluster
from tests.patience import PATIENCE, until
from tests.redis_server import redis_server

TOKEN_SECRET = "the secret of the join tokens, 32+"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Two of signaling, a relay of its own, and both services in one process; one Redis."""
    folder = tmp_path_factory.mktemp("nodes")
    commands = ("signaling", "signaling", "turn", "serve")
    with cluster(folder, *commands, token_secret=TOKEN_SECRET, resume_window=30) as running:
        yield running


def token(user: str) -> str:
    claims = {"room": "r", "sub": user, "name": user, "exp": time.time() + 60}
    return jwt.encode(claims, TOKEN_SECRET, algorithm="HS256")


def member(node: Node, user: str) -> Client:
    return Client(f"ws://127.0.0.1:{node.port}/ws", token=token(user))


async def allocate(relay: Node, joined: dict[str, Any]) -> aioice.Connection | None:
    """Relay with the credentials of a ``joined``; None where the relay refuses."""
    server = next(each for each in joined["iceServers"] if "credential" in each)
    connection = aioice.Connection(
        ice_controlling=True,
        turn_server=("127.0.0.1", relay.turn_port),
        turn_username=server["username"],
        turn_password=server["credential"],
        transport_policy=aioice.TransportPolicy.RELAY,
    )
    await connection.gather_candidates()
    if connection.local_candidates:
        return connection
    await connection.close()
    return None


def closed(relay: Node) -> float:
    return relay.metrics()['icebroker_turn_allocations_closed_total{reason="revoked"}']


def was_closed(relay: Node, times: float) -> bool:
    return closed(relay) == times


async def test_a_revoked_user_is_out_everywhere_at_once(nodes: list[Node]):
    one, two, relay, both = nodes
    async with member(one, "watcher") as watcher:
        await watcher.join("r")
        anna, anna_too, away = member(one, "anna"), member(two, "anna"), member(two, "anna")
        joined = {}
        for client in (anna, anna_too, away):
            await client.__aenter__()
            joined[client] = await client.join("r")
        await away.drop()
        away._connection._task.cancel()  # it never comes back
        relayed = [await allocate(place, joined[anna]) for place in (relay, both)]
        assert all(relayed)
        before = [closed(place) for place in (relay, both)]
        answer = one.operate("PUT", "revocations/anna", {"seconds": 60})
        assert answer["ended"] == {"signaling": 1}
        left = []
        async with asyncio.timeout(PATIENCE):
            async for event in watcher.events():
                if event.get("event") == "leave":
                    left.append((event["name"], event["reason"]))
                    if len(left) == 3:
                        break
        assert left == [("anna", "revoked")] * 3
        for place, count in zip((relay, both), before, strict=True):
            await until(partial(was_closed, place, count + 1))
            assert await allocate(place, joined[anna]) is None
        for node in (one, two, both):
            with pytest.raises(SignalingError, match="4503"):
                async with member(node, "anna"):
                    pass
        # It is lifted at a node that was not the one that was told of it, and by then may be gone.
        two.operate("DELETE", "revocations/anna")
        await comes_in(two, "anna")
        for client in (anna, anna_too, away):
            await client.close()
        for connection in relayed:
            with contextlib.suppress(Exception):
                await connection.close()


async def test_a_removed_peer_takes_its_credentials_with_it(nodes: list[Node]):
    one, two, relay, _ = nodes
    async with member(one, "bert") as bert:
        joined = await bert.join("r")
        connection = await allocate(relay, joined)
        assert connection is not None
        before = closed(relay)
        one.operate("DELETE", f"peers/{bert.peer}")
        await until(partial(was_closed, relay, before + 1))
        assert await allocate(relay, joined) is None
        # The user is not revoked: with a token it may come again, to fresh credentials.
        await asyncio.sleep(1.1)
        async with member(two, "bert") as again:
            fresh = await allocate(relay, await again.join("r"))
            assert fresh is not None
            await fresh.close()
        with contextlib.suppress(Exception):
            await connection.close()


async def test_a_tenants_users_have_one_name_with_signaling_and_every_relay(tmp_path: Path):
    commands = ("signaling", "turn", "serve")
    settings: dict[str, Any] = {"token_secret": TOKEN_SECRET, "ice_tenant": "shop"}
    with cluster(tmp_path, *commands, **settings) as (one, relay, both):
        async with member(one, "dora") as dora, member(one, "emil") as emil:
            joined = [await dora.join("r"), await emil.join("r")]
            relayed = [await allocate(place, each) for each in joined for place in (relay, both)]
            assert all(relayed)
            listed = one.operate("GET", "peers")["peers"]
            assert {each["user"] for each in listed} == {"shop/dora", "shop/emil"}
            ended = one.operate("PUT", "revocation?user=dora", {"seconds": 60})["ended"]
            assert ended == {"signaling": 0}, "that is the name of a user without a tenant"
            ended = one.operate("PUT", "revocation?user=shop/dora", {"seconds": 60})["ended"]
            assert ended == {"signaling": 1}
            one.operate("DELETE", f"peers/{emil.peer}")
            for place in (relay, both):
                await until(partial(was_closed, place, 2))
                assert [await allocate(place, each) for each in joined] == [None, None]
        with pytest.raises(SignalingError, match="4503"):
            async with member(both, "dora"):
                pass
        for connection in relayed:
            with contextlib.suppress(Exception):
                await connection.close()


async def test_a_relay_that_starts_later_knows_too(tmp_path: Path):
    with cluster(tmp_path, "signaling", token_secret=TOKEN_SECRET) as (node,):
        async with member(node, "carl") as carl:
            joined = await carl.join("r")
            node.operate("PUT", "revocations/carl", {"seconds": 60})
        relay = Node(tmp_path, node.redis_url, {}, "turn")
        try:
            relay.wait_ready()
            assert await allocate(relay, joined) is None
        finally:
            relay.close()


async def test_a_relay_of_its_own_tells_all_of_whom_it_revokes(nodes: list[Node]):
    one, two, relay, both = nodes
    async with member(one, "dora") as dora, member(two, "watcher") as watcher:
        await watcher.join("r")
        joined = await dora.join("r")
        connection = await allocate(both, joined)
        assert connection is not None
        before = closed(both)
        answer = relay.operate("PUT", "revocations/dora", {"seconds": 60})
        assert answer["everywhere"] is True
        async with asyncio.timeout(PATIENCE):
            async for event in watcher.events():
                if event.get("event") == "leave" and event["name"] == "dora":
                    break
        await until(partial(was_closed, both, before + 1))
        for node in (one, two, both):
            with pytest.raises(SignalingError, match="4503"):
                async with member(node, "dora"):
                    pass
        assert relay.operate("DELETE", "revocations/dora") == {"revocations": []}
        fresh = await comes_in(two, "dora")
        assert await allocate_and_end(both, fresh)
        with contextlib.suppress(Exception):
            await connection.close()


async def comes_in(node: Node, user: str) -> dict[str, Any]:
    """What a user gets that is let in again; that it is may take a moment."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(SignalingError):
                async with member(node, user) as again:
                    return await again.join("r")
            await asyncio.sleep(0.1)


async def allocate_and_end(relay: Node, joined: dict[str, Any]) -> bool:
    """Whether a relay takes these credentials."""
    connection = await allocate(relay, joined)
    if connection is not None:
        await connection.close()
    return connection is not None


def test_where_redis_is_away_the_answer_says_that_it_holds_here_alone(tmp_path: Path):
    with redis_server(tmp_path / "redis") as redis:
        relay = Node(tmp_path, redis.url, {}, "turn")
        try:
            relay.wait_ready()
            redis.stop()
            with pytest.raises(urllib.error.HTTPError) as refused:
                relay.operate("PUT", "revocations/emil", {"seconds": 60})
            assert refused.value.code == 503
            assert b"at this process alone" in refused.value.read()
            (revocation,) = relay.operate("GET", "revocations")["revocations"]
            assert (revocation["user"], revocation["everywhere"]) == ("emil", False)
        finally:
            relay.close()
