"""What the pool and its workers tell each other, one class a sentence.

The pool's words to a worker may hold secrets; they travel over a socket pair that nobody else
has. What a worker says is decoded by type: it reads the network, and is not believed more.
"""

import msgspec
from msgspec import Struct

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


class Socket(Struct, tag=True, frozen=True):
    """A bound socket to listen on, this worker's own of a group. Brings its descriptor."""

    kind: str
    """``udp`` or ``tcp``."""
    host: str
    port: int
    """As asked for: 0 is what the configuration says, whatever the kernel chose."""


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


class Report(Struct, tag=True, frozen=True):
    """Say how it goes."""

    number: int


class Lost(Struct, tag=True, frozen=True):
    """A worker has died: its relayed addresses are no more."""


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
    ports_in_use: int
    certificate_expiry: float | None
    cpu_seconds: float


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
    """By which the one who asks knows the answer."""
    asking: int
    holding: int
    token: bytes
    username: str
    user: str


class Claimed(Struct, tag=True, frozen=True):
    """The answer. Brings the descriptor of the reserved socket, if there is one."""

    number: int
    asking: int


ToWorker = (
    Setup
    | Socket
    | Start
    | Addresses
    | Reload
    | Drain
    | Stop
    | Report
    | Lost
    | Gone
    | Claim
    | Claimed
)
FromWorker = Started | Failed | Drained | Snapshot | Gone | Claim | Claimed
TO_WORKER = msgspec.msgpack.Decoder(ToWorker)
FROM_WORKER = msgspec.msgpack.Decoder(FromWorker)
