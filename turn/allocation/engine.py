"""The STUN/TURN server as a function: a message in, a reply out (RFC 8489 §6.3, RFC 8656).

A request passes the same steps in the same order whatever its method; ``HANDLERS`` does what is
particular to one; ``_reject`` builds every failure. The engine knows neither sockets nor clocks.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from turn.allocation import mobility
from turn.allocation.allocator import Allocator, CloseReason, Parts
from turn.allocation.asking import check_length, undecided
from turn.allocation.connections import Claimant, PeerStream
from turn.allocation.elsewhere import Shown
from turn.allocation.handlers import HANDLERS, KNOWN, known
from turn.allocation.meant import granted_for, is_keyed_elsewhere, kept_for
from turn.allocation.model import Allocation, Limits, Owner
from turn.allocation.options import Options
from turn.allocation.record import NO_JOURNAL
from turn.allocation.refusals import facts_of, is_first_step
from turn.allocation.replies import RecentReplies
from turn.allocation.request import Outcome, Request, Waiting, unknown_attributes
from turn.allocation.restore import Kept, restore
from turn.auth.authenticate import Authenticator, Now
from turn.auth.ephemeral import expiry_of
from turn.auth.proved import Identity
from turn.auth.third_party import Grant
from turn.auth.users import NOBODY, NotKnown, Said
from turn.bandwidth import Key
from turn.codec import registry
from turn.codec.errors import Malformed, StunError
from turn.codec.integrity import NONE
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import METHOD_NAMES, Attributes, MessageClass, Method
from turn.codec.values import Address
from turn.routes import Buffer, FiveTuple, Route, Send
from turn.stats import DropReason

REPEATABLE = frozenset({Method.CREATE_PERMISSION, Method.CHANNEL_BIND, Method.CONNECTION_BIND})
"""A retransmission of these is handled again, and does no more than refresh what is there
(RFC 8656 §10.2, §12.2). A ConnectionBind that comes again comes over another connection, which
its success would not be true of."""
# Here, because an enum's own lookup costs three times as much as a name's.
REQUEST, SUCCESS, ERROR = MessageClass.REQUEST, MessageClass.SUCCESS, MessageClass.ERROR
BINDING, ALLOCATE, CONNECTION_BIND = Method.BINDING, Method.ALLOCATE, Method.CONNECTION_BIND
AUTH_RESULTS = {400: "bad_request", 401: "unauthorized", 438: "stale_nonce"}


@dataclass(slots=True)
class Reply:
    """What to send back to where the message came from."""

    data: bytes
    proved: bool
    """The sender showed who it is; else its address may be a victim's that somebody forged, and
    the transport bounds what goes there."""
    stream: PeerStream | None = None
    """What the client's connection carries from now on, in place of messages (RFC 6062 §5.4)."""
    origin: Address | None = None
    """Which of our UDP addresses it leaves from, if not the one that was asked (RFC 5780)."""
    destination: Address | None = None
    """Where it goes, if not to where the message came from (RFC 5780, RESPONSE-PORT)."""
    waiting: Waiting | None = None
    """No reply yet, and nothing else of the connection is to be handled before it (RFC 6062)."""


