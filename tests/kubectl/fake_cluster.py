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

    def get(self, kind: str, name: str) -> Body:
        for body in self.bodies:
            if body["kind"] == kind and body["metadata"]["name"] == name:
                return body
        raise NotFound(f"there is no {kind} {name} in namespace {self.namespace}")

    def list(self, kind: str, selector: str = "") -> list[Body]:
        key, _, value = selector.partition("=")
        return [
            body
            for body in self.bodies
            if body["kind"] == kind
            and (not key or key in body["metadata"].get("labels", {}))
            and (not value or body["metadata"]["labels"][key] == value)
        ]

    def create(self, body: Body) -> Body:
        name = f"{body['metadata']['generateName']}1"
        stored = {**body, "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}}
        self.created.append(stored)
        self.bodies.append(stored)
        return stored

    def delete(self, kind: str, name: str) -> None:
        self.bodies.remove(self.get(kind, name))
        self.deleted.append(name)

    def user(self) -> str:
        return "ann"
