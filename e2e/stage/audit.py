"""Counts what was written to the API server, from its audit log."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

OPERATOR = "system:serviceaccount:moeops-system:moeops-operator"
WRITES = ("create", "update", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Write:
    """One request that changed something, or tried to."""

    user: str
    verb: str
    resource: str
    name: str


class AuditLog:
    """The log of this checkout's cluster, read from where it ended when this was made."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "audit.log"
        self._start = self._path.stat().st_size

    def writes(self, user: str = OPERATOR) -> list[Write]:
        """Return what a user has written since, its leader's lease left out."""
        with self._path.open("rb") as file:
            file.seek(self._start)
            events = [json.loads(line) for line in file if line.endswith(b"\n")]
        return [
            Write(user, event["verb"], ref.get("resource", ""), ref.get("name", ""))
            for event in events
            if event["stage"] == "ResponseComplete"
            and event["user"]["username"] == user
            and event["verb"] in WRITES
            and (ref := event.get("objectRef", {})).get("resource") != "leases"
        ]
