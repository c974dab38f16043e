"""Names of other machines, looked up where nobody waits: DNS that hangs keeps no process."""

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any


async def look_up(host: str, port: int, **how: Any) -> list[Any]:
    """``socket.getaddrinfo``, in a thread of its own. :raises OSError: there is no such host.

    A loop waits for its own threads when it ends, however long DNS takes.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[Any]] = loop.create_future()

    def tell(how: Callable[[Any], None], what: object) -> None:
        if not found.done():
            how(what)

    def ask() -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            try:
                places = socket.getaddrinfo(host, port, **how)
                loop.call_soon_threadsafe(tell, found.set_result, places)
            except (OSError, UnicodeError) as error:
                failure = error if isinstance(error, OSError) else OSError(str(error))
                loop.call_soon_threadsafe(tell, found.set_exception, failure)

    threading.Thread(target=ask, daemon=True).start()
    return await found
