"""Reads and writes objects in the API server for the plugin; how it is asked is its transport's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlencode

from kubectl_moe.names import API_VERSION, GROUP, PLURALS, VERSION

Body = dict[str, Any]
Bodies = list[Body]


class ClusterError(Exception):
    """The API server could not be asked, or said no; the message is for a person."""


class NotFound(ClusterError):
    """There is no such object."""


ALL: Final = ""  # the namespace that stands for all of them, for lists
_MANAGER: Final = "kubectl-moe"
# What is in no namespace, and what is in some group other than that of moeops.
_CLUSTERED: Final = {
    "Namespace": "/api/v1/namespaces",
    "SelfSubjectReview": "/apis/authentication.k8s.io/v1/selfsubjectreviews",
}
_GROUPS: Final = {"Pod": "/api/v1"}


class Cluster(Protocol):
    """What the plugin needs of an API server, in one namespace or for lists in ALL.

    `apply` is a server-side apply: it changes the fields that the body has, makes the object where
    there is none, and in a dry run only says what would be.
    """

    namespace: str

    def get(self, kind: str, name: str) -> Body: ...
    def list(self, kind: str, selector: str = "") -> Bodies: ...
    def create(self, body: Body) -> Body: ...
    def apply(self, body: Body, *, dry_run: bool = False) -> Body: ...
    def delete(self, kind: str, name: str) -> None: ...


def who(cluster: Cluster) -> str:
    """Return who the API server takes this caller for."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "metadata": {}}
    name: str = cluster.create(body)["status"]["userInfo"]["username"]
    return name


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server said: the status, its reason, and JSON."""

    status: int
    reason: str
    data: bytes


class Transport(Protocol):
    """Carries requests; a PATCH is a server-side apply. Raises ClusterError without an answer."""

    def send(self, method: str, path: str, body: bytes | None) -> Answer: ...
    def close(self) -> None: ...


class ApiCluster:
    """One namespace of a real API server."""

    def __init__(self, transport: Transport, namespace: str) -> None:
        self.namespace = namespace
        self._transport = transport

    def close(self) -> None:
        self._transport.close()

    def everywhere(self) -> ApiCluster:
        """Return all namespaces, over the same connection."""
        return ApiCluster(self._transport, ALL)

    def get(self, kind: str, name: str) -> Body:
        result: Body = self._call("GET", f"{self._path(kind)}/{name}", what=f"{kind} {name}")
        return result

    def list(self, kind: str, selector: str = "") -> Bodies:
        query = f"?{urlencode({'labelSelector': selector})}" if selector else ""
        result = self._call("GET", self._path(kind) + query, what=f"{kind}s")
        return [{**item, "kind": kind} for item in result["items"]]

    def create(self, body: Body) -> Body:
        what = f"{body['kind']} {body['metadata'].get('name', '')}"
        result: Body = self._call("POST", self._path(body["kind"]), what=what, body=body)
        return result

    def delete(self, kind: str, name: str) -> None:
        self._call("DELETE", f"{self._path(kind)}/{name}", what=f"{kind} {name}")

    def apply(self, body: Body, *, dry_run: bool = False) -> Body:
        asked = {"fieldManager": _MANAGER, "force": "true", "fieldValidation": "Strict"}
        query = urlencode({**asked, "dryRun": "All"} if dry_run else asked)
        kind, name = body["kind"], body["metadata"]["name"]
        path = f"{self._path(kind, body['metadata'].get('namespace'))}/{name}?{query}"
        result: Body = self._call("PATCH", path, what=f"{kind} {name}", body=body)
        return result

    def _path(self, kind: str, namespace: str | None = None) -> str:
        if kind in _CLUSTERED:
            return _CLUSTERED[kind]
        within = self.namespace if namespace is None else namespace
        where = f"/namespaces/{within}" if within else ""
        if kind in PLURALS:
            return f"/apis/{GROUP}/{VERSION}{where}/{PLURALS[kind]}"
        return f"{_GROUPS.get(kind, '/apis/apps/v1')}{where}/{kind.lower()}s"

    def _call(self, method: str, path: str, *, what: str, body: Body | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        answer = self._transport.send(method, path, data)
        if answer.status >= 400:
            raise _explain(answer, what, self.namespace)
        return json.loads(answer.data)


def _explain(answer: Answer, what: str, namespace: str) -> ClusterError:
    try:
        said = json.loads(answer.data or "{}")
        message, missing = said.get("message", answer.reason), said.get("details") or {}
    except (AttributeError, ValueError):
        message, missing = answer.reason, {}
    if answer.status == 404:
        if not missing.get("name"):  # no object is missing, but the kind of it
            return ClusterError(f"the cluster does not know {API_VERSION}; is moeops installed?")
        if missing.get("kind") == "namespaces":
            return NotFound(f"there is no namespace {missing['name']}")
        return NotFound(f"there is no {what} in namespace {namespace}")
    return ClusterError(f"{what}: {message} ({answer.status})")
