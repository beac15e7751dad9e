"""What the ControllerRevisions of a mixture say: revisions, epochs, and parts of its table.

One that cannot be read holds up nothing: it is as if it were not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self, TypeVar

from moe_core.document import InvalidDocument
from moe_operator import journal, revisions, snapshots
from moe_operator.kinds import Body
from moe_operator.readings import Readings
from moe_operator.world import PartSeen, Revision, Snapshot

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kept:
    """All of them, each kind sorted; `known` remembers what was read before."""

    revisions: tuple[Revision, ...]
    snapshots: tuple[Snapshot, ...]
    parts: tuple[PartSeen, ...]

    @classmethod
    def of(cls, bodies: Iterable[Body], known: Readings) -> Self:
        found: tuple[list[Body], list[Body], list[Body]] = [], [], []
        for body in bodies:
            what = 2 if journal.is_part(body) else 1 if snapshots.is_snapshot(body) else 0
            found[what].append(body)
        of_versions = _readable(found[0], revisions.from_body, known)
        return cls(
            tuple(sorted(of_versions, key=lambda revision: (revision.expert, revision.number))),
            tuple(sorted(_readable(found[1], snapshots.from_body, known), key=lambda s: s.epoch)),
            tuple(_readable(found[2], journal.part_seen, known)),
        )

    def part(self, sha256: str) -> PartSeen | None:
        return next((seen for seen in self.parts if seen.part.sha256 == sha256), None)


def _readable(bodies: Iterable[Body], parse: Callable[[Body], T], known: Readings) -> Iterator[T]:
    for body in bodies:
        try:
            yield known.of(parse, body)
        except InvalidDocument:
            continue
