"""Answers the kubelet over HTTP whether this process lives, and whether it could lead at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from moe_core.metrics_port import CannotListen


@asynccontextmanager
async def serving(
    port: int, wrong: Callable[[], str], unready: Callable[[], str]
) -> AsyncIterator[None]:
    """Serve GET /healthz and /readyz in the block; port 0 for none. Raises CannotListen.

    `wrong` and `unready` return what is amiss, or an empty text.
    """
    if not port:
        yield
        return

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
        try:
            await web.TCPSite(runner, "0.0.0.0", port).start()
        except OSError as error:
            raise CannotListen(f"--health-port {port}: {error.strerror}") from error
        yield
    finally:
        await runner.cleanup()


def _answer(amiss: str) -> web.Response:
    return web.Response(status=500 if amiss else 200, text=amiss or "ok")
