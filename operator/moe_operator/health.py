"""Answers the kubelet over HTTP whether this process lives, and whether it could lead at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web


async def serve(port: int, wrong: Callable[[], str], unready: Callable[[], str]) -> None:
    """Serve GET /healthz and /readyz until cancelled.

    `wrong` and `unready` return what is amiss, or an empty text.
    """

    async def healthz(_: web.Request) -> web.Response:
        return _answer(wrong())

    async def readyz(_: web.Request) -> web.Response:
        return _answer(wrong() or unready())

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "0.0.0.0", port).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def _answer(amiss: str) -> web.Response:
    return web.Response(status=500 if amiss else 200, text=amiss or "ok")
