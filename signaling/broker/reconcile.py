"""Redis is back: what a node was asked to hand on alone becomes a part of the mailboxes.

First Redis is asked for all that was not answered, as if it had been there (``replay``); and when
that is done for every sender, each mailbox takes over what its session was handed (``reconcile``),
which drops the copies of the first step by their tags. A session that moved to another node, and
has not seen what it was handed here, has the copy; one that has seen it has been told that it
could not go on.
"""

from collections.abc import Mapping

from signaling.broker.attached import Attached
from signaling.broker.base import MailboxFull, NotThere, SessionOver
from signaling.broker.ledger import Asked
from signaling.broker.link import Link


class Reconciler:
    """Of one node."""

    def __init__(self, link: Link, attached: Mapping[str, Attached]) -> None:
        """Prepare. :param attached: the sessions of this node, by their ids."""
        self._link = link
        self._attached = attached

    async def replay(self, sender: Attached) -> None:
        """Have Redis do what a session asked for meanwhile and was not answered, in its order.

        :raises Unavailable:
        """
        for asked in list((sender.handed or {}).values()):
            if not asked.answer.done():
                await self._replay(sender, asked)

    async def _replay(self, sender: Attached, asked: Asked) -> None:
        asked.doubt()
        peers = ((peer, "" if ledger is None else "handed") for peer, ledger in asked.peers.items())
        record = sender.record
        reply = await self._link.call(
            "again", record.session, record.secret_hash.hex(), sender.epoch, asked.request,
            asked.body, asked.tag, *(part for each in peers for part in each),
        )  # fmt: skip
        try:
            outcome_of(b"sent" if reply == b"absent" and asked.to_all else reply)
            asked.settle()
        except (SessionOver, NotThere, MailboxFull) as error:
            asked.give_up(error)

    async def reconcile(self, attached: Attached) -> None:
        """Have the mailbox take over what its session was handed by us. :raises Unavailable:

        From then on its client may go to another node. What it has said to all is remembered in
        the same step, so that it is not done again there. Where the session is not ours any
        more nothing happens, and nothing has to.
        """
        ledger, record = attached.ledger, attached.record
        if ledger is None:
            return
        own = [asked.request for asked in (attached.handed or {}).values() if asked.to_all]
        ledger.doubt_all()
        await self._link.call(
            "reconcile", record.session, record.secret_hash.hex(), attached.epoch, ledger.base,
            ledger.acknowledged, ledger.top, len(ledger.entries), len(own), *own,
            *ledger.arguments(),
        )  # fmt: skip
        attached.ledger = None

    def close(self, attached: Attached) -> None:
        """A session is not ours any more: whoever waits for an answer asks again elsewhere."""
        for asked in (attached.handed or {}).values():
            asked.give_up(SessionOver())
        attached.ledger = attached.handed = attached.waiting = None

    def give_up(self) -> None:
        """The node stops."""
        for attached in self._attached.values():
            self.close(attached)


def outcome_of(reply: bytes) -> bool:
    """What a script says of a message: whether the recipient's socket is there to take it.

    :raises SessionOver, NotThere, MailboxFull: it went nowhere.
    """
    if reply == b"gone":
        raise SessionOver
    if reply == b"absent":
        raise NotThere
    if reply == b"full":
        raise MailboxFull
    return reply in (b"sent", b"here")
