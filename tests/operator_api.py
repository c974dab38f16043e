"""An admin listener with the API on, and an operator who uses it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from config.schema import AdminSettings
from signaling.server import SignalingService
from tests.signaling.live import signaling
from tests.turn.live import relay
from turn.admin.journal import Journal
from turn.admin.listener import Admin
from turn.server import TurnService

TOKEN = "the operator's token of the tests"


class Answer:
    """What the API answered."""

    def __init__(self, status: int, headers: Any, text: str) -> None:
        self.status = status
        self.headers = headers
        self.text = text

    @property
    def body(self) -> Any:
        """Its JSON."""
        assert self.headers["Content-Type"].startswith("application/json"), self.text
        return json.loads(self.text)


class FakeControl:
    """A process that does nothing of what it is told, and remembers it."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.log_level = "info"
        self.reloaded = True

    def reload(self) -> list[str]:
        """Give the problems that a test has set."""
        return self.problems

    def set_log_level(self, level: str) -> None:
        """Remember it."""
        self.log_level = level

    async def spread_revocation(self, user: str, until: float) -> bool:
        """There are no others."""
        return False


class Operator:
    """Asks an admin listener."""

    def __init__(self, admin: Admin, http: aiohttp.ClientSession, control: FakeControl) -> None:
        self.admin = admin
        self.control = control
        self.http = http
        host, port = admin.address
        self.base = f"http://{host}:{port}"

    async def ask(
        self, path: str, method: str = "GET", body: Any = None, token: str = TOKEN, **headers: str
    ) -> Answer:
        """One request. ``path`` is below /api/v1 unless it begins with a slash."""
        url = self.base + (path if path.startswith("/") else f"/api/v1/{path}")
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else body if isinstance(body, str) else json.dumps(body)
        async with self.http.request(method, url, headers=headers, data=data) as answer:
            return Answer(answer.status, answer.headers, await answer.text())

    async def get(self, path: str) -> Any:
        """What a good question is answered."""
        answer = await self.ask(path)
        assert answer.status == 200, answer.text
        return answer.body


@asynccontextmanager
async def operator(journal: Journal, *services: Any, token: str = TOKEN) -> AsyncIterator[Operator]:
    """An operator of some services; they have to tell the same journal."""
    control = FakeControl()
    settings = AdminSettings.model_validate({"listen": "127.0.0.1:0", "token": token})
    admin = Admin(settings, services, journal, control)
    await admin.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield Operator(admin, http, control)
    finally:
        await admin.stop()


@asynccontextmanager
async def both_operated() -> AsyncIterator[tuple[TurnService, SignalingService, Operator]]:
    """Both services, and their operator."""
    journal = Journal()
    async with (
        relay(journal.tell) as turn,
        signaling(tell=journal.tell) as rooms,
        operator(journal, turn, rooms) as api,
    ):
        yield turn, rooms, api
