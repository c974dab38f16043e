"""Other servers that a client may be sent to (RFC 8489 §10, ALTERNATE-SERVER)."""

from collections.abc import Mapping, Sequence

from turn.codec import registry
from turn.codec.errors import StunError
from turn.codec.values import Address, family_of
from turn.routes import FiveTuple


class Alternates:
    """Sends clients elsewhere, to each place in turn."""

    def __init__(
        self,
        plain: Sequence[Address],
        secure: Sequence[Address],
        domain: str = "",
        *,
        always: bool = False,
        public_of: Mapping[str, str] | None = None,
    ) -> None:
        """Know where.

        :param plain: for clients over UDP and TCP.
        :param secure: for clients over TLS and DTLS.
        :param domain: the name that certificates of the latter are for; "": the one they know.
        :param always: every client is sent away, not only those that find no room.
        :param public_of: what clients know an address of ours by, behind 1:1 NAT.
        """
        self.always = always
        self._plain = plain
        self._secure = secure
        self._domain = domain
        self._public_of = public_of or {}
        self._turn = 0

    def elsewhere(self, client: FiveTuple) -> StunError | None:
        """Error 300 with the next place of the client's family; None: there is none.

        Where it has come to already it is not sent again: all relays may have one list.
        """
        here = self._public_of.get(client.server.host, client.server.host), client.server.port
        is_secure = client.transport.is_encrypted
        family = family_of(client.client)
        known = self._secure if is_secure else self._plain
        places = [place for place in known if family_of(place) is family and place != here]
        if not places:
            return None
        self._turn += 1
        place = places[self._turn % len(places)]
        named = ((registry.ALTERNATE_DOMAIN, self._domain),) if is_secure and self._domain else ()
        return StunError(300, attributes=((registry.ALTERNATE_SERVER, place), *named))
