"""Which revisions of an expert may go: old ones that nothing names any more.

What the table names, or an Override, can always be made again as it was.
"""

from __future__ import annotations

from collections.abc import Iterable

from moe_core.rows import ExpertRow
from moe_operator.intent import Delete
from moe_operator.override_spec import OverrideSpec
from moe_operator.world import Revision


def outdated(
    revisions: Iterable[Revision],
    rows: Iterable[ExpertRow],
    overrides: Iterable[OverrideSpec],
    limit: int,
) -> tuple[Delete, ...]:
    """Return the revisions of one expert that may go, all but the newest `limit`.

    `rows` are its row of the stored table and that of the new one; `overrides` are its own. Of
    several revisions of what is named the newest is kept: it is the one that is looked at.
    """
    newest_first = sorted(revisions, key=lambda revision: revision.number, reverse=True)
    artifacts = {sha256 for row in rows for sha256 in _artifacts(row)}
    versions = {override.version for override in overrides}
    gone = []
    for place, revision in enumerate(newest_first):
        version = revision.version
        needed = version.sha256 in artifacts or version.version in versions
        artifacts.discard(version.sha256)
        versions.discard(version.version)
        if place >= limit and not needed:
            gone.append(revision)
    return tuple(
        Delete("ControllerRevision", revision.name, revision.uid, revision.resource_version)
        for revision in gone
    )


def _artifacts(row: ExpertRow) -> set[str]:
    target = () if row.rollout is None else (row.rollout.target,)
    return {version.sha256 for version in (*row.named, *target)}
