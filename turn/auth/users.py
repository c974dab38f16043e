"""Users whom the operator's back end alone knows, and what it has said of them lately.

Anybody may send any name. So what is said of a name that nobody has proved to be theirs is kept
apart from what is said of users, and as briefly as a no: a flood of names pushes no user out, and
whether a name is somebody's cannot be told from how long it is remembered.
"""

from collections import OrderedDict
from typing import NamedTuple

MOST_USERS = 10_000
"""Whose answers are remembered; who has to make room is asked about again."""
MOST_NAMES = 10_000
"""The same of names that nobody has proved."""
LONGEST_UNPROVED = 5.0
"""Seconds that an answer of those holds at most: who has just been let in gets in soon."""
MD5_BYTES, SHA256_BYTES = 16, 32
SHA256 = 2
"""The number of that password algorithm (RFC 8489 §18.5)."""


class Keys(NamedTuple):
    """The keys of a user (RFC 8489 §9.2.2, §18.5.1); empty: not one of that kind."""

    md5: bytes = b""
    sha256: bytes = b""

    def of(self, algorithm: int) -> bytes:
        """That of a ``PasswordAlgorithm``."""
        return self.sha256 if algorithm == SHA256 else self.md5

    @property
    def are_sound(self) -> bool:
        """Whether there is one, and each has its length."""
        good = len(self.md5) in {0, MD5_BYTES} and len(self.sha256) in {0, SHA256_BYTES}
        return good and any(self)


Said = tuple[Keys, ...]
"""What is said of a name: its keys; nothing: it is nobody's."""
NOBODY: Said = ()


class NotKnown(Exception):
    """Nobody has said yet whose name it is: the request has to wait for that."""


class Users:
    """What is remembered of them. Times are monotonic."""

    def __init__(self) -> None:
        self.remember = 0.0
        """Seconds that an answer holds; 0: it is for the request that waits for it."""
        self._proved: OrderedDict[str, tuple[float, Said]] = OrderedDict()
        self._named: OrderedDict[str, tuple[float, float, Said]] = OrderedDict()
        """Name → until when it holds; until when, once proved; what was said."""

    def __len__(self) -> int:
        return len(self._proved) + len(self._named)

    def get(self, name: str, now: float) -> Said:
        """What holds of a name. :raises NotKnown: nothing does."""
        until, said = self._proved.get(name, (0.0, NOBODY))
        if until > now:
            return said
        until, _, said = self._named.get(name, (0.0, 0.0, NOBODY))
        if until > now:
            return said
        raise NotKnown(name)

    def put(self, name: str, said: Said, now: float) -> None:
        """Remember what was said of a name, for as long as it holds."""
        self._proved.pop(name, None)
        if not self.remember:
            return
        soon = now + min(self.remember, LONGEST_UNPROVED)
        self._named[name] = soon, now + self.remember, said
        self._named.move_to_end(name)
        while len(self._named) > MOST_NAMES:
            self._named.popitem(last=False)

    def prove(self, name: str, keys: Keys) -> None:
        """Somebody has the key of this name: what was said of it holds for longer."""
        _, until, said = self._named.get(name, (0.0, 0.0, NOBODY))
        if said == (keys,):  # and not another word since
            del self._named[name]
            self._proved[name] = until, said
        if name in self._proved:
            self._proved.move_to_end(name)
        while len(self._proved) > MOST_USERS:
            self._proved.popitem(last=False)

    def forget(self) -> None:
        """What was said holds no more: somebody else is asked from now on."""
        self._proved.clear()
        self._named.clear()
