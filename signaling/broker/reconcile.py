"""Redis is back: what a node handed on alone becomes a part of the mailboxes, or is sent anew."""

from collections.abc import Mapping

from signaling.broker.attached import Attached
from signaling.broker.base import MailboxFull, NotThere, SessionOver
from signaling.broker.ledger import Entry
from signaling.broker.link import Link


class Reconciler:
    """Of one node."""

    def __init__(self, link: Link, attached: Mapping[str, Attached]) -> None:
        """Prepare. :param attached: the sessions of this node, by their ids."""
        self._link = link
        self._attached = attached
        self._undelivered: list[Entry] = []
        """Handed to sessions that are not ours any more; their senders wait for an answer."""

    async def reconcile(self, attached: Attached) -> None:
        """Have the mailbox take over what its session was handed by us. :raises Unavailable:"""
        ledger, record = attached.ledger, attached.record
        if ledger is None:
            return
        ours = await self._link.call(
            "reconcile", record.session, record.secret_hash.hex(), attached.epoch, ledger.base,
            ledger.acknowledged, ledger.top, *ledger.arguments(),
        )  # fmt: skip
        if ours:
            attached.ledger = None
            for entry in ledger.entries:
                entry.settle()
        else:
            self.close(attached)

    def close(self, attached: Attached) -> None:
        """A session is not ours: nobody knows what its client has seen of the last entries."""
        if attached.ledger is not None:
            self._undelivered += [entry for entry in attached.ledger.entries if entry.request]
            attached.ledger = None

    async def deliver_again(self) -> None:
        """Send anew what may not have arrived. Who has seen it has begun a new session since, or
        will, and nobody gets it twice: an old number of ours resumes nothing elsewhere.

        :raises Unavailable:
        """
        while self._undelivered:
            entry = self._undelivered[0]
            sender = self._attached.get(entry.sender)
            try:
                if sender is None or sender.end is not None:
                    raise SessionOver
                outcome_of(
                    await self._link.call(
                        "send", sender.owner, entry.sender, entry.to, entry.request, entry.body,
                        "", "", entry.tag,
                    )
                )  # fmt: skip
                entry.settle()
            except (SessionOver, NotThere, MailboxFull) as error:
                entry.give_up(error)
            del self._undelivered[0]

    def give_up(self) -> None:
        """The node stops: whoever waits asks again elsewhere."""
        for attached in self._attached.values():
            self.close(attached)
        for entry in self._undelivered:
            entry.give_up(SessionOver())
        self._undelivered.clear()


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
