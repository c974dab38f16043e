"""What every section of the settings has in common."""

import base64
from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from config.values import Seconds

MINIMUM_SECRET_BYTES = 16
MAKE_ONE = "make one with: openssl rand -base64 32"
MAKE_KEY = 'make one with: echo "whsec_$(openssl rand -base64 32)"'
TOO_SHORT = f"the secret is shorter than {MINIMUM_SECRET_BYTES} bytes; {MAKE_ONE}"

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Duration = Annotated[Seconds, Field(gt=0)]


class Problem(NamedTuple):
    """Why a section cannot be used, and the key whose value is to be changed."""

    key: str
    text: str
    below: tuple[str, ...] = ()
    """Where in the key's value, if that is a table."""

    @property
    def location(self) -> tuple[str, ...]:
        """What is to be changed, as a path."""
        return (self.key, *self.below)


class StartError(Exception):
    """A service cannot start, or go on, as it is set up; the message says what to change."""


class Section(BaseModel):
    """A part of the settings: immutable, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def contradictions(self) -> list[Problem]:
        """What is wrong between keys that are each right; such a section cannot be made."""
        return []

    def dangers(self) -> list[Problem]:
        """What forbids a service to start with these settings, though others may read them."""
        return []

    fixed: ClassVar[frozenset[str]] = frozenset()
    """Keys that only a restart can change."""

    def needs_restart(self, new: Self) -> list[Problem]:
        """What of ``new`` cannot be applied while a service runs with these settings."""
        return [
            Problem(key, "only a restart can change this; put it back, or restart")
            for key in sorted(self.fixed)
            if getattr(self, key) != getattr(new, key)
        ]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if problems := self.contradictions():
            raise ValidationError.from_exception_data(
                type(self).__name__,
                [
                    InitErrorDetails(
                        type=PydanticCustomError("setting", "{text}", {"text": problem.text}),
                        loc=problem.location,
                        input=None,
                    )
                    for problem in problems
                ],
            )
        return self


def is_short(secret: SecretStr) -> bool:
    """Whether a secret is too short to be one."""
    return len(secret.get_secret_value().encode()) < MINIMUM_SECRET_BYTES


def unsigned(key: str, url: str, secrets: Sequence[SecretStr]) -> list[Problem]:
    """That a back end is to be asked or told, and nothing is there to sign it with."""
    if secrets or not url:
        return []
    return [Problem(key, f"webhook_secret is missing: requests are signed; {MAKE_KEY}")]


def bad_keys(secrets: Iterable[SecretStr]) -> list[Problem]:
    """Which secrets of webhooks cannot be used."""
    return [Problem("webhook_secret", why) for why in map(_bad_key, secrets) if why]


def _bad_key(secret: SecretStr) -> str:
    text = secret.get_secret_value()
    if text.startswith("whsec_"):
        try:
            base64.b64decode(text.removeprefix("whsec_"), validate=True)
        except ValueError:
            return "what follows whsec_ is not base64"
    return TOO_SHORT if is_short(secret) else ""
