"""Who may come in by which token, and what a token may say."""

import pytest

from tests.patience import until
from tests.signaling.live import TOKEN_SECRET, signaling, sockets, token

pytestmark = pytest.mark.usefixtures("over_both")


class TestTokens:
    async def test_a_token_opens_its_room_and_no_other(self):
        async with signaling(token_secret=TOKEN_SECRET) as service, sockets(service) as connect:
            one = await connect()
            await one.hello(token=token("r", name="Ada", sub="ada"), name="Mallory")
            assert (await one.join("s"))["code"] == "forbidden"
            joined = await one.join("r")
            assert joined["iceServers"][1]["username"].endswith(":ada")

    @pytest.mark.parametrize("bad", [None, "", "nonsense", token(exp=1)])
    async def test_without_a_good_token_the_socket_ends(self, bad):
        async with signaling(token_secret=TOKEN_SECRET) as service, sockets(service) as connect:
            one = await connect()
            await one.say(type="hello", token=bad)
            assert (await one.hear())["code"] == "unauthorized"
            assert await one.closed() == 4503

    @pytest.mark.parametrize("later", [{}, {"token": token("r", exp=1)}])
    async def test_a_session_outlives_its_token(self, later):
        async with signaling(token_secret=TOKEN_SECRET) as service, sockets(service) as connect:
            one = await connect()
            begun = await one.hello(token=token("r", sub="ada"))
            await one.join("r")
            one.ws._response.connection.transport.abort()
            seen = {"session": begun["session"], "secret": begun["secret"], "seq": 0}
            again = await connect()
            assert (await again.hello(resume=seen, **later))["resumed"] is True
            await again.say(type="ice", id="1")
            servers = (await again.hear("ice"))["iceServers"]
            assert servers[-1]["username"].endswith(":ada")

    async def test_a_session_that_cannot_go_on_needs_a_good_token_again(self):
        async with signaling(token_secret=TOKEN_SECRET) as service, sockets(service) as connect:
            one = await connect()
            unknown = {"session": "gone", "secret": "guessed", "seq": 0}
            await one.say(type="hello", resume=unknown, token=token("r", exp=1))
            assert (await one.hear())["code"] == "unauthorized"
            assert await one.closed() == 4503

    async def test_who_may_not_publish_hears_and_says_nothing(self):
        async with signaling(token_secret=TOKEN_SECRET) as service, sockets(service) as connect:
            one, two = await connect(), await connect()
            await one.hello(token=token(canPublish=False))
            await two.hello(token=token())
            await one.join("r")
            await two.join("r")
            await two.say(type="message", id="1", data=1)
            await one.hear("message")
            await one.say(type="message", id="1", data=1)
            assert (await one.hear("error"))["code"] == "forbidden"

    async def test_a_tokens_capacity_counts(self):
        async with signaling(token_secret=TOKEN_SECRET) as service, sockets(service) as connect:
            one, two = await connect(), await connect()
            await one.hello(token=token(capacity=1))
            await two.hello(token=token(capacity=1))
            await one.join("r")
            assert (await two.join("r"))["code"] == "room_full"

    async def test_one_user_has_so_many_sockets_and_no_more(self):
        async with (
            signaling(token_secret=TOKEN_SECRET, max_connections_per_user=2) as service,
            sockets(service) as connect,
        ):
            ada = {"token": token(sub="ada")}
            first, second, third, other = [await connect() for _ in range(4)]
            begun = await first.hello(**ada)
            await second.hello(**ada)
            await third.say(type="hello", **ada)
            assert (await third.hear())["code"] == "too_many_connections"
            assert await third.closed() == 4508
            await other.hello(token=token(sub="bob"))
            # Her own socket may be replaced, which makes it no third one.
            seen = {"session": begun["session"], "secret": begun["secret"], "seq": 0}
            again = await connect()
            assert (await again.hello(resume=seen))["resumed"] is True
            assert await first.closed() == 4501
            # One that she drops makes room for another one; it comes back when there is room again.
            again.ws._response.connection.transport.abort()
            await until(lambda: service._websockets.connections == 2)
            last, back = await connect(), await connect()
            await last.hello(**ada)
            await back.say(type="hello", resume=seen)
            refused = await back.hear()
            assert (refused["code"], refused["retryable"]) == ("unavailable", True)
            assert await back.closed() == 4004
            await last.ws.close()
            await until(lambda: service._websockets.connections == 2)
            back = await connect()
            assert (await back.hello(resume=seen))["resumed"] is True
        assert not service._hub._holders

    async def test_tokens_of_nobody_count_by_their_room(self):
        async with (
            signaling(token_secret=TOKEN_SECRET, max_connections_per_user=1) as service,
            sockets(service) as connect,
        ):
            shared = {"token": token(capacity=2)}
            for _ in range(4):
                await (await connect()).hello(**shared)
            one = await connect()
            await one.say(type="hello", **shared)
            assert (await one.hear())["code"] == "too_many_connections"
            await (await connect()).hello(token=token("another", capacity=2))
