"""What a program says of what it did for one traced request, and to whom: spans. Pure.

Programs know these protocols only. `otlp` sends spans to a collector and is imported where one is
named; elsewhere there is `Untraced`, and a request costs one call more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

Attribute = str | int | float | bool | Sequence[str]
Attributes = Mapping[str, Attribute]

# https://www.w3.org/TR/trace-context/#traceparent-header: later versions may say more behind it.
_HEADER: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 1


@dataclass(frozen=True, slots=True)
class Context:
    """Where in a trace something happens; neither id is 0."""

    trace_id: int
    span_id: int
    sampled: bool = True

    @classmethod
    def parse(cls, traceparent: str) -> Self | None:
        """Read a W3C `traceparent`; None for anything else, which is as if nothing were said."""
        found = _HEADER.fullmatch(traceparent)
        if found is None or found[1] == "ff" or (found[1] == "00" and found[5] is not None):
            return None
        trace_id, span_id, flags = (int(digits, 16) for digits in found.group(2, 3, 4))
        return cls(trace_id, span_id, bool(flags & _SAMPLED)) if trace_id and span_id else None

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"

    @property
    def ids(self) -> dict[str, str]:
        """As lines of a log and exemplars of a metric name it."""
        return {"trace_id": f"{self.trace_id:032x}", "span_id": f"{self.span_id:016x}"}


class Span(Protocol):
    """Something that is done for a sampled request. Times are seconds of the program's clock."""

    @property
    def context(self) -> Context: ...

    def child(self, name: str, began_s: float, *, remote: bool = False) -> Span:
        """Begin a part of it, one that another program is asked for where it is `remote`."""
        ...

    def tell(self, attributes: Attributes) -> None: ...

    def since_1970_s(self, time_s: float) -> float:
        """Return a time of the program's clock as others tell it."""
        ...

    def end(self, ended_s: float, failure: str = "") -> None:
        """End it, once; `failure` says in a sentence why it was not done."""
        ...


class Tracer(Protocol):
    """Where spans begin. May be used by any thread."""

    def begin(self, name: str, parent: Context | None, began_s: float) -> Span | None:
        """Begin what a caller asked for, under its span if it named one; None if not sampled."""
        ...

    def close(self) -> None:
        """Send what is unsent, for a moment at most."""
        ...


class Untraced:
    """A Tracer of nothing."""

    def begin(self, name: str, parent: Context | None, began_s: float) -> None:
        return None

    def close(self) -> None:
        return None
