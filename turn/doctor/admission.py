"""Does the server let the right ones in: credentials, clocks, quotas, and nobody else."""

import time
from collections.abc import Awaitable, Callable

from turn.codec import registry
from turn.codec.registry import Method
from turn.codec.values import Family
from turn.doctor.client import Forged, NotStun, Refused, Relayed, Silent, TurnClient
from turn.doctor.report import Section
from turn.doctor.target import Credentials

TTL = 600
"""Seconds that the doctor's own credentials are good."""
EXPIRED = 120
"""Seconds ago: a credential that no server with a right clock takes."""
AHEAD = (3600, 6 * 3600, 86400, 7 * 86400, 366 * 86400)
"""Seconds: what a server may be ahead, tried one after the other."""
Reconnect = Callable[[], Awaitable[TurnClient]]

QUOTA = (
    "raise turn.max_allocations_per_user or turn.max_allocations_per_address; a client that does "
    "not release its allocations keeps them for ten minutes"
)
WHY: dict[int, tuple[str, str]] = {
    300: (
        "the server sends its clients elsewhere (300 Try Alternate)",
        "it is full, or drains; browsers do not follow: list the other server too",
    ),
    403: (
        "the server forbids this user or address to allocate (403)",
        "was the user revoked, or this address denied?",
    ),
    437: (
        "the server says that this address has an allocation already (437)",
        "try again in ten minutes; if it stays, restart the server",
    ),
    440: (
        "the server has no relay address of this family (440)",
        "add one to turn.relay_addresses, or leave this family alone",
    ),
    442: ("the server does not relay UDP (442)", "it may relay TCP only: see its settings"),
    486: ("the user, or this address, has as many allocations as it may (486)", QUOTA),
    500: ("the server had an error of its own (500)", "look at its log"),
    508: (
        "the server has no relay port left, or drains (508)",
        "see its /readyz; widen turn.relay_ports, raise turn.max_allocations, or end the drain",
    ),
}
"""What an error code at Allocate means, and what to do."""


async def admit(
    section: Section, client: TurnClient, credentials: Credentials, reconnect: Reconnect
) -> Relayed | None:
    """An allocation with good credentials; None where it is refused, and why.

    :param reconnect: opens another way to the server.
    """
    if not await _strangers_are_turned_away(section, reconnect):
        return None
    if not credentials.known:
        section.skip(
            "credentials",
            "there are no credentials to try the relay with",
            "give --username and --password, or -c with the server's secret or users in it",
        )
        return None
    shown = credentials.at(time.time() + TTL) if credentials.secret else credentials
    try:
        relayed = await _allocate(section, client, shown)
    except Refused as refusal:
        if refusal.code == 401:
            await _explain_401(section, refusal, credentials, reconnect)
        else:
            says, then = WHY.get(refusal.code, (f"Allocate is refused: {refusal}", "see its log"))
            section.fail("allocation", says, then)
    except (Silent, Forged, NotStun, OSError) as error:
        _explain_broken(section, error)
    else:
        _tell_admitted(section, client)
        await _others_are_refused(section, shown, credentials, reconnect)
        return relayed
    return None


async def _allocate(section: Section, client: TurnClient, shown: Credentials) -> Relayed:
    """An allocation as browsers ask for it: of IPv4; of IPv6 where there is no other."""
    try:
        return await client.allocate(shown)
    except Refused as refusal:
        if refusal.code != 440:
            raise
    relayed = await client.allocate(shown, Family.IPV6)
    section.warn(
        "family",
        "the relay has IPv6 addresses only (440), and clients ask for IPv4 unless told otherwise",
        "add an IPv4 address to turn.relay_addresses, or have clients get IPv6: "
        'turn.default_address_family = "client" (coturn: allocation-default-address-family=keep)',
    )
    return relayed


def _explain_broken(section: Section, error: Exception) -> None:
    if isinstance(error, Forged):
        section.fail(
            "credentials",
            "the server's answer is not protected by our password",
            "somebody answers in its place, or it is broken: use TLS",
        )
    elif isinstance(error, Silent):
        section.fail(
            "allocation",
            "the server answers STUN, and no Allocate with credentials",
            "is TURN turned off there? Look at its log",
        )
    else:
        section.fail("allocation", f"the server broke off at Allocate: {error}", "see its log")


def _tell_admitted(section: Section, client: TurnClient) -> None:
    if client.algorithm is not None:
        section.fail(
            "credentials",
            "the server takes SHA-256 only, which no browser speaks",
            'set turn.auth_minimum = "sha1" (RFC 8489 lets a server take both)',
        )
    else:
        section.ok("credentials", f"are taken (realm {client.realm!r})")


