"""How the API server is reached: address, trust, and a token that is read again as it rotates.

A service account's token file where there is one, else a kubeconfig. One definition for kopf's
watches and for the operator's own calls, each with connections of its own, so that no number of
watches holds up a write.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import aiohttp
import kopf
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from yaml import YAMLError

_TOKEN_KEPT_S: Final = 60.0

# Says how to reach the API server now. Raises NoAccess.
Find = Callable[[], kopf.ConnectionInfo]


class NoAccess(RuntimeError):
    """Nothing says where the API server is, or what does cannot be read."""


def find() -> kopf.ConnectionInfo:
    """Return how to reach the API server now: as KUBECONFIG says, where it is set, else as the
    service account or ~/.kube/config does. Raises NoAccess.
    """
    ways = (kopf.login_with_service_account, kopf.login_with_kubeconfig)
    settings = kopf.OperatorSettings()
    try:
        for way in reversed(ways) if os.environ.get("KUBECONFIG") else ways:
            found = way(settings=settings)
            if found is not None:
                return found
    except (kopf.LoginError, OSError, ValueError, YAMLError) as error:
        raise NoAccess(f"the kubeconfig cannot be used: {error}") from error
    raise NoAccess(
        "no service account is mounted, and neither --kubeconfig nor KUBECONFIG is given"
    )


@dataclass(slots=True)
class _Authorization:
    """Adds the newest credentials to each request."""

    find: Find
    headers: dict[str, str]
    read_at: float

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        now = time.monotonic()
        if now - self.read_at > _TOKEN_KEPT_S:
            self.headers, self.read_at = self.find().as_http_headers(), now
        request.headers.update(self.headers)
        return await handler(request)


def open_session(find: Find, connections: int) -> aiohttp.ClientSession:
    """Return a session with at most so many connections; it must be closed in its own loop."""
    info = find()
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ssl=info.as_ssl_context()),
        middlewares=(_Authorization(find, info.as_http_headers(), time.monotonic()),),
    )
