"""How often the numbers of a rollout that stands still are written: at most every half minute.

While one is paused its sessions go on, and each second has other counts. A person needs to know
that it waits and for what; a write that says only how much more has come is worth little, and
each is an event for everybody who watches. What else changes is written at once. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from moe_core.rollout import Outcome

_EVERY: Final = timedelta(seconds=30)
_COUNTS: Final = frozenset({"requests", "rows", "counted"})
_NUMBER: Final = re.compile(r"[-−+]?\d[\d.,]*")
_FORM: Final = "%Y-%m-%dT%H:%M:%SZ"


def recounted(
    old: Mapping[str, Any], new: dict[str, Any], now: datetime
) -> tuple[Mapping[str, Any], datetime | None]:
    """Return the status to carry instead of `old`, and when its numbers may be written anew.

    That is None unless numbers are held back.
    """
    if new.get("rollout", {}).get("outcome") != Outcome.PAUSED.value:
        return new, None
    counted = old.get("rollout", {}).get("counted")
    if counted is not None:
        if _with(new, counted) == old:
            return old, None
        due = datetime.fromisoformat(counted) + _EVERY
        if now < due and _outline(old) == _outline(new):
            return old, due
    return _with(new, now.astimezone(UTC).strftime(_FORM)), None


def _with(status: Mapping[str, Any], counted: str) -> dict[str, Any]:
    """Return a status whose rollout says when its numbers are from."""
    return {**status, "rollout": {**status["rollout"], "counted": counted}}


def _outline(value: Any) -> Any:
    """Return what is left of a status without its counts, and without numbers in sentences."""
    if isinstance(value, Mapping):
        return {k: _told(k, v) for k, v in value.items() if k not in _COUNTS}
    return [_outline(item) for item in value] if isinstance(value, list | tuple) else value


def _told(name: str, value: Any) -> Any:
    return _NUMBER.sub("#", value) if name == "message" else _outline(value)
