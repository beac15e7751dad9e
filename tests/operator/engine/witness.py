"""Looks at everything that the API server takes, and says where it is not legal.

It knows the objects as they are, not as the operator sees them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moe_core.parts import Part
from moe_core.rollout import Version
from moe_core.table import Table
from moe_operator.kinds import (
    CONTROLLER_REVISION,
    DEPLOYMENT,
    EXPERT,
    MIXTURE,
    POD,
    ROUTING_TABLE,
    Body,
    Kind,
    labels_of,
    metadata,
)
from moe_operator.labels import deployment_name, short
from tests.operator.plan import invariants
from tests.support.whole import is_part, whole_table

Place = tuple[Kind, str, str]


class Illegal(BaseException):
    """The API server holds what must never be; no operator may take this for a failed look."""


@dataclass(slots=True)
class Witness:
    """Raises Illegal at the first change that is not legal."""

    objects: Mapping[Place, Body]  # as they are
    tables: list[Table] = field(default_factory=list)
    _before: Table | None = None
    _experts: dict[str, str] = field(default_factory=dict)  # uids at the last table, by name

    def __post_init__(self) -> None:
        self._experts = self._uids()
        for place, body in self.objects.items():
            if place[0] == ROUTING_TABLE:
                self._before = self._whole(body)

    def see(self, kind: Kind, event: str, body: Body) -> None:
        """See a change that was accepted."""
        try:
            self._see(kind, event, body)
        except AssertionError as error:
            raise Illegal(str(error)) from error

    def _see(self, kind: Kind, event: str, body: Body) -> None:
        if kind == ROUTING_TABLE:
            after = None if event == "DELETED" else self._whole(body)
            if after is not None:
                self._look_at(after)
            self._before = after
        if kind == DEPLOYMENT and event == "DELETED":
            self._may_go(body)
        if kind == CONTROLLER_REVISION and event == "DELETED" and is_part(body):
            self._may_be_missed(body)

    def _whole(self, body: Body) -> Table:
        """Return a table, whose parts must all be there."""
        kept = (body for place, body in self.objects.items() if place[0] == CONTROLLER_REVISION)
        return Table.from_object(whole_table(body, kept))

    def _may_be_missed(self, part: Body) -> None:
        for place, body in self.objects.items():
            if place[0] == ROUTING_TABLE:
                named = body["spec"].get("parts", ())
                assert Part.from_data(part["data"]).sha256 not in named, "a part went that is named"

    def _look_at(self, table: Table) -> None:
        before, experts = self._before, self._uids()
        stayed = [name for name, uid in experts.items() if self._experts.get(name) == uid]
        self._experts = experts
        invariants.legal_change(before, table, stayed)
        for old in before.experts if before else ():
            new = table.expert(old.expert_id)
            if new is None or new.name not in stayed:
                continue
            if new.candidate is not None and invariants.raised(old, new):
                self._has_pods(new.name, new.candidate)
            if new.stable is not None and old.stable is not None and new.stable != old.stable:
                self._has_pods(new.name, new.stable)
        self.tables.append(table)

    def _has_pods(self, expert: str, version: Version) -> None:
        own = {"moeops.dev/expert": expert, "moeops.dev/digest": short(version.sha256)}
        there = any(
            own.items() <= labels_of(pod).items()
            for place, pod in self.objects.items()
            if place[0] == POD
        )
        assert there, f"{version.version} of {expert} has weight and no pod"

    def _uids(self) -> dict[str, str]:
        return {p[2]: body["metadata"]["uid"] for p, body in self.objects.items() if p[0] == EXPERT}

    def _may_go(self, deployment: Body) -> None:
        """Pods of what the table names stay, as long as their Expert and its Mixture are there."""
        name, namespace = metadata(deployment)["name"], metadata(deployment)["namespace"]
        for row in self._before.experts if self._before else ():
            places = (EXPERT, namespace, row.name), (MIXTURE, namespace, "tiny")
            owned = all(place in self.objects for place in places)
            named = {deployment_name(row.name, version.sha256) for version in row.named}
            assert not (owned and name in named), f"{name} went while the table names it"
