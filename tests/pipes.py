"""Two connections joined to one, as proxies, balancers and forwarders do."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def listening(accept: Accept) -> AsyncIterator[str]:
    """Take connections on loopback; gives the URL of that place."""
    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def join(one: Ends, other: Ends) -> None:
    """Carry bytes both ways until either side has ended."""
    await until_one_ends(carry(one[0], other[1]), carry(other[0], one[1]))


async def carry(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    """Carry bytes one way. :raises OSError: an end is gone."""
    while data := await source.read(1 << 16):
        to.write(data)
        await to.drain()


async def until_one_ends(*ways: Coroutine[Any, Any, None]) -> None:
    """Run all until one ends, however; then none runs any more."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