async def _strangers_are_turned_away(section: Section, reconnect: Reconnect) -> bool:
    """Whether an Allocate without credentials is answered as it should be."""
    client = await reconnect()
    try:
        await client.once(Method.ALLOCATE, (registry.REQUESTED_TRANSPORT, 17))
    except Refused as refusal:
        if refusal.code == 401 and refusal.reply.has(registry.NONCE):
            return True
        if refusal.code in {300, 508}:
            section.fail("allocation", *WHY[refusal.code])
        else:
            section.fail("turn", f"an Allocate is answered by {refusal}",
                         "it is a STUN server without TURN, or its TURN is turned off")  # fmt: skip
        return False
    except Silent:
        section.fail(
            "turn",
            "the server answers STUN and no Allocate: it has no TURN",
            "turn TURN on (coturn: no stun-only), or use a server that has it",
        )
        return False
    except (NotStun, Forged, OSError) as error:
        section.fail("turn", f"the server broke off at Allocate: {error}", "look at its log")
        return False
    finally:
        await client.close()
    section.fail(
        "open",
        "anyone can relay through this server: it asks for no credentials",
        "set turn.secret (or users) at once; strangers will use it to hide and to flood",
    )
    return True


async def _explain_401(
    section: Section, refusal: Refused, credentials: Credentials, reconnect: Reconnect
) -> None:
    realm = refusal.reply.get(registry.REALM) or ""
    if credentials.secret:
        await _explain_secret(section, realm, credentials, reconnect)
        return
    expiry, _, name = credentials.username.partition(":")
    if expiry.isdigit() and name and float(expiry[:15]) < time.time():
        section.fail(
            "credentials",
            f"these credentials expired {_span(time.time() - float(expiry[:15]))} ago by our clock",
            "fetch fresh ones (GET /ice, or icebroker credentials)",
        )
    elif expiry.isdigit() and name:
        section.fail(
            "credentials",
            "the server refuses these time-limited credentials (401), though by our clock they "
            "are good",
            "either another secret made them, or one of the clocks is wrong",
        )
    else:
        section.fail(
            "credentials",
            f"the server refuses the user name or the password (401, realm {realm!r})",
            "mend the one that is wrong; both are case-sensitive",
        )


async def _explain_secret(
    section: Section, realm: str, credentials: Credentials, reconnect: Reconnect
) -> None:
    ahead = await _clock_ahead(credentials, reconnect)
    if ahead is not None:
        low, high = ahead
        section.fail(
            "clock",
            f"the server's clock is ahead of ours by {_span(low)} to {_span(high)}: "
            "fresh credentials have expired for it",
            "set both clocks by NTP (timedatectl set-ntp true)",
        )
        return
    section.fail(
        "credentials",
        "the server refuses credentials made with our secret (401)",
        "use the same secret on both sides (turn.secret; coturn: static-auth-secret; its "
        f"realm is {realm!r}), without spaces or line ends around it",
    )


async def _clock_ahead(
    credentials: Credentials, reconnect: Reconnect
) -> tuple[float, float] | None:
    """Between how many seconds the server's clock is ahead; None where the clock is not it."""
    low = float(TTL)
    for seconds in AHEAD:
        if await _takes(credentials.at(time.time() + seconds), reconnect):
            return low, float(seconds)
        low = float(seconds)
    return None


async def _others_are_refused(
    section: Section, shown: Credentials, credentials: Credentials, reconnect: Reconnect
) -> None:
    wrong = shown._replace(password=shown.password[::-1] + "x", secret="")
    if await _takes(wrong, reconnect):
        section.fail(
            "open",
            "a wrong password is taken as well",
            "turn authentication on (coturn: lt-cred-mech or use-auth-secret)",
        )
        return
    if credentials.secret and await _takes(credentials.at(time.time() - EXPIRED), reconnect):
        section.warn(
            "clock",
            f"credentials that expired {_span(EXPIRED)} ago are taken: the server's clock is "
            "behind ours, or it does not look at the expiry",
            "set both clocks by NTP (timedatectl set-ntp true)",
        )


async def _takes(credentials: Credentials, reconnect: Reconnect) -> bool:
    client = await reconnect()
    try:
        await client.allocate(credentials, Family.IPV4)
    except Refused as refusal:
        return refusal.code != 401
    except (Silent, NotStun, Forged, OSError):
        return False
    finally:
        await client.close()
    return True


def _span(seconds: float) -> str:
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = round(seconds / size)
            return f"{count} {name}{'s' if count != 1 else ''}"
    return f"{seconds:.0f} seconds"
