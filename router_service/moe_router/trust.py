"""TLS of links, a router's side: what it proves to workers, and the name that it asks of theirs.

Only a link address that begins with `tls:` is connected to so; it never depends on what answers.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

from moe_core.tls import Folder, client_context

TLS = "tls:"


@dataclass(frozen=True, slots=True)
class Trust:
    """A router's certificate, and the name that those of workers must have."""

    certificate: Folder
    workers: str


def secured(address: str, trust: Trust | None) -> dict[str, Any]:
    """Return options of `create_connection`, by the certificate that there is now.

    Raises ssl.SSLError where the worker asks for TLS and this router has nothing to prove.
    """
    if not address.startswith(TLS):
        return {}
    if trust is None:
        raise ssl.SSLError("the worker asks for TLS, and this router has no --tls")
    return {
        "ssl": client_context(trust.certificate.newest()),
        "server_hostname": trust.workers,
    }
