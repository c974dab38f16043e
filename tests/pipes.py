"""Two connections joined to one, as proxies, balancers and forwarders do."""

import asyncio
from collections.abc import Coroutine
from typing import Any

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


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
