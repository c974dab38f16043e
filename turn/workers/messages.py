"""What the pool and its workers tell each other, one class a sentence.

The pool's words to a worker may hold secrets; they travel over a socket pair that nobody else
has. What a worker says is decoded by type: it reads the network, and is not believed more.
"""

from typing import Any

import msgspec
from msgspec import Struct

from turn.admin.relay import AllocationDetails, AllocationEntry
from turn.allocation.model import Owner
from turn.allocation.record import Record
from turn.auth.third_party import Grant
from turn.lending import Bucket
from turn.routes import Transport

STEP = 64
"""Between the numbers of a worker's allocations: the rest of a division by it is the worker."""

# To a worker ----------------------------------------------------------------------------------


class Setup(Struct, tag=True, frozen=True, kw_only=True):
    """The first word. Brings the descriptor of the shared memory."""

    worker: int
    workers: int
    settings: bytes
    """``TurnSettings`` and ``LogSettings``, as ``frozen.freeze`` makes them."""
    reserved_ports: list[int]
    key: bytes
    """Of nonces; the same everywhere."""
    secret: bytes
    """Of the ledger's rows."""
    salt: int
    addresses: list[str]
    draining: bool
    revoked: dict[str, tuple[float, float]]
    """Users who may begin nothing, as ``Revoke`` says it: until, spent."""
    state: str
    """The folder of its own where its allocations outlive it; "": nowhere."""
    webhooks: bool
    """As of ``Watch``; also of what it has told before that comes."""
    first_number: int
    """Of its allocations; the others follow in steps of ``STEP``."""


class Socket(Struct, tag=True, frozen=True):
    """A bound socket to listen on, this worker's own of a group.

    Brings its descriptor, and that of its second queue, where it has one: never one without the
    other, or nobody would read what the kernel puts there.
    """

    kind: str
    """``udp`` or ``tcp``."""
    host: str
    port: int
    """As asked for: 0 is what the configuration says, whatever the kernel chose."""


class Missing(Struct, tag=True, frozen=True):
    """From a worker: this ``Socket`` has not come, or without its descriptors. Hand it again."""

    kind: str
    host: str
    port: int


class Start(Struct, tag=True, frozen=True):
    """All sockets are there: serve."""


class Addresses(Struct, tag=True, frozen=True):
    """The machine's addresses have changed; sockets for new ones came before this."""

    addresses: list[str]


class Reload(Struct, tag=True, frozen=True):
    """Go on with these settings, which the pool has found good."""

    settings: bytes


class Drain(Struct, tag=True, frozen=True):
    """Turn new allocations away, and say when none is left."""

    seconds: float


class Stop(Struct, tag=True, frozen=True):
    """Close everything and end."""

    leave: bool = False
    """Let another process go on with the allocations."""


class Report(Struct, tag=True, frozen=True):
    """Say how it goes."""

    number: int


class List(Struct, tag=True, frozen=True):
    """Name your allocations."""

    number: int


class Inspect(Struct, tag=True, frozen=True):
    """Say all of one allocation."""

    number: int
    id: str


class End(Struct, tag=True, frozen=True):
    """Close an allocation."""

    number: int
    id: str


class Revoke(Struct, tag=True, frozen=True):
    """Close what a user has, and refuse it more (``TurnService.heed``)."""

    number: int
    """0: nobody waits for the answer."""
    user: str
    until: float
    spent: float


class Resume(Struct, tag=True, frozen=True):
    """Give allocations again."""


class Watch(Struct, tag=True, frozen=True):
    """Tell of what happens, or do not: somebody watches, or nobody does."""

    on: bool
    webhooks: bool = False
    """Tell of allocations whoever watches: a back end is to know of each."""


class Level(Struct, tag=True, frozen=True):
    """Log these lines and more important ones."""

    level: str


class Lost(Struct, tag=True, frozen=True):
    """A worker has died: relayed addresses that it had are no more."""


class Died(Struct, tag=True, frozen=True):
    """A worker has died: what it lent is over, and so is what it borrowed."""

    worker: int


# From a worker --------------------------------------------------------------------------------


class Place(Struct, frozen=True):
    """An address that is listened on."""

    protocol: str
    host: str
    port: int


class Started(Struct, tag=True, frozen=True):
    """It serves."""

    listening: list[Place]


class Failed(Struct, tag=True, frozen=True):
    """It cannot serve, and ends."""

    reason: str


class Drained(Struct, tag=True, frozen=True):
    """No allocation is left, or the time is over."""


Counts = dict[str, int | list[tuple[list[str | int], int]]]
"""``Stats``: each counter by its name; one with labels as pairs of its labels and its count."""