class Engine:
    """Decides who may send what to whom, and writes it down as routes."""

    def __init__(self, authenticator: Authenticator, parts: Parts) -> None:
        self._authenticator = authenticator
        self._stats = parts.stats
        self._allocator = Allocator(parts)
        self._allocator.tenant_of = authenticator.tenant_of
        self._tell = parts.tell
        self._asks = parts.asks
        self._replies = RecentReplies()
        self.table = parts.table
        self.draining = False
        """New allocations are turned away (508); live ones go on."""
        self._left = False
        """Another process goes on with what there is."""

    # From a client -------------------------------------------------------------------------

    def handle(self, data: Buffer, client: FiveTuple, send: Send, now: Now) -> Reply | None:
        """Handle one STUN message.

        :param data: a whole message, as the network brought it.
        :param send: how packets of this client's peers reach it.
        :returns: the reply, or None where there is none (a drop, counted).
        :raises Malformed: it is no STUN message; a stream cannot go on after that.
        """
        message = parse_untrusted(data)
        if message.message_class != REQUEST or message.method not in HANDLERS:
            self._stats.drop(DropReason.UNEXPECTED)
            return None
        self._stats.requests[METHOD_NAMES[message.method], client.transport] += 1
        request = Request(message, client, send, now, self._answer_later)
        try:
            return self._answer(request)
        except StunError as error:
            return self._reject(request, error)
        except Malformed:  # an attribute's value, found out only where it was asked for
            return self._reject(request, StunError(400))

    def _answer(self, request: Request) -> Reply | None:
        message, now = request.message, request.now.monotonic
        if message.method == BINDING:
            self._check_known(request)
            return self._succeed(request)
        if message.integrity is NONE:
            return self._challenge(request)
        remembered = message.method not in REPEATABLE
        if remembered:
            kept = self._replies.get(request.client, message.raw, now)
            if kept is not None:
                return Reply(kept, proved=True)
        allocator, third_party = self._allocator, self._authenticator.third_party
        if third_party is not None and is_keyed_elsewhere(allocator, third_party, request):
            return self._wait_for_key(request)
        granted = granted_for(allocator, request) if third_party is not None else None
        try:
            said = kept_for(allocator, request) if self._authenticator.asks else None
            self._identify(request, granted, said)
        except NotKnown:
            return self._wait_for_word(request)
        if message.method == ALLOCATE:
            self._check_taken_in(request)
        try:
            reply = self._succeed(request)
        finally:
            self.table.settle()
        if reply is not None and remembered and reply.waiting is None:
            self._replies.put(request.client, message.raw, reply.data, now)
        return reply

    def _identify(self, request: Request, granted: Grant | None, said: Said | None = None) -> None:
        """Find out whose request it is, and see that it may be served.

        :raises StunError: it may not. :raises NotKnown: a back end has to say it.
        """
        request.identity = self._authenticate(request, granted, said)
        if (clients := self._allocator.options.clients) is not None:
            clients.check(request.client.client.host)
        # Only now (RFC 8489 §6.3): a client discards a 420 that nothing protects (§9.2.5).
        self._check_known(request)

    def _check_taken_in(self, request: Request) -> None:
        """See that somebody may begin something here. :raises StunError: 508, 403."""
        if not self._takes_in():
            raise StunError(508, why="the relay is draining, or sends everyone elsewhere")
        proved = request.proved
        self._allocator.revocations.check(proved.username, proved.user, request.now.wall)

    def _check_known(self, request: Request) -> None:
        message = request.message
        if not message.unknown_required(KNOWN):
            return
        able = known(self._allocator, request)
        if self._authenticator.third_party is not None:
            able |= {registry.ACCESS_TOKEN.number}
        unknown = message.unknown_required(able)
        if unknown:
            raise unknown_attributes(unknown)

    def _answer_later(self, request: Request, outcome: Outcome) -> None:
        """Send the reply to a request whose handler gave none."""
        client, raw = request.client, request.message.raw
        kept = self._replies.get(client, raw, request.now.monotonic)
        if kept is not None:  # a retransmission, handled twice before it was answered once
            reply = Reply(kept, proved=True)
        elif isinstance(outcome, StunError):
            reply = self._reject(request, outcome)
        else:
            reply = self._reply(request, SUCCESS, outcome, 200)
            if request.message.method not in REPEATABLE:
                self._replies.put(client, raw, reply.data, request.now.monotonic)
        if request.waiting is not None:
            request.waiting.arrive(reply.data, reply.stream)
            return
        with suppress(OSError):  # the client is gone
            request.send(reply.data, request.client.client)

    def _challenge(self, request: Request) -> Reply:
        """Answer as every client begins; no refusal, and nothing to be raised for."""
        self._stats.auth["unauthorized"] += 1
        authenticator = self._authenticator
        nonce = authenticator.fresh_nonce(request.client.client, request.now)
        return self._reply(request, ERROR, nonce, 401, authenticator.first_challenge)

    def _authenticate(self, request: Request, granted: Grant | None, said: Said | None) -> Identity:
        try:
            identity = self._authenticator.authenticate(
                request.message,
                request.client.client,
                request.now,
                begins=request.message.method == ALLOCATE,
                granted=granted,
                said=said,
            )
        except StunError as error:
            self._stats.auth[AUTH_RESULTS[error.code]] += 1
            raise
        self._stats.auth["ok"] += 1
        return identity

    def _wait_for_key(self, request: Request) -> Reply:
        def go_on(granted: Grant | None) -> None:
            self._go_on(request, granted, NOBODY)  # it answers later, too

        number = request.message.get(registry.CONNECTION_ID) or 0
        request.waiting = Waiting()
        self._allocator.elsewhere.fetch_grant(number, request.client.client.host, go_on)
        return Reply(b"", True, waiting=request.waiting)

    def _wait_for_word(self, request: Request) -> Reply | None:
        """Have a back end asked whose name it is. :raises StunError: 500, it cannot be now; 400."""
        check_length(request.message.raw)
        message, client = request.message, request.client
        name, is_stream = message.get(registry.USERNAME) or "", client.transport.is_stream

        def go_on(said: Said | None, now: Now) -> bool:
            request.now = now
            if said is None:
                self._leave_undecided(request)
            else:
                self._go_on(request, None, said)
            return request.identity is not None

        if not self._asks.ask(name, client, message.transaction_id, go_on):
            if is_stream:
                raise undecided()
            self._stats.drop(DropReason.TOO_MANY_QUESTIONS)
            return None
        if not is_stream:
            return None
        request.waiting = Waiting()
        return Reply(b"", True, waiting=request.waiting)

    def _go_on(self, request: Request, granted: Grant | None, said: Said) -> None:
        """Handle a request that has waited for who sent it."""
        outcome: Outcome | None
        try:
            self._identify(request, granted, said)
            if request.message.method == ALLOCATE:
                self._check_taken_in(request)
            outcome = HANDLERS[request.message.method](self._allocator, request)
        except StunError as error:
            outcome = error
        except Malformed:
            outcome = StunError(400)
        finally:
            self.table.settle()
        if outcome is not None:
            request.answer(outcome)

    def _leave_undecided(self, request: Request) -> None:
        """Nobody could say it. A datagram's client sends it again as long as it has patience."""
        if request.client.transport.is_stream:
            request.answer(undecided())
        else:
            self._tell("request_refused", partial(facts_of, request, undecided()))

    def _succeed(self, request: Request) -> Reply | None:
        attributes = HANDLERS[request.message.method](self._allocator, request)
        if attributes is None:
            return Reply(b"", True, waiting=request.waiting) if request.waiting else None
        return self._reply(request, SUCCESS, attributes, 200)

    def _takes_in(self) -> bool:
        """Whether new allocations are to be had here at all; live ones go on."""
        alternates = self._allocator.options.alternates
        return not (self.draining or (alternates is not None and alternates.always))

    def _elsewhere(self, request: Request, error: StunError) -> StunError:
        """Where there is no room for an allocation: where else to ask, if we know."""
        message, alternates = request.message, self._allocator.options.alternates
        has_no_room = error.code == 508 and not message.has(registry.RESERVATION_TOKEN)
        if alternates is None or message.method != ALLOCATE or not has_no_room:
            return error
        return alternates.elsewhere(request.client) or error

    def _reject(self, request: Request, error: StunError) -> Reply:
        """Build the reply to every request that fails."""
        if not is_first_step(request, error):
            self._tell("request_refused", partial(facts_of, request, error))
        error = self._elsewhere(request, error)
        attributes = ((registry.ERROR_CODE, (error.code, error.reason)), *error.attributes)
        return self._reply(request, ERROR, attributes, error.code, error.written)

    def _reply(
        self,
        request: Request,
        message_class: MessageClass,
        attributes: Attributes,
        code: int,
        written: bytes = b"",
    ) -> Reply:
        message, identity = request.message, request.identity
        key, integrity = (None, NONE) if identity is None else (identity.key, identity.integrity)
        self._stats.responses[METHOD_NAMES[message.method], code] += 1
        data = build(
            message.method,
            message_class,
            message.transaction_id,
            attributes,
            key=key,
            integrity=integrity,
            fingerprint=message.has(registry.FINGERPRINT),
            written=written,
        )
        proved = identity is not None
        if proved and message_class == SUCCESS and self._allocator.journal is not NO_JOURNAL:
            self._keep(request.client)
        return Reply(data, proved, request.stream, request.origin, request.destination)

    def _keep(self, client: FiveTuple) -> None:
        """See that what a reply promises is there after a restart."""
        allocation = self.table.get(client)
        if allocation is not None:
            self._allocator.journal.keep(allocation)

    # From a data plane ---------------------------------------------------------------------

    def route_to(self, client: FiveTuple, peer: Address, now: float) -> Route | None:
        """The route of a Send indication that has none yet; None: dropped, and counted.

        (RFC 8656 §11.2: without a permission the indication is discarded.)
        """
        allocation = self.table.get(client)
        if allocation is None:
            self._stats.drop(DropReason.NO_ALLOCATION)
            return None
        return self._allocator.peers.admit(allocation, peer, now)

    # From the outside ----------------------------------------------------------------------

    def disconnected(self, client: FiveTuple, *, for_good: bool = False) -> None:
        """A TCP or TLS client's connection is gone, and its allocation with it (RFC 8656 §4).

        One that its client may come back to from elsewhere goes on until it expires (RFC 8016),
        unless it is gone for good: what is sent there would reach somebody else.
        """
        allocation = self.table.get(client)
        if allocation is not None and not self._left and (for_good or not allocation.ticket):
            self._allocator.close(allocation, CloseReason.DISCONNECTED)
        self._allocator.disconnected(client)
        self._asks.forget(client)

    def rerouted(self, client: FiveTuple, send: Send) -> None:
        """A client is reached in another way from now on: its proxy has another port for it."""
        allocation = self.table.get(client)
        if allocation is not None:
            self._allocator.reroute(allocation, send)

    def expire(self, now: float) -> None:
        """End everything whose time is over; to be called about once a second."""
        for allocation in self.table.due(now):
            if allocation.expires <= now:
                self._allocator.close(allocation, CloseReason.EXPIRED)
            else:
                self._allocator.expire_parts(allocation, now)
        for relay in self.table.unreserve(lambda held: held.expires <= now):
            relay.close()
        self._allocator.forget(now)
        self._replies.expire(now)

    def restore(self, kept: Sequence[Kept], now: float) -> list[Allocation]:
        """Go on with what another process began, before the first message is handled."""
        restore(self._allocator, kept, now)
        self._allocator.end_denied()
        self._allocator.end_of(self._allocator.is_misnamed)
        return list(self.table)

    def hand_over(self, shown: Shown, now: float) -> tuple[Allocation, Mapping[Key, int]] | None:
        """Let another worker go on with an allocation.

        :returns: the allocation, and what is to be given back once it is there. None: it stays,
            as it is for TCP, and the client's connection may come here.
        :raises StunError: it may not have it; 486, the client's new address has its share.
        """
        allocation = mobility.shown_elsewhere(self._allocator, shown, now)
        if allocation.is_tcp:
            return None
        held = self.table.make_room(allocation, shown.host)
        self._allocator.hand_over(allocation)
        return allocation, held

    def lend(
        self, number: int, claimant: Claimant, far: PeerStream
    ) -> tuple[Allocation, PeerStream]:
        """Let another worker pass on what a connection with a peer carries (``Connections.lend``).

        :raises StunError: 400, 441; 403, clients from there are kept out since it was asked for.
        """
        if (clients := self._allocator.options.clients) is not None:
            clients.check(claimant.host)
        return self._allocator.peers.connections.lend(number, claimant, far)

    def grant_of(self, number: int | None) -> Grant | None:
        """What a token gave to the holder of a connection with a peer; None: nothing."""
        allocation = self._allocator.peers.connections.allocation_of(number)
        return allocation.grant if allocation else None

    def restore_route(self, client: FiveTuple, peer: Address, now: float) -> None:
        """Write the route of indications again, if the client still has the permission."""
        allocation = self.table.get(client)
        if allocation is not None and peer.host in allocation.permissions:
            self._allocator.peers.admit(allocation, peer, now)

    def reload(self, authenticator: Authenticator, limits: Limits, options: Options) -> None:
        """Go on with these, and end what the policy refuses now."""
        self._authenticator = authenticator
        self.table.set_limits(limits)
        self._allocator.tenant_of = authenticator.tenant_of
        self._allocator.reload(limits, options)
        self._allocator.end_of(self._allocator.is_misnamed)

    def revoke(self, user: str, until: float, spent: float = 0.0) -> int:
        """Close what a user has and refuse it more until then; both 0: let it begin again.

        :param until: Unix time; 0: it may begin others.
        :param spent: credentials that end by this Unix time are of no use any more, and what
            was allocated with them is closed.
        :returns: how many allocations were closed.
        """
        self._allocator.revocations.set(user, until, spent)
        if not until and not spent:
            return 0

        def is_meant(owner: Owner) -> bool:
            return owner.user == user and bool(until or 0 < expiry_of(owner.username) <= spent)

        return self._allocator.end_of(is_meant)

    def close(self, allocation: Allocation, reason: CloseReason) -> None:
        """End a live allocation."""
        self._allocator.close(allocation, reason)

    def close_all(self, reason: CloseReason = CloseReason.SHUTDOWN) -> None:
        """End every allocation and reservation."""
        for allocation in self.table:
            self._allocator.close(allocation, reason)
        for relay in self.table.unreserve(lambda _: True):
            relay.close()

    def leave(self) -> None:
        """Close every relayed address, and end nothing: another process goes on with it."""
        self._left = True
        for allocation in self.table:
            self._allocator.leave(allocation)
