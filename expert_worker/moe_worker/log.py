"""Writes one line per decision to stderr: time, event, then `name=value` fields.

Says what happened to whom; it never says what rows held.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from typing import Any, Protocol

_PLAIN = re.compile(r"[\w./:+@%,-]+")


class Log(Protocol):
    """Takes an event, in words, and its fields."""

    def __call__(self, event: str, **fields: Any) -> None: ...


def to_line(at: datetime, event: str, fields: dict[str, Any]) -> str:
    """Return the line, without its end. Values that are not plain words are quoted as in JSON."""
    stamp = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    parts = [f"{stamp}Z event={_quote(event)}"]
    parts += [f"{name}={_quote(value)}" for name, value in fields.items()]
    return " ".join(parts)


def _quote(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def to_stderr(event: str, **fields: Any) -> None:
    """Write one line at once, so that threads do not mix theirs."""
    sys.stderr.write(to_line(datetime.now(UTC), event, fields) + "\n")
    sys.stderr.flush()
