"""What an Expert's stable version must not exceed, and what is done where it does, by its spec.

Reads and nothing else; the defaults are those of the custom resource.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from moe_core.document import InvalidDocument, Reader
from moe_operator.drift_spec import OnAlarm

_LIMITS: Final = ("maxErrorPercent", "maxNormChangePercent")


@dataclass(frozen=True, slots=True)
class HealthSpec:
    """Limits of the last `window_attempts` at the stable version; None is not looked at."""

    window_attempts: int = 4096
    max_error_percent: int | None = None
    max_norm_change_percent: int | None = None
    on_alarm: OnAlarm = OnAlarm.REPORT

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Read it. Raises InvalidDocument."""
        if not any(name in reader.value for name in _LIMITS):
            raise InvalidDocument(f"{reader.path} has none of {', '.join(_LIMITS)}; give one")
        return cls(
            window_attempts=reader.integer("windowAttempts", low=64, default=4096),
            max_error_percent=_limit(reader, "maxErrorPercent", 100),
            max_norm_change_percent=_limit(reader, "maxNormChangePercent", 100_000),
            on_alarm=reader.enum("onAlarm", OnAlarm, default=OnAlarm.REPORT),
        )


def _limit(reader: Reader, name: str, high: int) -> int | None:
    return reader.integer(name, low=1, high=high) if name in reader.value else None
