"""A TURN client that tells its failures apart, over any wire."""

import asyncio
import secrets
import struct
from contextlib import suppress
from typing import Any, NamedTuple

from turn.auth.credentials import PasswordAlgorithm, long_term_key
from turn.codec import registry
from turn.codec.errors import Malformed
from turn.codec.integrity import Integrity, verify
from turn.codec.message import Message, build, parse_untrusted
from turn.codec.registry import Attribute, MessageClass, Method
from turn.codec.values import Address, Algorithm, Family
from turn.doctor.target import Credentials
from turn.doctor.wire import Wire

RETRANSMISSIONS = (0.3, 0.6, 1.2, 2.4, 4.8)
"""Seconds between one and the next (RFC 8489 §6.2.1, begun a little later)."""
CHANNEL_HEADER = struct.Struct("!HH")
UDP = 17
CHANNELS = range(0x4000, 0x5000)

Pair = tuple[Attribute[Any], Any]


class Refused(Exception):
    """The server answered with an error code."""

    def __init__(self, reply: Message) -> None:
        code, reason = reply.get(registry.ERROR_CODE) or (0, "no ERROR-CODE")
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reply = reply


class Silent(Exception):
    """No answer came in time."""


class NotStun(Exception):
    """What answers is no STUN server."""


class Forged(Exception):
    """The answer is not protected by our key."""


class Relayed(NamedTuple):
    """An allocation: where peers reach it, and where the server sees us."""

    address: Address
    mapped: Address | None
    lifetime: int


