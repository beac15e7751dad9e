"""Opens a connection to a worker, by what its address says: TCP, TLS or a socket of this host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from moe_router.trust import TLS, Trust, secured

_WITHIN_S: Final = 0.5
_WITHIN_TLS_S: Final = 2.0


async def connect(
    address: str, trust: Trust | None, protocol: Callable[[], asyncio.Protocol]
) -> None:
    """Connect to `host:port`, `tls:host:port` or `unix:/path`.

    Raises TimeoutError, OSError, and ssl.SSLError of these where one does not trust the other.
    """
    loop = asyncio.get_running_loop()
    kind, _, rest = address.partition(":")
    async with asyncio.timeout(_WITHIN_TLS_S if kind == "tls" else _WITHIN_S):
        if kind == "unix":
            await loop.create_unix_connection(protocol, rest)
        else:
            host, _, port = address.removeprefix(TLS).rpartition(":")
            how = secured(address, trust)
            await loop.create_connection(protocol, host.strip("[]"), int(port), **how)
