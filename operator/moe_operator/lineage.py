"""Numbers the versions of an expert or a gate as it had them, and keeps their templates.

Each change of spec.version is one revision, as is each retry; going back to an earlier version is
a new revision of the same artifact. The number is what tells a version that failed from the same
version wanted anew. What is newest among the revisions and the table's rollout counts, so that
losing the revisions restarts nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from moe_core.rows import ExpertRow
from moe_operator.revisions import name_of
from moe_operator.spec import ExpertSpec, Tried
from moe_operator.world import Revision


@dataclass(frozen=True, slots=True)
class Lineage:
    """The revisions of one expert, `current` being that of its spec; `made` is to be created."""

    current: Revision
    revisions: tuple[Revision, ...]
    made: Revision | None = None

    def template(self, sha256: str) -> Mapping[str, object] | None:
        """Return the newest template of an artifact; None where it was never accepted."""
        return _template(self.revisions, sha256)


def trace(
    expert: ExpertSpec,
    row: ExpertRow | None,
    revisions: Iterable[Revision],
    retried: bool,
    render: Callable[[], Mapping[str, object]],
) -> Lineage:
    """Return the lineage with the revision that the spec asks for, made if it is new.

    `revisions` are the expert's own; `render` gives the template as it would be today, for a new
    artifact and for one that is tried again. One that is being served keeps its own; one whose pods
    are waited for begins anew when its template would be another, so that settings by which no pod
    can run are mended where they were made.
    """
    own = tuple(sorted(revisions, key=lambda revision: revision.number))
    number = _number(expert, row, own, retried)
    known = next((r for r in own if r.number == number), None)
    if known is not None and known.version.sha256 == expert.version.sha256:
        if not _starts(expert, row, number) or _alike(known.template, render()):
            return Lineage(known, own)
        number += 1
    served = row is not None and expert.version.sha256 in {v.sha256 for v in row.named}
    kept = _template(own, expert.version.sha256) if served else None
    made = Revision(
        expert=expert.meta.name,
        number=number,
        version=expert.version,
        template=kept or render(),
        name=name_of(expert.kind, expert.meta.name, number),
        kind=expert.kind,
    )
    return Lineage(made, (*own, made), made)


def _template(revisions: Sequence[Revision], sha256: str) -> Mapping[str, object] | None:
    known = (r for r in reversed(revisions) if r.version.sha256 == sha256)
    return next((revision.template for revision in known), None)


def _starts(expert: ExpertSpec, row: ExpertRow | None, number: int) -> bool:
    """Say whether this revision is under way and no table has named its version yet.

    A gate has no pods, so nothing that it waits for is mended by another template.
    """
    if row is None or row.rollout is None or expert.kind is not Tried.EXPERT:
        return False
    under_way = row.rollout.revision == number and not row.rollout.outcome.ended
    return under_way and expert.version.sha256 not in {v.sha256 for v in row.named}


def _alike(kept: Mapping[str, object], today: Mapping[str, object]) -> bool:
    """Compare as JSON, which is how templates are kept."""
    return json.dumps(kept, sort_keys=True) == json.dumps(today, sort_keys=True)


def _number(
    expert: ExpertSpec, row: ExpertRow | None, own: tuple[Revision, ...], retried: bool
) -> int:
    """Return the number of the revision that the spec asks for."""
    rollout = None if row is None else row.rollout
    newest, sha256 = (own[-1].number, own[-1].version.sha256) if own else (0, "")
    if rollout is not None and rollout.revision > newest:
        newest, sha256 = rollout.revision, rollout.target.sha256
    if retried and rollout is not None and rollout.revision == newest:
        return newest + 1
    return newest if sha256 == expert.version.sha256 else newest + 1
