"""Which versions of an expert or a gate are told of, and by which names.

Those that the table names, and the target of the last rollout also after its end: one that was
taken back within seconds would else never be seen in what is asked for every half a minute. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from moe_core.rows import ExpertRow, GateRow

_DIGITS = 10


def version_names(row: ExpertRow | GateRow) -> Mapping[str, str]:
    """Return names by sha256, stable first.

    Where two artifacts have one name, each is told with the first digits of its digest.
    """
    versions = {version.sha256: version.version for version in row.named}
    if row.rollout is not None:
        versions.setdefault(row.rollout.target.sha256, row.rollout.target.version)
    times = Counter(versions.values()) if len(versions) > 1 else {}
    return {
        sha256: name if times.get(name, 1) == 1 else f"{name}@{sha256[:_DIGITS]}"
        for sha256, name in versions.items()
    }


def on_trial(row: ExpertRow | GateRow) -> bool:
    """Whether a candidate stands beside a stable version."""
    return row.candidate is not None and row.stable is not None
