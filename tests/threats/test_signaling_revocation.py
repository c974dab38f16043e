"""A user who was revoked has no session, however it was timed."""

import time

import jwt
import pytest

from tests.redis_server import redis_server
from tests.signaling.live import on, signaling, sockets
from tests.threats.forged import SECRET


@pytest.fixture
def redis(tmp_path):
    """The settings of nodes that share a Redis."""
    with redis_server(tmp_path) as server:
        yield on(server)


def token(user):
    return jwt.encode({"room": "r", "sub": user, "exp": int(time.time()) + 60}, SECRET, "HS256")


@pytest.mark.parametrize("step", ["open", "resume"])
async def test_who_is_revoked_while_a_session_begins_or_goes_on_has_none(redis, step, monkeypatch):
    """The broker has said yes, and its answer is on its way: the revocation is faster."""
    async with (
        signaling(redis, token_secret=SECRET) as one,
        signaling(redis, token_secret=SECRET) as two,
        sockets(two) as connect,
    ):
        socket = await connect()
        welcome = await socket.hello(token=token("mallory"))
        hello = {"token": token("mallory")}
        if step == "resume":
            hello = {"resume": {key: welcome[key] for key in ("session", "secret")} | {"seq": 0}}
        broker = two._broker
        does = getattr(broker, step)

        async def does_and_is_overtaken(*arguments):
            outcome = await does(*arguments)
            await one.revoke("mallory", time.time() + 60)
            await broker.renew()  # whatever was told to this node has been heard
            return outcome

        monkeypatch.setattr(broker, step, does_and_is_overtaken)
        late = await connect()
        await late.say(type="hello", **hello)
        assert await late.closed() == 4503
        assert await socket.closed() in {4501, 4503}
        good = await connect()
        monkeypatch.undo()
        await good.hello(token=token("ada"))
        assert (await good.join("r"))["peers"] == []
