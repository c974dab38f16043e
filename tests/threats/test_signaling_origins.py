"""Pages of other sites (RFC 6455 §10.2): no socket, no credentials, and no answer to read."""

import aiohttp
import pytest

from tests.signaling.live import signaling, sockets, url

ALLOWED = "https://app.example.org"
OTHERS = [
    "https://evil.example",
    "http://app.example.org",
    "https://app.example.org:8443",
    "https://app.example.org.evil.example",
    "https://evil.example/app.example.org",
    "https://app.example.org@evil.example",
    "https://xapp.example.org",
    "https://sub.app.example.org",
    "https://example.org",
    "https://app.example.org.",
    "https://app.example.org/",
    "https://app.example.org, https://evil.example",
    "null",
    "file://",
    "",
]


@pytest.fixture
async def service():
    async with signaling(allowed_origins=[ALLOWED]) as running:
        yield running


async def ask(service, method, path, **headers):
    """The status and the headers of an answer."""
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, url(service, path), headers=headers) as response,
    ):
        return response.status, response.headers, await response.text()


@pytest.mark.parametrize("origin", OTHERS)
async def test_a_page_of_another_site_opens_no_socket(service, origin):
    """Cross-site WebSocket hijacking: a page acts with what its visitor's browser can reach."""
    async with sockets(service) as connect:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await connect(headers={"Origin": origin})
        assert refused.value.status == 403
    assert service._websockets.connections == 0


@pytest.mark.parametrize("origin", OTHERS)
async def test_a_page_of_another_site_gets_no_credentials(service, origin):
    """The relay's bandwidth is not for everyone's page."""
    status, headers, text = await ask(service, "GET", "/ice", Origin=origin)
    assert status == 403
    assert "credential" not in text
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("origin", OTHERS)
async def test_a_preflight_does_not_let_it_in_either(service, origin):
    """A browser asks first where a token goes along."""
    _, headers, _ = await ask(
        service, "OPTIONS", "/ice", Origin=origin, **{"Access-Control-Request-Method": "GET"}
    )
    assert "Access-Control-Allow-Origin" not in headers


async def test_the_allowed_page_is_served_and_no_cache_mixes_answers_up(service):
    status, headers, _ = await ask(service, "GET", "/ice", Origin=ALLOWED)
    assert status == 200
    assert headers["Access-Control-Allow-Origin"] == ALLOWED
    assert headers["Vary"] == "Origin"
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Credentials" not in headers
    async with sockets(service) as connect:
        await (await connect(headers={"Origin": ALLOWED})).hello()


@pytest.mark.parametrize("path", ["/ice", "/ws"])
async def test_a_name_that_was_rebound_to_us_is_not_ours(path):
    """DNS rebinding: the page's name is the attacker's and its address is this machine's."""
    async with signaling() as service:
        port = service.addresses[0][1]
        name = f"rebound.evil.example:{port}"
        status, _, _ = await ask(service, "GET", path, Host=name, Origin=f"http://{name}")
        assert status == 403
        status, _, _ = await ask(
            service, "GET", "/ice", Host=f"localhost:{port}", Origin=f"http://localhost:{port}"
        )
        assert status == 200


async def test_the_headers_of_a_stranger_do_not_make_him_another():
    """X-Forwarded-For from nobody that is trusted: the limit is that of his own address."""
    async with (
        signaling(max_unauthenticated_per_address=1) as service,
        sockets(service) as connect,
    ):
        first = await connect(headers={"X-Forwarded-For": "203.0.113.1"})
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await connect(headers={"X-Forwarded-For": "203.0.113.2"})
        assert refused.value.status == 429
        await first.hello()


@pytest.mark.parametrize(
    "lines",
    [["203.0.113.1", "198.51.100.7"], ["203.0.113.1, 198.51.100.7"],
     ["203.0.113.1", "::ffff:198.51.100.7", "127.0.0.1"]],
)  # fmt: skip
async def test_what_a_client_writes_before_the_proxy_does_is_not_believed(lines):
    """A proxy may add a header line of its own (HAProxy does): the last one is the one to go by."""
    proxied = signaling(
        max_unauthenticated_per_address=1, trusted_proxies=["127.0.0.1"], hello_timeout=30
    )
    async with proxied as service, sockets(service) as connect:
        await connect(headers=[("X-Forwarded-For", "198.51.100.7")])
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await connect(headers=[("X-Forwarded-For", line) for line in lines])
        assert refused.value.status == 429
        await connect(headers=[("X-Forwarded-For", "::ffff:198.51.100.8")])
