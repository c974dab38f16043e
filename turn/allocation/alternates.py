"""Other servers that a client may be sent to (RFC 8489 §10, ALTERNATE-SERVER)."""

from collections.abc import Sequence

from turn.codec import registry
from turn.codec.errors import StunError
from turn.codec.values import Address, family_of
from turn.routes import FiveTuple, Transport

SECURE = {Transport.TLS, Transport.DTLS}


class Alternates:
    """Sends clients elsewhere, to each place in turn."""

    def __init__(
        self,
        plain: Sequence[Address],
        secure: Sequence[Address],
        domain: str = "",
        *,
        always: bool = False,
    ) -> None:
        """Know where.

        :param plain: for clients over UDP and TCP.
        :param secure: for clients over TLS and DTLS.
        :param domain: the name that certificates of the latter are for; "": the one they know.
        :param always: every client is sent away, not only those that find no room.
        """
        self.always = always
        self._plain = plain
        self._secure = secure
        self._domain = domain
        self._turn = 0

    def elsewhere(self, client: FiveTuple) -> StunError | None:
        """Error 300 with the next place of the client's family; None: there is none."""
        is_secure = client.transport in SECURE
        family = family_of(client.client)
        known = self._secure if is_secure else self._plain
        places = [place for place in known if family_of(place) is family]
        if not places:
            return None
        self._turn += 1
        place = places[self._turn % len(places)]
        named = ((registry.ALTERNATE_DOMAIN, self._domain),) if is_secure and self._domain else ()
        return StunError(300, attributes=((registry.ALTERNATE_SERVER, place), *named))
