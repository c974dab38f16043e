"""Asks the operator's back end who a client is (``turn.user_url``), and remembers the answers.

What a stranger can cause is bounded: he has echoed a nonce of ours, his address gets no more
questions a second than replies, and only so many wait or are asked at a time.
"""

import asyncio
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import msgspec
import structlog

from config.turn import TurnSettings
from config.values import prepare
from config.webhooks.post import Answer, Poster, Unreachable, shown
from turn.allocation.asking import GoOn
from turn.auth.authenticate import Now
from turn.auth.credentials import PasswordAlgorithm, long_term_key
from turn.auth.users import NOBODY, Keys, Said, Users
from turn.routes import FiveTuple
from turn.stats import Stats
from turn.transport.limits import ReplyLimit, network_of

log = structlog.get_logger("turn")

MOST_WAITING = 1024
"""Requests that wait for an answer."""
MOST_OF_A_SOURCE = 64
"""The same of one address (an IPv6 /64)."""
MOST_AT_ONCE = 32
"""Questions that are under way; others wait for one of these to end."""
MOST_OF_A_SOURCE_AT_ONCE = 8
"""The same of one address: it keeps no other waiting."""
PATIENCE = 10.0
"""Seconds that a question waits for its turn at most: clients have little more."""
LOOK = 0.05
"""Seconds between looks whether an address may ask again."""

Asked = tuple[str, str, str]
"""A name, and the host and the transport of the client that gave it."""


@dataclass(slots=True)
class _Question:
    """What is asked, and the requests that wait for it: by client and transaction."""

    task: "asyncio.Task[None]"
    waiting: dict[tuple[FiveTuple, bytes], GoOn] = field(default_factory=dict)
    places: int = 0
    """What it takes of those that may wait, until it ends: also for who has gone meanwhile."""


