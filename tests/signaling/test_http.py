"""What HTTP answers: ICE servers, pages, and who may ask."""

import json
import time

import aiohttp
import pytest

from tests.signaling.live import TOKEN_SECRET, signaling, sockets, token, url

pytestmark = pytest.mark.usefixtures("over_both")


class TestHttp:
    async def get(self, service, path, **options):
        async with (
            aiohttp.ClientSession() as http,
            http.get(url(service, path), **options) as response,
        ):
            return response, await response.text()

    async def test_ice_is_what_a_peer_connection_takes(self):
        async with signaling() as service:
            response, text = await self.get(service, "/ice")
            document = json.loads(text)
            assert set(document) == {
                "iceServers", "iceTransportPolicy", "ttl", "expiresAt", "username", "password",
                "uris",
            }  # fmt: skip
            expiry, _, _ = document["username"].partition(":")
            assert abs(int(expiry) - time.time() - 3600) < 5
            assert document["iceServers"][1]["credential"] == document["password"]
            assert response.headers["Cache-Control"] == "no-store"
            links = response.headers.getall("Link")
            assert links[0] == '<stun:127.0.0.1:3478>; rel="ice-server"'
            assert f'username="{document["username"]}"' in links[1]

    async def test_ice_wants_a_token_where_rooms_do(self):
        async with signaling(token_secret=TOKEN_SECRET) as service:
            response, _ = await self.get(service, "/ice")
            assert response.status == 401
            good = {"Authorization": f"Bearer {token(sub='ada')}"}
            response, text = await self.get(service, "/ice", headers=good)
            assert json.loads(text)["username"].endswith(":ada")
            response, _ = await self.get(service, f"/ice?token={token()}")
            assert response.status == 200

    async def test_the_operator_is_told_once_which_page_was_refused(self, capsys):
        async with signaling() as service:
            for number in range(2):
                for path in ("/ice", "/ws"):
                    origin = {"Origin": f"https://page{number}.example"}
                    response, _ = await self.get(service, path, headers=origin)
                    assert response.status == 403
            for number in range(100):
                origin = {"Origin": f"https://flood{number}.example"}
                await self.get(service, "/ws", headers=origin)
        told = capsys.readouterr().out
        assert [told.count(f"page{number}.example") for number in range(2)] == [1, 1]
        assert told.count("signaling.allowed_origins") == 64

    async def test_pages_of_other_sites_are_refused(self):
        async with signaling(allowed_origins=["https://good.example"]) as service:
            response, _ = await self.get(
                service, "/ice", headers={"Origin": "https://evil.example"}
            )
            assert response.status == 403
            response, _ = await self.get(
                service, "/ice", headers={"Origin": "https://good.example"}
            )
            assert response.status == 200
            assert response.headers["Access-Control-Allow-Origin"] == "https://good.example"
            async with sockets(service) as connect:
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await connect(origin="https://evil.example")
                assert refused.value.status == 403
                await (await connect(origin="https://good.example")).hello()

    @pytest.mark.parametrize("path", ["/", "/trickle", "/client.js", "/client.d.ts"])
    async def test_pages_are_served_with_security_headers(self, path):
        async with signaling() as service:
            response, text = await self.get(service, path)
            assert response.status == 200
            assert text
            assert "script-src 'self'" in response.headers["Content-Security-Policy"]
            assert response.headers["X-Content-Type-Options"] == "nosniff"

    @pytest.mark.parametrize(
        "path", ["/assets/../server.py", "/assets/%2e%2e/server.py", "/nothing"]
    )
    async def test_nothing_else_is_served(self, path):
        async with signaling() as service:
            response, _ = await self.get(service, path)
            assert response.status in {403, 404}
            assert response.headers["X-Content-Type-Options"] == "nosniff"
