"""What a Gate's routing is compared with, and what is done where it drifts, as its spec says.

Reads and nothing else; the defaults are those of the custom resource.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from moe_core.document import InvalidDocument, Reader
from moe_core.drift import Spread

_LIMITS: Final = ("baselines", "minExpertsInUsePercent", "maxOverflowPercent")

# A layer, and what its rows are about; empty: all of them.
Place = tuple[int, str]


class OnAlarm(StrEnum):
    """What is done beside telling: to what is rolling out, and to nothing else."""

    REPORT = "Report"
    PAUSE = "Pause"
    ROLL_BACK = "RollBack"


@dataclass(frozen=True, slots=True)
class DriftSpec:
    """Limits of the rows that a gate's stable version chooses for, in the last `window_rows`.

    `baselines` are by the sha256 of the version that each is of. A limit that is None is not
    looked at.
    """

    baselines: Mapping[str, Mapping[Place, Spread]]
    window_rows: int = 65_536  # of each layer
    max_psi_percent: int = 25
    min_experts_percent: int | None = None
    max_overflow_percent: int | None = None
    on_drift: OnAlarm = OnAlarm.REPORT

    @classmethod
    def read(cls, reader: Reader, sha256: str, experts: Sequence[str]) -> Self:
        """Read it; `sha256` is the version of the spec, with these experts.

        Raises InvalidDocument.
        """
        if not any(name in reader.value for name in _LIMITS):
            raise InvalidDocument(f"{reader.path} has none of {', '.join(_LIMITS)}; give one")
        return cls(
            baselines={
                item.sha256("sha256"): _baseline(item, sha256, experts)
                for item in reader.items("baselines")
            },
            window_rows=reader.integer("windowRows", low=256, default=65_536),
            max_psi_percent=reader.integer("maxPsiPercent", low=1, default=25),
            min_experts_percent=_limit(reader, "minExpertsInUsePercent"),
            max_overflow_percent=_limit(reader, "maxOverflowPercent"),
            on_drift=reader.enum("onDrift", OnAlarm, default=OnAlarm.REPORT),
        )


def _limit(reader: Reader, name: str) -> int | None:
    return reader.integer(name, low=1, high=100) if name in reader.value else None


def _baseline(reader: Reader, sha256: str, experts: Sequence[str]) -> Mapping[Place, Spread]:
    """Read what one version of the gate chose; of the version of the spec it must fit."""
    found: dict[Place, Spread] = {}
    for item in reader.items("layers"):
        pairs = item.integers("pairs")
        if reader.sha256("sha256") == sha256 and len(pairs) != len(experts):
            said = f"has {len(pairs)} numbers; spec.experts has {len(experts)}"
            raise InvalidDocument(f"{item.path}.pairs {said}")
        total = sum(pairs)
        if min(pairs, default=0) < 0 or not total:
            raise InvalidDocument(f"{item.path}.pairs must be counts, one of them above 0")
        place = item.integer("layer"), item.text("context", default="")
        if place in found:
            raise InvalidDocument(f"{item.path} is of the same rows as one before it")
        shares = tuple(count / total for count in pairs)
        found[place] = Spread(shares, float(item.integer("effectivePairs", low=1)))
    return found
