"""A cluster in memory behind the plugin's seam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kubectl_moe.cluster import ClusterError, NotFound

Body = dict[str, Any]


class FakeCluster:
    """Holds bodies; remembers what was created and deleted."""

    def __init__(self, bodies: Sequence[Body]) -> None:
        self.namespace = "test"
        self.bodies = list(bodies)
        self.created: list[Body] = []
        self.deleted: list[str] = []
        self.applied: list[tuple[Body, bool]] = []  # and whether it was a dry run
        self.refuses: dict[str, str] = {}  # names of objects that may not be applied, and why
        self.state = ""  # what becomes of Overrides that are created

    def get(self, kind: str, name: str) -> Body:
        for body in self.bodies:
            if body["kind"] == kind and body["metadata"]["name"] == name:
                return body
        raise NotFound(f"there is no {kind} {name} in namespace {self.namespace}")

    def list(self, kind: str, selector: str = "") -> list[Body]:
        terms = [term for term in selector.split(",") if term]
        return [
            body
            for body in self.bodies
            if body["kind"] == kind and all(_fits(body, term) for term in terms)
        ]

    def create(self, body: Body) -> Body:
        if body["kind"] == "SelfSubjectReview":
            return {**body, "status": {"userInfo": {"username": "ann"}}}
        name = f"{body['metadata']['generateName']}1"
        stored = {**body, "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}}
        if self.state:
            stored["status"] = {"state": self.state, "message": f"it is {self.state}"}
        self.created.append(stored)
        self.bodies.append(stored)
        return stored

    def apply(self, body: Body, *, dry_run: bool = False) -> Body:
        """Take over spec and metadata, field by field; refuse what `refuses` says."""
        self.applied.append((body, dry_run))
        name = body["metadata"]["name"]
        if name in self.refuses:
            raise ClusterError(f"{body['kind']} {name}: {self.refuses[name]} (422)")
        known: Body = next((b for b in self.bodies if _same(b, body)), {"spec": {}})
        made = {**known, **body, "spec": {**known["spec"], **body["spec"]}}
        if not dry_run:
            self.bodies = [b for b in self.bodies if not _same(b, body)] + [made]
        return made

    def delete(self, kind: str, name: str) -> None:
        self.bodies.remove(self.get(kind, name))
        self.deleted.append(name)


def _same(one: Body, other: Body) -> bool:
    return (one["kind"], one["metadata"]["name"]) == (other["kind"], other["metadata"]["name"])


def _fits(body: Body, term: str) -> bool:
    """Return whether labels are as a term of a selector says: key, key=value or !key."""
    labels = body["metadata"].get("labels", {})
    if term.startswith("!"):
        return term[1:] not in labels
    key, _, value = term.partition("=")
    return key in labels and (not value or labels[key] == value)