class Snapshot(Struct, tag=True, frozen=True, kw_only=True):
    """How it goes."""

    number: int
    """Of the ``Report`` that it answers."""
    counts: Counts
    allocations: int
    tenants: dict[str, int] = {}
    """Allocations of their users."""
    ports_in_use: int
    certificate_expiry: float | None
    cpu_seconds: float
    open_fds: int
    max_fds: int


class Listed(Struct, tag=True, frozen=True):
    """The allocations."""

    number: int
    entries: list[AllocationEntry]


class Inspected(Struct, tag=True, frozen=True):
    """The allocation, if there is one."""

    number: int
    details: AllocationDetails | None


class Done(Struct, tag=True, frozen=True):
    """It is done."""

    number: int
    count: int = 0
    """Of allocations that were closed."""


class Told(Struct, tag=True, frozen=True):
    """Something has happened (``turn.telling``)."""

    kind: str
    facts: dict[str, Any]
    lost: int
    """Events before this one that were too many to tell."""


# Between workers, by way of the pool ----------------------------------------------------------


class Gone(Struct, tag=True, frozen=True):
    """A relayed address is released: whoever sends there has to stop."""

    host: str
    port: int
    workers: list[int]
    """Those who asked for it."""


class Claim(Struct, tag=True, frozen=True):
    """A client of ``asking`` shows a token that ``holding`` made (RFC 8656 §7.2)."""

    number: int
    """By which the one who asks knows the answer; it gives none twice, nor does whoever follows it
    when it has died."""
    asking: int
    holding: int
    token: bytes
    owner: Owner


class Claimed(Struct, tag=True, frozen=True):
    """The answer. Brings the descriptor of the reserved socket, if there is one."""

    number: int
    asking: int


class Take(Struct, tag=True, frozen=True, kw_only=True):
    """A client of ``asking`` shows a ticket that ``holding`` made (RFC 8016)."""

    number: int
    asking: int
    holding: int
    ticket: bytes
    owner: Owner
    host: str
    transport: Transport


class Taken(Struct, tag=True, frozen=True):
    """The answer. Brings the descriptors of the relay sockets, in the record's order."""

    number: int
    asking: int
    code: int
    """Of the error, or 0."""
    record: Record | None = None
    stays: bool = False
    """It does not move; the client's connection may come to it (``Follow``)."""


class Follow(Struct, tag=True, frozen=True):
    """A client's connection goes on at ``holding``. Brings the descriptor of what leads to it."""

    holding: int
    transport: Transport
    client: tuple[str, int]
    server: tuple[str, int]


class AskKey(Struct, tag=True, frozen=True):
    """A client of ``asking`` shows a CONNECTION-ID that ``holding`` made, and no token."""

    number: int
    asking: int
    holding: int
    connection: int


class Key(Struct, tag=True, frozen=True):
    """The answer: what a token gave to the holder of that connection's allocation."""

    number: int
    asking: int
    grant: Grant | None


class Borrow(Struct, tag=True, frozen=True):
    """A client of ``asking`` shows a CONNECTION-ID that ``holding`` made (RFC 6062 §5.4)."""

    number: int
    """By which both know what is lent."""
    asking: int
    holding: int
    connection: int
    owner: Owner
    host: str
    """The client's, where it shows it."""


class Lent(Struct, tag=True, frozen=True):
    """The answer. Brings the descriptor of the connection with the peer, if it is lent."""

    number: int
    asking: int
    holding: int
    code: int
    """Of the error, or 0."""
    early: bytes = b""
    """What the peer has sent already."""
    buckets: list[Bucket] = []
    """What bounds it."""


class Recall(Struct, tag=True, frozen=True):
    """What was lent has to end: its allocation has, or the peer is refused now."""

    number: int
    asking: int


class Ended(Struct, tag=True, frozen=True):
    """What was lent is over."""

    number: int
    asking: int
    holding: int


Answer = Snapshot | Listed | Inspected | Done
"""What brings the number of a question."""
ToWorker = (
    Setup | Socket | Start | Addresses | Reload | Drain | Resume | Stop | Report | List | Inspect
    | End | Revoke | Watch | Level | Lost | Died | Gone | Claim | Claimed | Take | Taken
    | Follow | AskKey | Key | Borrow | Lent | Recall | Ended
)  # fmt: skip
FromWorker = (
    Started | Failed | Drained | Told | Answer | Missing | Gone | Claim | Claimed | Take | Taken
    | Follow | AskKey | Key | Borrow | Lent | Recall | Ended
)  # fmt: skip
TO_WORKER = msgspec.msgpack.Decoder(ToWorker)
FROM_WORKER = msgspec.msgpack.Decoder(FromWorker)
