"""A web server of somebody's own, whose pages use ours from another origin."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web


@asynccontextmanager
async def site(port: int, html: str = "", folder: Path | None = None) -> AsyncIterator[str]:
    """Serve a page, and the files of a folder beside it; gives the origin."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=f"<!doctype html>\n{html}", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    if folder is not None:
        app.router.add_static("/", folder)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
