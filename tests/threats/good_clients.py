"""Clients that do nothing wrong, in a process of their own, so that only the server is measured.

``python -m tests.threats.good_clients URL SECRET``: pairs write to each other. At each line that
comes in they print how long each message took, in seconds, as one line of JSON.
"""

import asyncio
import contextlib
import json
import sys
import time

from signaling.auth import Tokens
from signaling.client import Client

PAIRS = 10
PAUSE = 0.05


async def write(client: Client, to: str) -> None:
    """Write the time, again and again."""
    while True:
        await client.message(time.monotonic(), to)
        await asyncio.sleep(PAUSE)


async def read(client: Client, delays: list[float]) -> None:
    """Note how long ago what arrives was written."""
    async for event in client.events():
        assert event["type"] not in {"resumed", "restarted"}, "a good client lost its socket"
        if event["type"] == "message":
            delays.append(time.monotonic() - event["data"])


async def main(url: str, secret: str) -> None:
    """Run until end of file."""
    delays: list[float] = []
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        tasks = []
        for number in range(PAIRS):
            room = f"good {number}"
            token = Tokens([secret]).mint({"room": room, "exp": time.time() + 600})
            one = await stack.enter_async_context(Client(url, token=token))
            two = await stack.enter_async_context(Client(url, token=token))
            await one.join(room)
            await two.join(room)
            tasks += [write(one, two.peer), write(two, one.peer), read(one, delays)]
            tasks.append(read(two, delays))
        running = asyncio.gather(*tasks)
        while await loop.run_in_executor(None, sys.stdin.readline):
            if running.done():
                await running
            sys.stdout.write(json.dumps(delays) + "\n")
            sys.stdout.flush()
            delays.clear()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
