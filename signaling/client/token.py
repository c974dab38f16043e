"""The join token that is shown at the beginning of each connection."""

from collections.abc import Awaitable, Callable

import aiohttp

from signaling.client.errors import SignalingError

Token = str | Callable[[], Awaitable[str]]
"""A join token, or what gets a fresh one; where it raises OSError or
aiohttp.ClientError it is called again later."""


def why_not_taken(token: Token | None, *, before: bool) -> str:
    """What to tell of a token that the server refused. :param before: it had taken one."""
    text = "the server did not take the token"
    if not before or callable(token):
        return text
    # A session goes on without its token; this one was lost, and another one has to begin.
    return f"{text}, which it had taken before: give a function that gets fresh ones"


async def fresh(token: Token | None) -> str | None:
    """What to show now.

    :raises OSError, aiohttp.ClientError: it cannot be had now.
    :raises SignalingError: ``no_token``.
    """
    if not callable(token):
        return token
    try:
        return await token()
    except (aiohttp.ClientError, OSError):
        raise
    except Exception as error:  # a fault of the application's; it has to hear of it
        raise SignalingError("no_token", f"there is no token: {error!r}") from error
