"""Says in words why a connection with certificates did not come about; decides nothing.

gRPC tells it in the terms of its TLS library, deep in a status's details.
"""

from __future__ import annotations

_CAUSES = (
    (
        "Hostname Verification Check failed",
        "the routers' certificate is not of the name asked for; moe_client.Tls(folder, name) says "
        "which name it has, MIXTURE-router.NAMESPACE.svc",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "the routers' certificate is not of the authority in ca.crt, or it has expired",
    ),
    ("WRONG_VERSION_NUMBER", "this port of the routers has no TLS"),
)


def explained(details: str | None) -> str:
    """Return a status's details, with the cause before them where it is one of these."""
    text = details or "the stream broke"
    causes = (cause for mark, cause in _CAUSES if mark in text)
    cause = next(causes, "")
    return f"{cause} ({text})" if cause else text
