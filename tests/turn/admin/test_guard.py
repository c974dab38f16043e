"""Who may use the API, and what is told to whom may not."""

import asyncio
import logging

import pytest
import structlog

from config.schema import AdminSettings
from tests.operator_api import TOKEN, operator
from tests.turn.live import relay
from turn.admin import actions
from turn.admin.journal import Journal

PATHS = ["status", "allocations", "no-such-thing", "allocations/1", "events"]


@pytest.fixture
async def api():
    """An operator of one relay."""
    journal = Journal()
    async with relay(journal.tell) as service, operator(journal, service) as one:
        yield one


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", f"{TOKEN} {TOKEN}"])
async def test_without_the_token_nothing_is_told(api, path, token):
    answer = await api.ask(path, token=token)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.body["error"] == "unauthorized"
    assert "Authorization: Bearer" in answer.body["message"]


@pytest.mark.parametrize("value", [TOKEN, f"Basic {TOKEN}", f"bearer{TOKEN}"])
async def test_another_scheme_is_no_token(api, value):
    assert (await api.ask("status", token="", Authorization=value)).status == 401


async def test_the_scheme_is_of_any_case(api):
    assert (await api.ask("status", token="", Authorization=f"bearer {TOKEN}")).status == 200


async def test_a_token_in_the_url_is_none(api):
    assert (await api.ask(f"status?token={TOKEN}", token="")).status == 401


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403),
        ("null", 403),
        ("http://[::1", 403),
        ("http://127.0.0.1:1", 403),
        (None, 200),
    ],
)
async def test_pages_of_other_origins_are_refused_even_with_the_token(api, origin, status):
    headers = {} if origin is None else {"Origin": origin}
    assert (await api.ask("status", **headers)).status == status


@pytest.mark.parametrize("path", ["/metrics", "/api/v1/status", "/", "/readyz"])
@pytest.mark.parametrize(
    ("host", "let_in"),
    [
        ("evil.example", False), ("evil.example:9641", False), ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False), ("", False), ("[::1", False),
        ("127.0.0.1", True), ("localhost:9641", True), ("[::1]:9641", True),
    ],
)  # fmt: skip
async def test_no_other_name_leads_to_a_listener_on_loopback(api, path, host, let_in):
    """DNS rebinding: a page whose own name is made to mean this machine."""
    answer = await api.ask(path, Host=host)
    assert (answer.status == 200) == let_in
    if not let_in:
        assert answer.status in {400, 421}


async def test_our_own_page_may(api):
    assert (await api.ask("status", Origin=api.base)).status == 200


async def test_nothing_is_shared_or_kept(api):
    for answer in (await api.ask("status"), await api.ask("status", token="")):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    ("path", "method", "status", "error"),
    [
        ("no-such-thing", "GET", 404, "not_found"),
        ("status", "POST", 405, "method_not_allowed"),
        ("allocations/77", "GET", 404, "not_found"),
        ("allocations/77", "DELETE", 404, "not_found"),
        ("drain/1", "DELETE", 404, "not_found"),
    ],
)
async def test_a_mistake_is_answered_in_json(api, path, method, status, error):
    answer = await api.ask(path, method)
    assert (answer.status, answer.body["error"]) == (status, error)


HEAD = (
    "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
    "{header}\r\nConnection: close\r\n\r\n"
)


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("Content-Encoding: gzip\r\nContent-Length: 2", b"xy"),
        ("Content-Encoding: deflate\r\nContent-Length: 2", b"xy"),
    ],
)
@pytest.mark.parametrize(
    ("path", "token", "status"),
    [("/api/v1/drain", TOKEN, b"400"), ("/api/v1/drain", "x", b"401"), ("/metrics", "", b"405")],
)
async def test_a_body_that_makes_no_sense_fails_nowhere(
    api, caplog, path, token, status, header, body
):
    """A traceback in the log for each would fill a disk, for the asking."""
    reader, writer = await asyncio.open_connection(*api.admin.address)
    writer.write(HEAD.format(path=path, token=token, header=header).encode())
    await asyncio.sleep(0.05)  # the body is a segment of its own, and comes after the handler began
    writer.write(body)
    assert (await reader.readline()).split(b" ")[1] == status
    await reader.read()
    writer.close()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("body", [b"", b"xyz\r\n"], ids=["none", "no piece of any length"])
async def test_a_body_that_does_not_come_is_not_waited_for(api, monkeypatch, body):
    monkeypatch.setattr(actions, "BODY_PATIENCE", 0.3)
    reader, writer = await asyncio.open_connection(*api.admin.address)
    head = HEAD.format(path="/api/v1/drain", token=TOKEN, header="Transfer-Encoding: chunked")
    writer.write(head.encode())
    await asyncio.sleep(0.05)
    writer.write(body)
    assert (await reader.readline()).split(b" ")[1] in {b"400", b"408"}
    writer.close()


async def test_without_a_configured_token_there_is_no_api_and_no_page():
    journal = Journal()
    async with relay(journal.tell) as service, operator(journal, service, token="") as api:
        for path in ("/api/v1/status", "/api/v1/openapi.json", "/", "/operator/api.js"):
            answer = await api.ask(path)
            assert answer.status == 404
            assert "set admin.token" in answer.text
        assert not journal.on
        assert (await api.ask("/metrics", token="")).status == 200


async def test_a_reload_turns_it_on_changes_the_token_and_turns_it_off():
    journal = Journal()
    async with relay(journal.tell) as service, operator(journal, service, token="") as api:
        for token, status in ((TOKEN, 200), ("another one of sixteen", 401), ("", 404)):
            api.admin.reload(AdminSettings.model_validate({"token": token}))
            assert (await api.ask("status")).status == status
            assert journal.on == bool(token)


async def test_guesses_are_logged_without_the_guess_and_without_a_flood(api):
    with structlog.testing.capture_logs() as lines:
        for _ in range(50):
            await api.ask("status", token="a-guess-that-is-wrong")
    assert lines == [
        {"event": "wrong token", "remote": "127.0.0.1", "times": 1, "log_level": "warning"}
    ]
