"""One line of log for one decision: `event=link_up address=10.0.0.7:7100 worker=e3-5d9c`."""

from __future__ import annotations

import logging
import sys

_log = logging.getLogger("moe_router")


def configure(level: int = logging.INFO) -> None:
    """Write lines to stderr, each with its time."""
    logging.basicConfig(
        level=level, stream=sys.stderr, format="time=%(asctime)s level=%(levelname)s %(message)s"
    )


def tell(event: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Write one event. Values with blanks or quotes are quoted."""
    if _log.isEnabledFor(level):
        pairs = " ".join(f"{name}={_show(value)}" for name, value in fields.items())
        _log.log(level, "event=%s %s", event, pairs)


def _show(value: object) -> str:
    text = str(value)
    return text if text and not set(text) & set(' "=\n') else repr(text)


class Throttle:
    """Lets one event of a kind through in each period, and counts the others."""

    def __init__(self, period_s: float, capacity: int = 4096) -> None:
        self._period_s, self._capacity = period_s, capacity
        self._last: dict[object, tuple[float, int]] = {}

    def allows(self, kind: object, now_s: float) -> int | None:
        """Return how many of this kind were held back before this one; None holds it back too."""
        told_s, held = self._last.get(kind, (float("-inf"), 0))
        if now_s - told_s < self._period_s:
            self._last[kind] = (told_s, held + 1)
            return None
        if len(self._last) >= self._capacity:
            self._last.clear()
        self._last[kind] = (now_s, 0)
        return held
