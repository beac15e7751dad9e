"""Who a program is, as its certificate says it: DNS names of the form NAME.NAMESPACE.svc.

Routers, workers and clients of a mixture, and the operator, each have one such name among the
subject alternative names of their certificate. Who may speak to whom is a set of these names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable


def routers(mixture: str, namespace: str) -> str:
    return f"{mixture}-router.{namespace}.svc"


def workers(mixture: str, namespace: str) -> str:
    return f"{mixture}-workers.{namespace}.svc"


def clients(mixture: str, namespace: str) -> str:
    return f"{mixture}-client.{namespace}.svc"


def refusal(names: Iterable[str], allowed: Collection[str]) -> str:
    """Return why a certificate of these names may not speak here; empty where it may."""
    told = sorted(set(names))
    if not set(told).isdisjoint(allowed):
        return ""
    right = " or ".join(sorted(allowed))
    return f"the certificate is of {', '.join(told)[:300] or 'no DNS name'}; it must be of {right}"
