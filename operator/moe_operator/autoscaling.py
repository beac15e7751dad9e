"""How many pods an Expert may have and what load each is to bear, as its spec says.

Reads and nothing else; the defaults are those of the custom resource.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from moe_core.document import InvalidDocument, Reader
from moe_core.rows import OnCold

_UTILIZATION, _DELAY = "targetUtilizationPercent", "targetQueueDelayMilliseconds"


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """Bounds, one target, and windows in seconds; with a `low` of 0 it may sleep.

    `on_cold` is what becomes of rows while it does.

    `utilization` is the share of its time that a worker is to compute, 0 to 1; `delay_ms` the
    mean time that rows are to wait for their turn. One of them is None.
    """

    low: int
    high: int
    utilization: float | None = None
    delay_ms: float | None = None
    up_s: int = 15
    down_s: int = 300
    panic_s: int = 10
    on_cold: OnCold = OnCold.DEGRADE

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Read it. Raises InvalidDocument."""
        percent, delay_ms = reader.value.get(_UTILIZATION), reader.value.get(_DELAY)
        if (percent is None) == (delay_ms is None):
            given = "both" if percent is not None else "neither"
            path = reader.path
            raise InvalidDocument(f"{path} has {given} of {_UTILIZATION} and {_DELAY}; give one")
        windows = reader.optional_child("stabilizationWindowSeconds")
        windows = windows or Reader({}, f"{reader.path}.stabilizationWindowSeconds")
        low = reader.integer("minReplicas", high=1024, default=1)
        high = reader.integer("maxReplicas", low=1, high=1024)
        if low > high:
            raise InvalidDocument(f"{reader.path}.minReplicas is {low}; maxReplicas is {high}")
        on_cold = reader.enum("onCold", OnCold, default=OnCold.DEGRADE)
        if on_cold is OnCold.WAIT and low:
            path = reader.path
            text = f"{path}.onCold is Wait, and {path}.minReplicas is {low}"
            raise InvalidDocument(f"{text}; it must be 0: only what may sleep is ever cold")
        return cls(
            low=low,
            high=high,
            utilization=None
            if percent is None
            else reader.integer(_UTILIZATION, low=5, high=95) / 100,
            delay_ms=None if delay_ms is None else reader.integer(_DELAY, low=1, high=60_000),
            up_s=windows.integer("up", high=3600, default=15),
            down_s=windows.integer("down", high=3600, default=300),
            panic_s=reader.integer("panicWindowSeconds", low=5, high=600, default=10),
            on_cold=on_cold,
        )

    @property
    def window_s(self) -> int:
        """The seconds over which a load is averaged where nothing is urgent."""
        return max(self.up_s, self.panic_s)

    def clamp(self, replicas: int) -> int:
        return min(max(replicas, self.low), self.high)