class BackEnd:
    """Asks about users (``allocation.asking.Asks``)."""

    def __init__(self, settings: TurnSettings, replies: ReplyLimit, stats: Stats) -> None:
        """Prepare; nothing is opened before somebody has to be asked about.

        :param replies: what may go to a source that has proved nothing.
        """
        self.users = Users()
        self._settings = settings
        self._replies = replies
        self._stats = stats
        self._poster = Poster(*signed_by(settings))
        self._questions: dict[Asked, _Question] = {}
        self._waiting: Counter[int] = Counter()
        """Requests, by network."""
        self._in_all = 0
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)
        self._turns_of: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()
        self._failing = False
        self.replace(settings)

    def replace(self, settings: TurnSettings) -> None:
        """Ask as these settings have it; what another back end said, or of another realm, or
        would hold for longer than they let it, is forgotten.
        """
        before, self._settings = self._whose, settings
        is_shorter = settings.user_cache < self.users.remember
        self._poster.replace(*signed_by(settings))
        self._replies.set_rate(settings.max_unproved_replies_per_second)
        self.users.remember = settings.user_cache
        if before != self._whose or is_shorter:
            self.users.forget()

    @property
    def _whose(self) -> tuple[str, str]:
        """What an answer is of: whoever gave it, and the realm of its keys."""
        return self._settings.user_url, self._settings.realm

    async def stop(self) -> None:
        """Ask nobody any more; whoever waits is told nothing."""
        tasks = [question.task for question in self._questions.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._poster.stop()

    def ask(self, name: str, client: FiveTuple, transaction_id: bytes, go_on: GoOn) -> bool:
        """Have a name asked about; False where too much is asked already."""
        asked = name, client.client.host, client.transport.value
        question, request = self._questions.get(asked), (client, transaction_id)
        if question is not None and request in question.waiting:
            return True  # it comes again, as over UDP they do
        network = network_of(client.client.host)
        if self._in_all >= MOST_WAITING or self._waiting.get(network, 0) >= MOST_OF_A_SOURCE:
            return False
        if question is None:
            task = asyncio.get_running_loop().create_task(self._find_out(asked, network))
            question = self._questions[asked] = _Question(task)
        question.waiting[request] = go_on
        question.places += 1
        self._count(network, 1)
        return True

    def forget(self, client: FiveTuple) -> None:
        """A client is gone, and waits for nothing."""
        if not self._questions:
            return
        for (_, host, _), question in self._questions.items():
            if host == client.client.host:
                for request in [one for one in question.waiting if one[0] == client]:
                    del question.waiting[request]

    async def _find_out(self, asked: Asked, network: int) -> None:
        said: Said | None = None
        (name, host, _), whose = asked, self._whose
        own = self._turns_of.get(network) or asyncio.Semaphore(MOST_OF_A_SOURCE_AT_ONCE)
        self._turns_of[network] = own
        try:
            async with asyncio.timeout(PATIENCE + self._poster.timeout), own:
                while not self._replies.allow(host, time.monotonic()):  # noqa: ASYNC110 - a rate
                    await asyncio.sleep(LOOK)
                async with self._turns:
                    if self._questions[asked].waiting:
                        said = await self._ask(asked)
        except TimeoutError:
            self._stats.user_decisions["failed"] += 1
        finally:
            question = self._questions.pop(asked)
            self._count(network, -question.places)
        now = Now(time.monotonic(), time.time())
        if whose != self._whose:  # a reload came between
            said = None
        if said is not None:
            self.users.put(name, said, now.monotonic)
        proved = sum(go_on(said, now) for go_on in question.waiting.values())
        if proved:  # what a user asks for takes nothing of the strangers' share
            self._replies.charge(host, now.monotonic, -self._replies.cost)

    async def _ask(self, asked: Asked) -> Said | None:
        settings = self._settings
        name, host, transport = asked
        question = {"user": name, "realm": settings.realm, "client": host, "transport": transport}
        body = msgspec.json.encode({"type": "user", "data": question})
        try:
            event_id = f"user_{secrets.token_hex(12)}"
            answer = await self._poster.post(settings.user_url, event_id, body)
            said = said_in(answer, name, settings.realm)
        except Unreachable as error:
            self._stats.user_decisions["failed"] += 1
            self._tell(str(error))
            return None
        self._stats.user_decisions["allowed" if said else "refused"] += 1
        self._tell("")
        return said

    def _tell(self, failure: str) -> None:
        """Log that it begins or ends to fail, not each time that it does."""
        url = shown(self._settings.user_url)
        if failure and not self._failing:
            log.warning("nobody says who clients are", url=url, reason=failure)
        elif self._failing and not failure:
            log.info("the back end says again who clients are", url=url)
        self._failing = bool(failure)

    def _count(self, network: int, requests: int) -> None:
        self._in_all += requests
        self._waiting[network] += requests
        if not self._waiting[network]:
            del self._waiting[network]


class _Said(msgspec.Struct):
    password: str = ""
    md5: str = ""
    sha256: str = ""


def said_in(answer: Answer, name: str, realm: str) -> Said:
    """What an answer says of a name; nothing: it is nobody's. :raises Unreachable: it is none."""
    if answer.refuses:
        return NOBODY
    if not answer.ok:
        raise Unreachable(f"status {answer.status}")
    try:
        said = msgspec.json.decode(answer.body, type=_Said)
        if password := prepare(said.password):
            made = (long_term_key(name, realm, password, one) for one in PasswordAlgorithm)
            return (Keys(*made),)
        keys = Keys(bytes.fromhex(said.md5), bytes.fromhex(said.sha256))
    except (ValueError, RecursionError) as error:  # of msgspec, too
        raise Unreachable(f"the answer cannot be read: {error}") from None
    if not keys.are_sound:
        raise Unreachable("the answer has neither a password nor a key of the right length")
    return (keys,)


def signed_by(settings: TurnSettings) -> tuple[list[str], float]:
    """What requests to a back end are signed with, and how long they may take."""
    secrets_of = [secret.get_secret_value() for secret in settings.webhook_secret]
    return secrets_of, settings.webhook_timeout
