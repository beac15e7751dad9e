"""Answers the kubelet whether this process lives: over HTTP, from the loop that decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web


async def serve(port: int, wrong: Callable[[], str]) -> None:
    """Serve GET /healthz until cancelled; `wrong` returns what is wrong, or an empty text."""

    async def healthz(_: web.Request) -> web.Response:
        said = wrong()
        return web.Response(status=500 if said else 200, text=said or "ok")

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "0.0.0.0", port).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
