"""How the rollouts of an expert ended, for people: `status.history`, by number of revision.

Nothing is decided by it but what is said of an Override that came late, and losing it loses only
that. It is put down before a table that may forget the rollout takes the place of the one that
tells of its end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from moe_core.rollout import Rollout
from moe_operator.spec import Meta

_LONGEST: Final = 1024  # characters of a reason


def remember(meta: Meta, rollouts: Iterable[Rollout | None], limit: int) -> list[dict[str, Any]]:
    """Return the history that an Expert had, with these rollouts where they have ended.

    In order of revisions; the newest `limit` are kept.
    """
    known = {entry["revision"]: dict(entry) for entry in meta.status.get("history") or ()}
    ended = (rollout for rollout in rollouts if rollout is not None and rollout.outcome.ended)
    known |= {rollout.revision: _entry(rollout) for rollout in ended}
    return [known[revision] for revision in sorted(known)[-limit:]]


def _entry(rollout: Rollout) -> dict[str, Any]:
    entry = {
        "revision": rollout.revision,
        "version": rollout.target.version,
        "outcome": rollout.outcome.value,
        "at": rollout.step_began,
        "why": rollout.reason[:_LONGEST],
    }
    return {**entry, "by": rollout.by} if rollout.by else entry
