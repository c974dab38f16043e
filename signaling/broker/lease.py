"""Being alive: a node keeps its lease at Redis, and puts its sessions right where it had ended."""

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from signaling.broker import wire
from signaling.broker.alone import Alone
from signaling.broker.attached import Attached
from signaling.broker.echo import Echoes
from signaling.broker.link import Link
from signaling.broker.sessions import Sessions
from signaling.protocol.errors import CloseCode

log = structlog.get_logger("signaling.redis")

RENEWALS = 4
"""Renewals in the time of one lease."""
ANSWER = 3.0
"""Seconds in which nothing comes, after which whoever waits for it takes Redis to be away."""
LOOKS = 6
"""Into which they are divided: a time in which this process slept counts as one of them at most."""
PUT_RIGHT = 30.0
"""Seconds that it may take to put all sessions right after Redis is back."""
REFRESH = 30
"""Renewals between two refreshes of all keys of this node's sessions."""
REFRESHED_AT_ONCE = 100
RETURN_RATE = 2000
"""Sockets a second that are closed when their sessions are lost: they all come back."""


class Lease:
    """Of one node."""

    def __init__(
        self, seconds: float, link: Link, sessions: Sessions, alone: Alone, echoes: Echoes
    ) -> None:
        """Prepare. :param seconds: who says nothing for longer counts as dead."""
        self._seconds = seconds
        self._name = socket.gethostname()
        self._link = link
        self._sessions = sessions
        self._alone = alone
        self._echoes = echoes
        self._woken = asyncio.Event()

    def woken(self) -> None:
        """The wake-up that a renewal causes has come."""
        self._woken.set()

    async def live(self) -> None:
        """Runs while the link is open. :raises Unavailable, TimeoutError: it is no good."""
        self._alone.coming_back()
        try:
            await self.renew()
            await self.put_right()
            self._link.tried()
            renewals = 0
            while True:
                await asyncio.sleep(self._seconds / RENEWALS)
                if not await self.renew():
                    log.warning("the lease had ended: this node was away for too long")
                    await self.put_right()
                await self._make_up()
                renewals += 1
                if renewals % REFRESH == 0:
                    await self.refresh()
        finally:
            self._sessions.is_up = False
            self._alone.away()
            self._echoes.fail()

    async def renew(self) -> bool:
        """Renew the lease and wait for the wake-up that comes of it; False where it had ended.

        Whatever was published to this node before has then been handed on. However long that
        takes: a node that has much to do is not cut off.

        :raises TimeoutError: scripts or wake-ups do not come through.
        :raises Unavailable:
        """
        link = self._link
        self._woken.clear()
        lease = int(self._seconds * 1000)
        enlisted = link.call("enlist", lease, link.run, self._name)
        held = await _patiently(enlisted, lambda: link.answers)
        await _patiently(self._woken.wait(), lambda: link.wakes)
        return bool(held)

    async def give_up(self) -> None:
        """Suspend all sessions. :raises TimeoutError, Unavailable: the lease ends by itself."""
        async with asyncio.timeout(ANSWER):
            while self._sessions.is_up and await self._link.call("delist"):
                pass

    async def put_right(self) -> None:
        """Take back what is ours, end what ended meanwhile, let go of what is lost.

        :raises TimeoutError, Unavailable:
        """
        self._sessions.is_up = False
        self._alone.coming_back()
        async with asyncio.timeout(PUT_RIGHT):
            while not await self._put_all_right_as_one_who_lives():
                pass
        self._sessions.is_up = True
        self._alone.all_right()
        await self._make_up()

    async def _put_all_right_as_one_who_lives(self) -> bool:
        """Keep the lease meanwhile; False where it ended: others may have taken from us again."""
        held = True
        putting = asyncio.ensure_future(self._put_all_right())
        try:
            while not (await asyncio.wait({putting}, timeout=self._seconds / RENEWALS))[0]:
                held = await self.renew() and held
            await putting
        finally:
            putting.cancel()
        return held

    async def _put_all_right(self) -> None:
        sessions = self._sessions
        ours = list(sessions.attached.values())
        await asyncio.gather(*map(sessions.reconciler.replay, ours))
        await asyncio.gather(*map(sessions.reconciler.reconcile, ours))
        await self._make_up()
        outcomes = await asyncio.gather(*map(self._take_back, list(sessions.attached.values())))
        lost = [attached for attached in outcomes if attached is not None]
        loop = asyncio.get_running_loop()
        spread = len(lost) / RETURN_RATE
        for attached in lost:
            loop.call_later(
                random.uniform(0, spread),  # noqa: S311 - spreads load, no secret
                sessions.cut, attached, CloseCode.SESSION_OVER,
            )  # fmt: skip
        for text in await self._link.call("revocations", time.time()):
            sessions.revoked(text)

    async def _take_back(self, attached: Attached) -> Attached | None:
        """Attach a session again; gives it back where it cannot be had. :raises Unavailable:"""
        sessions = self._sessions
        session = attached.record.session
        with sessions.coming.expecting(session):
            try:
                reply = await self._link.call(
                    "attach", session, attached.record.secret_hash.hex(), attached.last,
                    attached.epoch,
                )  # fmt: skip
            except BaseException:
                # It may be ours with an epoch that we do not know: its end would not be heard.
                sessions.coming.doubtful.add(session)
                raise
        if sessions.attached.get(session) is not attached:
            # Its client was quicker; or an answer from before has had it let go of, and Redis now
            # believes it to be here: it is given back, or nobody would ever hear of its end.
            sessions.coming.doubtful.add(session)
            return None
        if reply is None:
            return attached
        attached.epoch = reply[1]
        if code := sessions.coming.end_of(session, attached.owner):
            sessions.cut(attached, code)
        elif attached.end is not None:  # its socket was lost meanwhile
            await sessions.tell_end(attached)
        else:
            attached.catch_up(wire.entries(reply[3]), sessions.deliver)
        attached.unsure, attached.handed, attached.waiting = False, None, None
        return None

    async def _make_up(self) -> None:
        """Say what could not be said when it happened."""
        sessions, coming = self._sessions, self._sessions.coming
        for attached in list(sessions.attached.values()):
            if attached.end is not None:
                await sessions.tell_end(attached)
            elif sessions.is_up:
                sessions.mind_gap(attached)
        for session in list(coming.doubtful):
            if session not in sessions.attached and not coming.is_resuming(session):
                await self._link.call("abandon", session)
            coming.doubtful.discard(session)

    async def refresh(self) -> None:
        """Have all their keys live on, should every node die at once."""
        names = list(self._sessions.attached)
        for start in range(0, len(names), REFRESHED_AT_ONCE):
            await self._link.call("refresh", *names[start : start + REFRESHED_AT_ONCE])


async def _patiently(coming: Awaitable[Any], heard: Callable[[], int]) -> Any:
    """Wait as long as something comes. :param heard: how much has come. :raises TimeoutError:"""
    task, silent = asyncio.ensure_future(coming), 0
    try:
        while silent < LOOKS:
            before = heard()
            if (await asyncio.wait({task}, timeout=ANSWER / LOOKS))[0]:
                return task.result()
            silent = silent + 1 if heard() == before else 0
        raise TimeoutError
    finally:
        task.cancel()
