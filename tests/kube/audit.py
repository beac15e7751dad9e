"""Reads an API server's audit log: who did what to which object, in order."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

_LONGEST_LINE: Final = 1 << 20  # bytes
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True, slots=True)
class Request:
    """One request that the API server answered."""

    user: str
    agent: str
    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Self:
        subject = event.get("objectRef", {})
        return cls(
            user=event["user"].get("username", ""),
            agent=event.get("userAgent", ""),
            verb=event["verb"],
            resource=subject.get("resource", ""),
            subresource=subject.get("subresource", ""),
            namespace=subject.get("namespace", ""),
            name=subject.get("name", ""),
            code=event.get("responseStatus", {}).get("code", 0),
        )

    @property
    def changed(self) -> bool:
        """Whether it was a write, and was not refused."""
        return self.verb in WRITES and self.code < 400


class AuditLog:
    """The audit log of one API server; a position in it marks a moment."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def position(self) -> int:
        """Return a mark for what has been logged until now.

        It is the end of a line: one that is long may be there in parts for a moment.
        """
        if not self._path.exists():
            return 0
        with self._path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            begin = file.seek(max(end - _LONGEST_LINE, 0))
            return begin + file.read(end - begin).rfind(b"\n") + 1

    def since(self, position: int = 0) -> Iterator[Request]:
        """Yield the requests that were answered after the mark, in the order of the log."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(position)
            for line in file:
                if line.endswith(b"\n"):
                    yield Request.from_event(json.loads(line))
