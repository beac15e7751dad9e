"""A cluster in memory behind the plugin's seam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kubectl_moe.cluster import NotFound

Body = dict[str, Any]


class FakeCluster:
    """Holds bodies; remembers what was created and deleted."""

    def __init__(self, bodies: Sequence[Body]) -> None:
        self.namespace = "test"
        self.bodies = list(bodies)
        self.created: list[Body] = []
        self.deleted: list[str] = []
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
        name = f"{body['metadata']['generateName']}1"
        stored = {**body, "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}}
        if self.state:
            stored["status"] = {"state": self.state, "message": f"it is {self.state}"}
        self.created.append(stored)
        self.bodies.append(stored)
        return stored

    def delete(self, kind: str, name: str) -> None:
        self.bodies.remove(self.get(kind, name))
        self.deleted.append(name)

    def user(self) -> str:
        return "ann"


def _fits(body: Body, term: str) -> bool:
    """Return whether labels are as a term of a selector says: key, key=value or !key."""
    labels = body["metadata"].get("labels", {})
    if term.startswith("!"):
        return term[1:] not in labels
    key, _, value = term.partition("=")
    return key in labels and (not value or labels[key] == value)
