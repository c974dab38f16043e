"""The long-term credential mechanism, a server's side (RFC 8489 §9.2.4), in the RFC's order."""

from dataclasses import dataclass

from turn.auth.credentials import Account, Credentials, PasswordAlgorithm
from turn.auth.nonce import Feature, Nonces, has_password_algorithms
from turn.auth.proved import Identity, Proved
from turn.auth.third_party import Grant, ThirdParty
from turn.auth.users import NOBODY, NotKnown, Said, Users
from turn.codec import registry
from turn.codec.errors import REASONS, StunError
from turn.codec.integrity import NONE, WITH_SHA1, WITH_SHA256, Integrity, verify
from turn.codec.message import Message, write
from turn.codec.registry import Attribute
from turn.codec.values import Address, Algorithm


@dataclass(frozen=True, slots=True)
class Now:
    """The time of an event: lifetimes run on ``monotonic``, credentials on ``wall``; seconds."""

    monotonic: float
    wall: float


class Authenticator:
    """Tells who sent a request, or what to answer instead.

    :param nonce_key: makes nonces recognisable; the same one on every node and after a restart.
    :param minimum: ``Integrity.SHA256`` refuses what browsers use today (MD5 and HMAC-SHA1).
    :param users: what a back end has said of names that nobody else knows, if it is asked.
    """

    def __init__(
        self,
        realm: str,
        credentials: Credentials,
        nonce_key: bytes,
        nonce_lifetime: float,
        minimum: Integrity = WITH_SHA1,
        third_party: ThirdParty | None = None,
        users: Users | None = None,
    ) -> None:
        self._realm = realm
        self._users = users
        self.asks = users is not None
        """Whether a back end knows names that nobody else does."""
        self._credentials = credentials
        self._minimum = minimum
        self.third_party = third_party
        accepted = [PasswordAlgorithm.SHA256]
        if minimum is Integrity.SHA1:
            accepted.append(PasswordAlgorithm.MD5)
        self._offered = tuple(Algorithm(number) for number in accepted)
        features = Feature.PASSWORD_ALGORITHMS
        if credentials.anonymous and users is None:  # whose hash it is, a back end cannot tell
            features |= Feature.USERNAME_ANONYMITY
        self._nonces = Nonces(nonce_key, nonce_lifetime, features)
        self._proved = Proved()
        named = ((registry.THIRD_PARTY_AUTHORIZATION, third_party.name),) if third_party else ()
        asked = ((registry.REALM, realm), (registry.PASSWORD_ALGORITHMS, self._offered), *named)
        self._asked = write(asked, b"")
        """What every challenge asks for, beside its nonce."""
        code = write(((registry.ERROR_CODE, (401, REASONS[401])),), b"")
        self.first_challenge = code + self._asked
        """The attributes of the 401 that every client begins with, all but the nonce."""

    def authenticate(
        self,
        message: Message,
        client: Address,
        now: Now,
        *,
        begins: bool,
        granted: Grant | None = None,
        said: Said | None = None,
    ) -> Identity:
        """Check a request's credentials.

        :param begins: the request begins something, so that the credential may not be expired.
        :param granted: what the client showed a token for when it began.
        :param said: what the back end says of the name, where that is known without memory.
        :raises StunError: 401 or 438 with REALM, a fresh NONCE and PASSWORD-ALGORITHMS, or 400.
        :raises NotKnown: the back end has to be asked; the client is where it says it is.
        """
        if message.integrity is NONE:
            raise self.challenge(401, client, now)
        is_by_password = self.third_party is None
        if is_by_password and not begins:
            proved = self._proved.get(message, client.host, now.wall)
            if proved is not None:
                return proved
        nonce = message.get(registry.NONCE)
        if nonce is None or not message.has(registry.REALM):
            raise StunError(400)
        username = self._username(message)
        wall = now.wall if begins else None
        identity = None
        if self.third_party is not None:
            identity = self._by_token(self.third_party, message, username, granted, now)
        if identity is None:
            try:
                known = self._said_of(message, username, now, said)
            except NotKnown:
                if not self._nonces.is_fresh(nonce, client.host, now.wall):
                    raise self.challenge(438, client, now) from None
                raise
            identity = self._by_password(message, username, nonce, wall, known)
        if identity is None:
            raise self.challenge(401, client, now, self._why_not(message, username, wall))
        good = self._nonces.span(nonce, client.host)
        if good is None or now.wall not in good:
            raise self.challenge(438, client, now)
        if is_by_password:
            self._proved.put(message, client.host, identity, good)
        return identity

    def tenant_of(self, username: str) -> str:
        """Whose a name is that somebody was authenticated by; "": no tenant's."""
        return self._credentials.tenant_of(username)

    def challenge(self, code: int, client: Address, now: Now, why: str = "") -> StunError:
        """What to answer with REALM, a fresh NONCE and PASSWORD-ALGORITHMS (RFC 8489 §9.2.3.1).

        :param code: 401 or 438.
        :param why: for the operator.
        """
        asked = self.fresh_nonce(client, now)
        return StunError(code, attributes=asked, written=self._asked, why=why)

    def fresh_nonce(self, client: Address, now: Now) -> tuple[tuple[Attribute[str], str]]:
        """What ``first_challenge`` lacks: the one part that is another each time."""
        return ((registry.NONCE, self._nonces.make(client.host, client.port, now.wall)),)

    def _username(self, message: Message) -> str | None:
        """The name that a message gives, or hides in a hash that we know.

        :raises StunError: 400, it has neither.
        """
        username = message.get(registry.USERNAME)
        if username is not None:
            return username
        userhash = message.get(registry.USERHASH)
        if userhash is None:
            raise StunError(400)
        return self._credentials.username_of(userhash)

    def _by_token(
        self,
        third_party: ThirdParty,
        message: Message,
        username: str | None,
        granted: Grant | None,
        now: Now,
    ) -> Identity | None:
        """Who shows a token, or protects a message with the key of the one shown before."""
        if username is None:
            return None
        token = message.get(registry.ACCESS_TOKEN)
        grant = granted if token is None else third_party.open(username, token, now.wall)
        if grant is None or grant.kid != username:
            return None
        key = next((key for key in grant.keys(message.integrity) if verify(message, key)), None)
        too_weak = self._minimum is Integrity.SHA256 and message.integrity is Integrity.SHA1
        if key is None or too_weak:
            return None
        # The next token may come with another kid: an allocation is of a token's holder, whichever
        # it was. No user can have this name.
        holder = f":{third_party.name}"
        return Identity(holder, grant.user, key, message.integrity, grant)

    def _by_password(
        self,
        message: Message,
        username: str | None,
        nonce: str,
        wall: float | None,
        said: Said,
    ) -> Identity | None:
        """Who knows a password. :raises StunError: 400, somebody bids down."""
        negotiated = message.has(registry.PASSWORD_ALGORITHM)
        asks = negotiated or message.has(registry.PASSWORD_ALGORITHMS)
        algorithm = self._algorithm(message, nonce) if asks else PasswordAlgorithm.MD5
        integrity = WITH_SHA256 if negotiated else WITH_SHA1
        accounts = self._credentials.accounts(username, wall) if username is not None else ()
        nobody = self._credentials.nobody
        keys = next((keys for keys in said if keys.of(algorithm)), None)
        if keys is not None and username is not None:
            accounts = (Account(username, username, keys.of),)
        for account in accounts or (nobody,):
            key = account.key(algorithm)
            if (
                verify(message, key)
                and account is not nobody
                and self._is_enough(message, algorithm)
            ):
                if keys is not None and self._users is not None:
                    self._users.prove(account.username, keys)
                return Identity(
                    account.username, account.user, key, integrity, None, account.tenant, keys
                )
        return None

    def _said_of(self, message: Message, username: str | None, now: Now, said: Said | None) -> Said:
        """What a back end says of a name; nothing where others know it, or nobody can have it.

        :raises NotKnown: it has to be asked.
        """
        if self._users is None or not username or not username.isprintable():
            return NOBODY
        if username.startswith(":"):  # so ``_by_token`` calls whoever holds a token
            return NOBODY
        third_party = self.third_party
        is_token = third_party is not None and (
            message.has(registry.ACCESS_TOKEN) or third_party.knows(username)
        )
        # A user of a tenant is whom that tenant's credentials prove, and no name of a database.
        if is_token or self.tenant_of(username) or self._credentials.accounts(username, None):
            return NOBODY
        return self._users.get(username, now.monotonic) if said is None else said

    def _algorithm(self, message: Message, nonce: str) -> int:
        """The password algorithm of a request. :raises StunError: 400, somebody bids down."""
        chosen = message.get(registry.PASSWORD_ALGORITHM)
        echoed = message.get(registry.PASSWORD_ALGORITHMS)
        if not has_password_algorithms(nonce):
            return PasswordAlgorithm.MD5
        if chosen is None or echoed != self._offered or chosen not in self._offered:
            raise StunError(400)
        return chosen.number

    def _is_enough(self, message: Message, algorithm: int) -> bool:
        return self._minimum is WITH_SHA1 or (
            algorithm == PasswordAlgorithm.SHA256 and message.integrity is WITH_SHA256
        )

    def _why_not(self, message: Message, username: str | None, wall: float | None) -> str:
        """What an operator is told of a request that no account protects."""
        if self.third_party is not None and message.has(registry.ACCESS_TOKEN):
            return "the token is not for turn.third_party_name, not sealed by its key, or expired"
        tenant = self.tenant_of(username or "")
        if username is None or not self._credentials.accounts(username, None):
            is_asked = self._users is not None and not tenant
            nobody = f"there is no such user{self._hint(tenant)}"
            return "turn.user_url has other keys, or no such user" if is_asked else nobody
        if not self._credentials.accounts(username, wall):
            return "the credential has expired"
        if message.get(registry.REALM) != self._realm:
            return "the client answers for another realm than turn.realm"
        if self._minimum is Integrity.SHA256 and message.integrity is not Integrity.SHA256:
            return 'the client knows only SHA-1, and turn.auth_minimum is "sha256"'
        why = "the password is not the user's, or turn.secret did not make it"
        key = f"turn.tenants.{tenant}.secret" if tenant else "turn.secret"
        return why.replace("turn.secret", key) + self._hint(tenant)

    def _hint(self, tenant: str) -> str:
        """What a tenant's back end may have left out of a name that is no tenant's."""
        if tenant or not self._credentials.has_tenants:
            return ""
        return " (the name of a tenant's user begins with the tenant's and a slash)"