class TurnClient:
    """One client; ``data`` has what peers send it."""

    def __init__(self, wire: Wire, patience: float = 4.0) -> None:
        self.wire = wire
        self.data: asyncio.Queue[tuple[Address, bytes]] = asyncio.Queue()
        self.realm = self.nonce = ""
        self.algorithm: Algorithm | None = None
        """The password algorithm that it shows; None: MD5, as browsers do."""
        self._offered: tuple[Algorithm, ...] = ()
        self._patience = patience
        self._credentials = Credentials()
        self._waiting: dict[bytes, asyncio.Future[Message]] = {}
        self._peers: dict[int, Address] = {}
        self._has_allocation = False
        self._failure: Exception | None = None
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def close(self) -> None:
        """Release what it has, and go."""
        if self._has_allocation and self._failure is None:
            with suppress(Exception):  # the server forgets it by itself
                async with asyncio.timeout(1):
                    await self.request(Method.REFRESH, (registry.LIFETIME, 0))
        self._reader.cancel()
        self.wire.close()

    # Requests ------------------------------------------------------------------------------

    async def binding(self) -> Message:
        """Ask who we are. :raises Refused, Silent, NotStun, OSError:"""
        return await self.once(Method.BINDING)

    async def allocate(self, credentials: Credentials, family: Family = Family.IPV4) -> Relayed:
        """Ask for a relayed address. :raises Refused, Silent, NotStun, Forged, OSError:"""
        self._credentials = credentials
        asked: tuple[Pair, ...] = ((registry.REQUESTED_TRANSPORT, UDP),)
        if family is Family.IPV6:
            asked += ((registry.REQUESTED_ADDRESS_FAMILY, int(family)),)
        reply = await self.request(Method.ALLOCATE, *asked)
        self._has_allocation = True
        relayed = reply.get(registry.XOR_RELAYED_ADDRESS)
        if relayed is None:
            raise NotStun("an Allocate success without XOR-RELAYED-ADDRESS")
        mapped = reply.get(registry.XOR_MAPPED_ADDRESS)
        return Relayed(relayed, mapped, reply.get(registry.LIFETIME) or 0)

    async def permit(self, host: str) -> None:
        """Let a peer's address send to us. :raises Refused, Silent, OSError:"""
        await self.request(Method.CREATE_PERMISSION, (registry.XOR_PEER_ADDRESS, Address(host, 0)))

    async def bind(self, peer: Address) -> int:
        """A channel to a peer. :raises Refused, Silent, OSError:"""
        channel = CHANNELS[len(self._peers)]
        await self.request(
            Method.CHANNEL_BIND,
            (registry.CHANNEL_NUMBER, channel),
            (registry.XOR_PEER_ADDRESS, peer),
        )
        self._peers[channel] = peer
        return channel

    async def send(self, peer: Address, payload: bytes) -> None:
        """Send to a peer by a Send indication."""
        attributes = ((registry.XOR_PEER_ADDRESS, peer), (registry.DATA, payload))
        message = build(Method.SEND, MessageClass.INDICATION, secrets.token_bytes(12), attributes)
        await self.wire.send(message)

    async def send_channel(self, channel: int, payload: bytes) -> None:
        """Send to the peer of a channel."""
        await self.wire.send(CHANNEL_HEADER.pack(channel, len(payload)) + payload)

    async def request(self, method: Method, *attributes: Pair) -> Message:
        """Ask, with credentials once the server has asked for them.

        :raises Refused: by an error code that credentials and a fresh nonce do not mend.
        :raises Silent: no answer. :raises NotStun: it is none. :raises Forged: it is not ours.
        """
        for attempt in range(4):
            try:
                return await self.once(method, *attributes)
            except Refused as refusal:
                code, reply = refusal.code, refusal.reply
                renewed = code in {401, 438} and reply.has(registry.NONCE)
                first = not self.nonce
                if not renewed or not self._credentials.password:
                    raise
                if code == 401 and not (first or self._try_sha256()):
                    raise
                self._offered = reply.get(registry.PASSWORD_ALGORITHMS) or ()
                self.realm = reply.get(registry.REALM) or self.realm
                self.nonce = reply.get(registry.NONCE) or ""
                if attempt == 3:
                    raise
        raise AssertionError("unreachable")

    def _try_sha256(self) -> bool:
        """Whether there is a stronger algorithm than the one that was refused."""
        wanted = Algorithm(PasswordAlgorithm.SHA256)
        if self.algorithm is not None or wanted not in self._offered:
            return False
        self.algorithm = wanted
        return True

    async def once(self, method: Method, *attributes: Pair) -> Message:
        """Ask once and wait, sending again where the wire may lose it."""
        transaction = secrets.token_bytes(12)
        message, key = self._message(method, transaction, attributes)
        future = self._waiting[transaction] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._patience):
                reply = await self._ask(message, future)
        except TimeoutError:
            raise Silent from None
        finally:
            self._waiting.pop(transaction, None)
        if reply.message_class == MessageClass.ERROR:
            raise Refused(reply)
        if key is not None and not verify(reply, key):
            raise Forged
        return reply

    async def _ask(self, message: bytes, future: "asyncio.Future[Message]") -> Message:
        if self._failure is not None:
            raise self._failure
        for seconds in RETRANSMISSIONS:
            await self.wire.send(message)
            if not self.wire.retransmits:
                break
            done, _ = await asyncio.wait({future}, timeout=seconds)
            if done:
                break
        return await future

    def _message(
        self, method: Method, transaction: bytes, attributes: tuple[Pair, ...]
    ) -> tuple[bytes, bytes | None]:
        asked = attributes
        key, integrity = None, Integrity.NONE
        if self.nonce:
            credentials, algorithm = self._credentials, self.algorithm
            asked += (
                (registry.USERNAME, credentials.username),
                (registry.REALM, self.realm),
                (registry.NONCE, self.nonce),
            )
            integrity = Integrity.SHA1
            if algorithm is not None:
                integrity = Integrity.SHA256
                asked += (
                    (registry.PASSWORD_ALGORITHM, algorithm),
                    (registry.PASSWORD_ALGORITHMS, self._offered),
                )
            key = long_term_key(
                credentials.username, self.realm, credentials.password,
                algorithm.number if algorithm else PasswordAlgorithm.MD5,
            )  # fmt: skip
        data = build(
            method, MessageClass.REQUEST, transaction, asked, key=key, integrity=integrity,
            fingerprint=True,
        )  # fmt: skip
        return data, key

    # Answers -------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while True:
                self._take(await self.wire.receive())
        except Malformed as error:
            self._failure = NotStun(str(error))
        except (OSError, EOFError) as error:
            self._failure = error
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(self._failure)

    def _take(self, data: bytes) -> None:
        if data and 0x40 <= data[0] < 0x80:
            channel, length = CHANNEL_HEADER.unpack_from(data)
            if channel in self._peers:
                self.data.put_nowait((self._peers[channel], data[4 : 4 + length]))
            return
        try:
            message = parse_untrusted(data)
        except Malformed:
            if self.wire.retransmits:
                return  # a datagram may come from anybody
            raise
        if message.method == Method.DATA and message.message_class == MessageClass.INDICATION:
            peer, payload = message.get(registry.XOR_PEER_ADDRESS), message.get(registry.DATA)
            if peer is not None and payload is not None:
                self.data.put_nowait((peer, payload))
            return
        future = self._waiting.get(message.transaction_id)
        if future is not None and not future.done():
            future.set_result(message)
