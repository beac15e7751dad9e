"""Counts what an attachment does, as one value that is replaced whole."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Counters:
    """What an attachment has done. A request is one message of one layer.

    `reported` and `unreported` are sums of what sessions were worth, taken by a router and not.
    """

    requests: int = 0
    rows: int = 0
    failed: int = 0
    retries: int = 0
    degraded_requests: int = 0
    repins: int = 0
    reported: int = 0
    unreported: int = 0

    def plus(self, more: Counters) -> Counters:
        """Return the sums."""
        return Counters(*(getattr(self, name) + getattr(more, name) for name in _NAMES))


_NAMES = tuple(field.name for field in fields(Counters))
