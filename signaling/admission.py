"""Who may come in: whoever has a join token, or whom the application's back end lets in."""

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict
from typing import Any, Protocol

import msgspec
import structlog

from config.webhooks.post import Answer, Poster, Unreachable, shown
from signaling.auth import MOST_TOKEN_BYTES, BadToken, Claims, Tokens, is_text
from signaling.stats import Stats

log = structlog.get_logger("signaling")

ANY_ROOM = "*"
"""What an answer says as ``room`` to let a client into every room."""
MOST_REMEMBERED = 10_000
LONGEST_REFUSAL = 5.0
"""Seconds that a refusal is remembered at most: who has just been invited gets in soon."""


class Undecided(Exception):
    """The back end could not be asked: the client may try again a little later."""


class Decides(Protocol):
    """Decides for those without a JWT."""

    async def decide(self, token: str, room: str, name: str) -> Claims:
        """What a client may do. :raises BadToken: nothing. :raises Undecided: not known now."""


class Admission:
    """Lets clients in, or not."""

    def __init__(self, tokens: Tokens, back_end: Decides | None) -> None:
        self._tokens = tokens
        self._back_end = back_end

    @property
    def required(self) -> bool:
        """Whether rooms are closed to those whom nobody lets in."""
        return self._tokens.required or self._back_end is not None

    def revoke(self, user: str, until: float) -> None:
        """Let a user in no more until then, whatever it shows. :param until: Unix time; 0: do."""
        self._tokens.revoke(user, until)

    def is_revoked(self, user: str) -> bool:
        """Whether a user may not come in now, whatever it shows."""
        return self._tokens.is_revoked(user, time.time())

    async def admit(self, token: str, room: str = "", name: str = "") -> Claims | None:
        """What a client may do; None where everybody may come in.

        :param room: that it says it will join, if it does; where a back end decides, its answer
            holds for that room unless it names another.
        :raises BadToken: nothing.
        :raises Undecided: nobody could say.
        """
        if self._tokens.required:
            try:
                return self._tokens.check(token, time.time())
            except BadToken:
                if self._back_end is None:
                    raise
        if self._back_end is None:
            return None
        claims = await self._back_end.decide(token, room, name)
        self._tokens.check_subject(claims, time.time())
        return claims


class JoinWebhook:
    """Asks the back end, once for the same question within a while."""

    def __init__(self, poster: Poster, url: str, remember: float, stats: Stats) -> None:
        """Prepare to ask. :param remember: seconds that an answer holds; 0: always ask."""
        self._poster = poster
        self._url = url
        self.remember = remember
        self._stats = stats
        self._answers: OrderedDict[bytes, tuple[float, Claims | None]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Claims | None]] = {}

    async def decide(self, token: str, room: str, name: str) -> Claims:
        """What the back end says. :raises BadToken: :raises Undecided:"""
        if len(token) > MOST_TOKEN_BYTES:
            raise BadToken("too long")
        if not is_text(token):  # of a header, whose bytes may be anything
            raise BadToken("not text")
        question = msgspec.json.encode(
            {"type": "join", "data": {"token": token, "room": room, "name": name}}
        )
        key = hashlib.sha256(question).digest()
        expires, claims = self._answers.get(key, (0.0, None))
        if expires <= time.monotonic():
            claims = await self._ask_once(key, question, room)
        if claims is None:
            self._stats.join_decisions["refused"] += 1
            raise BadToken("the back end refused it")
        self._stats.join_decisions["allowed"] += 1
        return claims

    async def _ask_once(self, key: bytes, question: bytes, room: str) -> Claims | None:
        """Ask, or wait with whoever is asking the same."""
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(key, question, room))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        # Shielded: that one client goes must not end what another waits for.
        return await asyncio.shield(task)

    async def _ask(self, key: bytes, question: bytes, room: str) -> Claims | None:
        try:
            answer = await self._poster.post(self._url, f"join_{secrets.token_hex(12)}", question)
            claims = _claims(answer, room)
        except Unreachable as error:
            self._stats.join_decisions["failed"] += 1
            log.warning("nobody decided who may join", url=shown(self._url), reason=str(error))
            raise Undecided(str(error)) from None
        holds = self.remember if claims else min(self.remember, LONGEST_REFUSAL)
        self._answers[key] = time.monotonic() + holds, claims
        self._answers.move_to_end(key)
        while len(self._answers) > MOST_REMEMBERED:
            self._answers.popitem(last=False)
        return claims


def _claims(answer: Answer, asked: str) -> Claims | None:
    """What an answer lets a client do; None: nothing. :raises Unreachable: it is no answer."""
    if answer.refuses:
        return None
    if not answer.ok:
        raise Unreachable(f"status {answer.status}")
    try:
        said: dict[str, Any] = msgspec.json.decode(answer.body, type=dict[str, Any])
        if said.get("allow") is not True:
            return None
        room = said.get("room", asked)
        if room == "":
            raise Unreachable("the answer names no room, and the client did not either")
        # Only the back end can mean every room: a client that asks for "*" asks for a room.
        any_room = said.get("room") == ANY_ROOM
        return Claims({**said, "room": "" if any_room else room})
    except (msgspec.DecodeError, RecursionError, BadToken) as error:
        raise Unreachable(f"the answer cannot be read: {error}") from None
