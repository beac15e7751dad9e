"""Tells what was written to the API server of the cluster, from its audit log."""

from __future__ import annotations

from pathlib import Path

from tests.kube import audit
from tests.kube.audit import Request

OPERATOR = "system:serviceaccount:moeops-system:moeops-operator"


class AuditLog:
    """The log of this checkout's cluster, read from where it ended when this was made."""

    def __init__(self, folder: Path) -> None:
        self._log = audit.AuditLog(folder / "audit.log")
        self._start = self._log.position()

    def writes(self, user: str = OPERATOR) -> list[Request]:
        """Return what a user has written since, or tried to, its leader's lease left out."""
        return [
            request
            for request in self._log.since(self._start)
            if request.user == user
            and request.verb in audit.WRITES
            and request.resource != "leases"
        ]
